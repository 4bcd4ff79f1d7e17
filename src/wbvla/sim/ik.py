"""Arm poses by inverse kinematics: palm frames in the pelvis frame in, 14 joint targets out.

In: palm centres (m) and orientations relative to the pelvis. Out: ArmTarget positions (14,) rad.
Uses the robot's own model with legs and waist frozen, and adds the sag that gravity causes under the arms' PD gains.
"""

from __future__ import annotations

import mink
import mujoco
import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.tasks.cart_pushing import palm_geoms

SOLVE_STEPS, SOLVE_DT_S = 150, 0.05
POSITION_TOLERANCE_M = 0.03

# Both hands as the pelvis: fingers ahead, palms facing each other. The wrists stay near their middle.
FINGERS_AHEAD = (np.eye(3), np.eye(3))


class ArmSolver:
    """Solves both arms at once for palm targets in the pelvis frame."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.model = robot.build(collisions="feet").compile()
        joints = [self.model.joint(name) for name in robot.joints]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        arm_dofs = [self.model.joint(name).dofadr[0] for name in robot.arm_joints]
        self._arm_dofs = np.array(arm_dofs)
        self._frozen = mink.DofFreezingTask(
            self.model, dof_indices=[d for d in range(self.model.nv) if d not in set(arm_dofs)]
        )
        self._palms = palm_geoms(self.model)

    def solve(self, left_m: np.ndarray, right_m: np.ndarray, rotations=FINGERS_AHEAD) -> np.ndarray:
        """Return arm targets (14,) rad that hold both palm centres (3,) in the pelvis frame.

        Raises ValueError when a palm stays more than 3 cm away from its place.
        """
        q = self.model.qpos0.copy()
        q[:7] = [0, 0, 0, 1, 0, 0, 0]
        q[self._qpos] = self.robot.array("default")
        configuration = mink.Configuration(self.model, q=q)
        tasks = [mink.PostureTask(self.model, cost=1e-3)]
        tasks[0].set_target(q)
        for geom, place, rotation in zip(self._palms, (left_m, right_m), rotations):
            name = self.model.geom(geom).name
            task = mink.FrameTask(name, "geom", position_cost=1.0, orientation_cost=0.15, lm_damping=0.01)
            task.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), np.asarray(place)))
            tasks.append(task)
        limits = [mink.ConfigurationLimit(self.model)]
        for _ in range(SOLVE_STEPS):
            velocity = mink.solve_ik(
                configuration, tasks, SOLVE_DT_S, solver="daqp", damping=1e-4, limits=limits,
                constraints=[self._frozen],
            )  # fmt: skip
            configuration.integrate_inplace(velocity, SOLVE_DT_S)
        data = configuration.data
        for geom, place in zip(self._palms, (left_m, right_m)):
            miss = float(np.linalg.norm(data.geom_xpos[geom] - place))
            if miss > POSITION_TOLERANCE_M:
                raise ValueError(f"palm target {np.round(place, 2)}: misses by {miss:.2f} m; choose a nearer place")
        return self._against_gravity(configuration.q)

    def _against_gravity(self, q: np.ndarray) -> np.ndarray:
        """Raise the targets (14,) by what the PD needs to carry the arms' weight."""
        data = mujoco.MjData(self.model)
        data.qpos[:] = q
        mujoco.mj_forward(self.model, data)
        n = self.robot.n_lmo
        arms = q[self._qpos][n : n + 14]
        targets = arms + data.qfrc_bias[self._arm_dofs] / self.robot.array("kp")[n : n + 14]
        return np.clip(targets, *self.robot.range_rad[n : n + 14].T)
