"""Joint angles of both arms as poses of both palms, and back: X-VLA's unified 20-D space `ee6d`.

In: arm joints (N, 14) rad, grippers (N, 2). Out: (N, 20), per arm position 3, rotation 6, gripper 1, left first.
Frame: the palm's (its shape's centre and axes) relative to the torso link, so that arm joints alone decide it, however
the robot walks and bends. Rotation 6-D: the first column of the rotation matrix, then the second (as LeRobot's xvla).
"""

from __future__ import annotations

from collections.abc import Callable

import mink
import mujoco
import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.tasks.base import palm_geoms
from wbvla.types import N_ARM
from wbvla.xvla.rotations import rotation_6d, rotation_matrix

POSE_DIM = 20
POSITION_TOLERANCE_M, ROTATION_TOLERANCE_RAD = 1e-3, 5e-3
_MAX_STEPS, _STEP_S = 100, 0.1
_PLACES = (slice(0, 9), slice(10, 19))
_GRIPPERS = [9, 19]


class PalmPoses:
    """Forward and inverse kinematics of one robot's arms."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.model = robot.build(collisions="feet").compile()
        self._data = mujoco.MjData(self.model)
        arms = [self.model.joint(name) for name in robot.arm_joints]
        self._qpos = np.array([joint.qposadr[0] for joint in arms])
        dofs = {int(joint.dofadr[0]) for joint in arms}
        self._frozen = mink.DofFreezingTask(self.model, dof_indices=[d for d in range(self.model.nv) if d not in dofs])
        self._palms, self._torso = palm_geoms(self.model), self.model.body("torso_link").id
        self._range = robot.range_rad[robot.n_lmo : robot.n_lmo + N_ARM]
        self._torso_place = self._place_torso()

    def forward(self, arms_rad: np.ndarray, grippers: np.ndarray) -> np.ndarray:
        """Return poses (N, 20) float32 of arm joints (N, 14), left then right, and grippers (N, 2).

        Raises:
            ValueError: a shape does not fit or a number is not finite.
        """
        arms_rad, grippers = np.asarray(arms_rad, float), np.asarray(grippers, float)
        if arms_rad.ndim != 2 or arms_rad.shape[1] != N_ARM or not np.isfinite(arms_rad).all():
            raise ValueError(f"arm joints: got {arms_rad.shape}, expected (N, {N_ARM}) finite numbers, left arm first")
        poses = np.empty((len(arms_rad), POSE_DIM), np.float32)
        for row, arms in enumerate(arms_rad):
            for place, (position, rotation) in zip(_PLACES, self._palms_at(arms)):
                poses[row, place] = [*position, *rotation_6d(rotation)]
        poses[:, _GRIPPERS] = grippers
        return poses

    def inverse(
        self, poses: np.ndarray, near_rad: np.ndarray, step: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return arm joints (N, 14) rad and grippers (N, 2) of poses (N, 20).

        Seven joints hold a palm in more than one way: of these, the way nearest to `near_rad` is found, by the smallest
        steps from there.

        Args:
            near_rad: (N, 14), where the arms are about: measured joints of the same instant, or the row before.
            step: called after every row.
        Raises:
            ValueError: a shape does not fit, or a row's pose is beyond the arms' reach by more than 1 mm or 5 mrad.
        """
        if np.shape(poses)[1:] != (POSE_DIM,) or np.shape(near_rad) != (len(poses), N_ARM):
            raise ValueError(f"poses: got {np.shape(poses)} near {np.shape(near_rad)}, expected (N, 20) and (N, 14)")
        poses = np.asarray(poses, float)
        arms = np.empty((len(poses), N_ARM), np.float32)
        for row, pose in enumerate(poses):
            wanted = [(pose[place][:3], rotation_matrix(pose[place][3:])) for place in _PLACES]
            arms[row], (far_m, far_rad) = self._solve(wanted, np.clip(near_rad[row], *self._range.T))
            if far_m > POSITION_TOLERANCE_M or far_rad > ROTATION_TOLERANCE_RAD:
                raise ValueError(
                    f"row {row}: the palms' poses are beyond the arms of {self.robot.name!r} by {far_m:.3f} m and "
                    f"{far_rad:.3f} rad; was this recorded with another robot, or another frame?"
                )
            step()
        return arms, poses[:, _GRIPPERS].astype(np.float32)

    def _solve(self, wanted: list, near: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        configuration = mink.Configuration(self.model, q=self._full(near))
        tasks, limits = [], [mink.ConfigurationLimit(self.model)]
        for geom, (position, rotation) in zip(self._palms, wanted):
            pose = mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position)
            task = mink.FrameTask(self.model.geom(geom).name, "geom", position_cost=1.0, orientation_cost=0.3)
            task.set_target(self._torso_place @ pose)
            tasks.append(task)
        for _ in range(_MAX_STEPS):
            errors = np.array([task.compute_error(configuration) for task in tasks])
            far = float(np.linalg.norm(errors[:, :3], axis=1).max()), float(np.linalg.norm(errors[:, 3:], axis=1).max())
            if far[0] < 1e-5 and far[1] < 1e-4:
                break
            velocity = mink.solve_ik(
                configuration, tasks, _STEP_S, solver="daqp", damping=1e-8, limits=limits, constraints=[self._frozen]
            )
            configuration.integrate_inplace(velocity, _STEP_S)
        return configuration.q[self._qpos], far

    def _palms_at(self, arms: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return position and rotation of each palm in the torso's frame."""
        data = self._data
        data.qpos[:] = self._full(arms)
        mujoco.mj_kinematics(self.model, data)
        origin, torso = data.xpos[self._torso], data.xmat[self._torso].reshape(3, 3)
        return [
            (torso.T @ (data.geom_xpos[geom] - origin), torso.T @ data.geom_xmat[geom].reshape(3, 3))
            for geom in self._palms
        ]

    def _full(self, arms: np.ndarray) -> np.ndarray:
        q = self.model.qpos0.copy()
        q[:7] = [0, 0, 0, 1, 0, 0, 0]
        q[self._qpos] = arms
        return q

    def _place_torso(self) -> mink.SE3:
        self._data.qpos[:] = self._full(np.zeros(N_ARM))
        mujoco.mj_kinematics(self.model, self._data)
        rotation = mink.SO3.from_matrix(self._data.xmat[self._torso].reshape(3, 3).copy())
        return mink.SE3.from_rotation_and_translation(rotation, self._data.xpos[self._torso].copy())
