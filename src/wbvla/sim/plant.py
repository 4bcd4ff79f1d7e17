"""The simulated body and room: joint targets in; proprioception and pictures out.

In: a Robot, a task that adds its scene, joint targets (J,) rad. Out: Proprioception, uint8 pictures, body poses.
Physics runs at 500 Hz with the motors' PD inside; `tick` advances one 50 Hz control period. A sole that meets the floor
sinks in by as much as two physics steps allow: 4 mm here, 17 mm with the steps that suffice to train legs.
"""

from __future__ import annotations

import atexit
import weakref
import zlib

import mujoco
import numpy as np

from wbvla.robots.base import Robot
from wbvla.types import Proprioception

TIMESTEP_S = 0.002
STEPS_PER_TICK = 10
TICK_S = TIMESTEP_S * STEPS_PER_TICK

MAX_IMAGE_PX = 480  # height of the frame buffer
WRIST_NEAREST_M = 0.01
# Intel's D435i: the depth lens sees 87 x 58 degrees, and nothing nearer than this.
DEPTH_HALF_WIDTH, DEPTH_HALF_HEIGHT, DEPTH_NEAREST_M = np.tan(np.radians(87.0 / 2)), np.tan(np.radians(58.0 / 2)), 0.28


class Plant:
    """MuJoCo model and data of one robot in one task's scene."""

    def __init__(self, robot: Robot, task) -> None:
        spec = robot.build(feet="spheres", collisions="full", timestep_s=TIMESTEP_S)
        for foot in (f"{side}_foot{i}" for side in ("left", "right") for i in range(4)):
            spec.geom(foot).solref = [2 * TIMESTEP_S, 1.0]
        task.add_scene(spec)
        visual = spec.visual
        visual.quality.offsamples = 0
        visual.quality.shadowsize = 0
        visual.quality.numslices, visual.quality.numstacks = 12, 6  # of what is round: a third less time a picture
        visual.global_.offwidth, visual.global_.offheight = 640, MAX_IMAGE_PX
        self.robot = robot
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._view = mujoco.MjData(self.model)
        joints = [self.model.joint(name) for name in robot.joints]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._qvel = np.array([j.dofadr[0] for j in joints])
        self._ctrl = np.array([self.model.actuator(name).id for name in robot.joints])
        self._gyro = slice(self.model.sensor("gyro").adr[0], self.model.sensor("gyro").adr[0] + 3)
        self._range = robot.range_rad
        self._head = self.model.camera("head").quat.copy()
        self.camera_noise = 0.0
        self._look = mujoco.MjvOption()
        self._look.sitegroup[:] = 0
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def reset(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Stand the robot on the floor at a planar pose, everything else at the scene's own start."""
        mujoco.mj_resetData(self.model, self.data)
        qpos = self.data.qpos
        qpos[:7] = [x_m, y_m, 1.0, np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)]
        qpos[self._qpos] = self.robot.array("default")
        mujoco.mj_kinematics(self.model, self.data)
        soles = [self.data.geom(f"{side}_foot{i}").xpos[2] for side in ("left", "right") for i in range(4)]
        qpos[2] -= min(soles) - self.model.geom("left_foot0").size[0]
        self.data.ctrl[self._ctrl] = self.robot.array("default")
        mujoco.mj_forward(self.model, self.data)

    def disturb_camera(self, tilt_rad: float, noise: float) -> None:
        """Tilt the head camera off its mount about its horizontal axis, and give its pictures noise (std, 0 to 1)."""
        tilt = np.array([np.cos(tilt_rad / 2), np.sin(tilt_rad / 2), 0.0, 0.0])
        mujoco.mju_mulQuat(self.model.camera("head").quat, self._head, tilt)
        self.camera_noise = noise

    def proprioception(self) -> Proprioception:
        """Return what the body's own sensors measure now."""
        return Proprioception(
            q_rad=self.data.qpos[self._qpos].copy(),
            dq_rad_s=self.data.qvel[self._qvel].copy(),
            gyro_rad_s=self.data.sensordata[self._gyro].copy(),
            gravity=-self.rotation()[2],
        )

    def rotation(self) -> np.ndarray:
        """Return R_world_pelvis (3, 3)."""
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, self.data.qpos[3:7])
        return rotation.reshape(3, 3)

    def pelvis_pose(self) -> tuple[np.ndarray, float, float]:
        """Return the pelvis position (3,) m, its heading and its tilt from upright, rad."""
        rotation = self.rotation()
        heading = np.arctan2(rotation[1, 0], rotation[0, 0])
        return self.data.qpos[:3].copy(), float(heading), float(np.arccos(np.clip(rotation[2, 2], -1, 1)))

    def apply(self, targets_rad: np.ndarray) -> None:
        """Set the PD targets (J,) of all joints in the robot's joint order, clipped to the joint limits."""
        self.data.ctrl[self._ctrl] = np.clip(targets_rad, self._range[:, 0], self._range[:, 1])

    def tick(self) -> None:
        """Advance 20 ms of physics and bring body poses up to date with the joints."""
        mujoco.mj_step(self.model, self.data, STEPS_PER_TICK)
        mujoco.mj_kinematics(self.model, self.data)

    def render(self, size: int, qpos: np.ndarray | None = None) -> np.ndarray:
        """Return the head camera's picture (size, size, 3) uint8, now or at an earlier qpos (nq,)."""
        picture = self.render_from("head", size, size, qpos)
        if self.camera_noise == 0.0:
            return picture
        # The noise of an instant belongs to the instant: drawing it again gives the same picture.
        rng = np.random.default_rng(zlib.crc32((self.data.qpos if qpos is None else qpos).tobytes()))
        noise = 255 * self.camera_noise * rng.standard_normal(picture.shape, np.float32)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)

    def picture(self, name: str, size: int, qpos: np.ndarray | None = None) -> np.ndarray:
        """Return one of wbvla.types.PICTURES, now or at an earlier qpos (nq,).

        Returns:
            left_wrist, right_wrist: colour (size, size, 3) uint8.
            head_depth: (size, size, 1) uint16 mm along the optical axis, aligned with the head's colour picture pixel
            by pixel; 0 where the depth lens gives nothing: outside its field of view, too near, or beyond 65 m.
        """
        if name != "head_depth":
            sight = self.model.vis.map
            usual, sight.znear = sight.znear, WRIST_NEAREST_M / self.model.stat.extent  # or the hand would be cut away
            try:
                return self.render_from(name, size, size, qpos)
            finally:
                sight.znear = usual
        renderer = self._scene("head", size, size, qpos)
        renderer.enable_depth_rendering()
        depth_m = renderer.render().copy()
        renderer.disable_depth_rendering()
        slope = (2 * np.arange(size) + 1 - size) / size * np.tan(np.radians(self.robot.camera.fovy_deg / 2))
        seen = (np.abs(slope)[:, None] <= DEPTH_HALF_HEIGHT) & (np.abs(slope) <= DEPTH_HALF_WIDTH)
        mm = np.rint(1000 * depth_m)
        seen &= (depth_m >= DEPTH_NEAREST_M) & (mm <= np.iinfo(np.uint16).max)
        return np.where(seen, mm, 0).astype(np.uint16)[..., None]

    def render_from(self, camera: str, width: int, height: int, qpos: np.ndarray | None = None) -> np.ndarray:
        """Return the picture (height, width, 3) uint8 of a named camera; no shadows, no multisampling."""
        return self._scene(camera, width, height, qpos).render().copy()

    def _scene(self, camera: str, width: int, height: int, qpos: np.ndarray | None) -> mujoco.Renderer:
        """Return a renderer that is ready to draw."""
        # A scratch copy of the pose: drawing never touches the simulated state.
        self._view.qpos[:] = self.data.qpos if qpos is None else qpos
        mujoco.mj_kinematics(self.model, self._view)
        mujoco.mj_comPos(self.model, self._view)
        mujoco.mj_camlight(self.model, self._view)
        renderer = self._renderer(width, height)
        renderer.update_scene(self._view, camera, self._look)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        if (width, height) not in self._renderers:
            try:
                self._renderers[width, height] = mujoco.Renderer(self.model, height, width, max_geom=200)
            except mujoco.FatalError as error:
                raise ValueError(
                    f"cannot draw ({error}): install software OpenGL (apt-get install libegl1 libgl1-mesa-dri) and set "
                    "MUJOCO_GL=egl before mujoco is imported"
                ) from None
            if not _DRAWING:
                # Registered after MuJoCo's own exit hook, so it runs before that takes the display away.
                atexit.register(_close_all)
            _DRAWING.add(self)
        return self._renderers[width, height]

    def close(self) -> None:
        """Free the renderers' graphics memory."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


_DRAWING: weakref.WeakSet[Plant] = weakref.WeakSet()


def _close_all() -> None:
    for plant in list(_DRAWING):
        plant.close()
