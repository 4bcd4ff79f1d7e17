"""Drive the legs by keyboard in a viewer, or film a scripted walk where there is no screen.

In: a policy folder. Out: an interactive window, or an mp4.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KEYS = "arrow up/down: forward/back   left/right: turn   , and .: sidestep   page up/down: height   space: stop"
TOUR = (
    (2, (0, 0, 0)),
    (5, (1, 0, 0)),
    (4, (0, 0, 1)),
    (4, (0, 1, 0)),
    (4, (-1, 0, 0)),
    (4, (0, 0, -1)),
    (2, (0, 0, 0)),
)


@dataclass
class PlayLmo:
    """Watch the legs.

    Attributes:
        policy: folder with policy.onnx and contract.json; the shipped legs when left out.
        robot: whose shipped legs; with `policy` its contract says.
        video: write an mp4 of a scripted walk to this file instead of opening a viewer.
    """

    policy: str = ""
    robot: str = "g1"
    video: str = ""


def run(cfg: PlayLmo) -> None:
    """Open the viewer, or write the video. Raises ValueError without legs, or without a screen for the viewer."""
    from wbvla.lmo.controller import LmoController, weights_folder

    if not cfg.video and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise ValueError("no screen for the viewer: --video FILE.mp4 films a scripted walk instead")
    controller = LmoController(Path(cfg.policy) if cfg.policy else weights_folder(cfg.robot))
    walker = Walker(controller)
    if cfg.video:
        film(walker, Path(cfg.video))
    else:
        drive(walker)


class Walker:
    """The robot on a floor, its legs under the controller, its arms in the default pose."""

    def __init__(self, controller) -> None:
        import mujoco
        import numpy as np

        from wbvla.types import LocoCommand

        self.mujoco, self.np, self.controller, self.robot = mujoco, np, controller, controller.robot
        spec = self.robot.build(feet="spheres", collisions="feet", timestep_s=0.005)
        grid = spec.add_texture(
            name="grid", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            rgb1=[0.55, 0.57, 0.6], rgb2=[0.45, 0.47, 0.5], width=256, height=256,
        )  # fmt: skip
        material = spec.add_material(name="grid", texrepeat=[1, 1], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = grid.name
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], material="grid", contype=1, conaffinity=2
        )
        spec.worldbody.add_light(pos=[0, 0, 4], dir=[0.2, 0.2, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        spec.visual.global_.offwidth, spec.visual.global_.offheight = 640, 480
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.data.qpos[2], self.data.qpos[7:] = self.robot.height_range_m[1], self.robot.array("default")
        self.data.ctrl[:] = self.robot.array("default")
        self.command = LocoCommand(height_m=self.robot.nominal_height_m)
        mujoco.mj_forward(self.model, self.data)

    def step(self) -> None:
        """Advance 20 ms."""
        from wbvla.types import Proprioception

        d = self.data
        turn = d.body("pelvis").xmat.reshape(3, 3)
        body = Proprioception(d.qpos[7:], d.qvel[6:], d.qvel[3:6], turn.T @ self.np.array([0, 0, -1.0]))
        d.ctrl[: self.robot.n_lmo] = self.controller.step(self.command, body)
        for _ in range(4):
            self.mujoco.mj_step(self.model, d)


def film(walker: Walker, path: Path) -> None:
    """Write an mp4 of the scripted tour, 640x480 at 25 fps."""
    import av

    from wbvla.types import LocoCommand

    mujoco = walker.mujoco
    camera = mujoco.MjvCamera()
    camera.distance, camera.elevation, camera.azimuth = 2.6, -15, 140
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"filming {sum(seconds for seconds, _ in TOUR)} s of walking", flush=True)
    with mujoco.Renderer(walker.model, 480, 640) as renderer, av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for seconds, flags in TOUR:
            walker.command = LocoCommand(*flags, walker.robot.nominal_height_m)
            for _ in range(int(seconds * 25)):
                walker.step()
                walker.step()
                camera.lookat[:] = walker.data.qpos[:3] * [1, 1, 0] + [0, 0, 0.7]
                renderer.update_scene(walker.data, camera)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(renderer.render(), format="rgb24")))
        container.mux(stream.encode())
    print(f"wrote {path}")


def drive(walker: Walker) -> None:
    """Open MuJoCo's viewer; keys set the command."""
    import mujoco.viewer

    from wbvla.types import LocoCommand

    lo, hi = walker.robot.height_range_m

    def pressed(key: int) -> None:
        c = walker.command
        forward, side, turn, height = c.s_x, c.s_y, c.s_psi, c.height_m
        bump = lambda flag, by: max(-1, min(1, flag + by))  # noqa: E731
        if key in (265, 264):  # GLFW arrow up, down
            forward = bump(forward, 1 if key == 265 else -1)
        elif key in (263, 262):  # arrow left, right
            turn = bump(turn, 1 if key == 263 else -1)
        elif key in (ord(","), ord(".")):
            side = bump(side, 1 if key == ord(",") else -1)
        elif key in (266, 267):  # page up, page down
            height = min(hi, max(lo, height + (0.02 if key == 266 else -0.02)))
        elif key == ord(" "):
            forward = side = turn = 0
        walker.command = LocoCommand(forward, side, turn, height)
        print(f"\r{walker.command}   ", end="", flush=True)

    print(KEYS)
    with mujoco.viewer.launch_passive(walker.model, walker.data, key_callback=pressed) as viewer:
        deadline = time.monotonic()
        while viewer.is_running():
            walker.step()
            viewer.sync()
            deadline += 0.02
            time.sleep(max(0.0, deadline - time.monotonic()))
