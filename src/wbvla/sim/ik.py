"""Arm poses by inverse kinematics: palm frames in the pelvis frame in, 14 joint targets out.

In: palm centres (m) and orientations relative to the pelvis. Out: ArmTarget positions (14,) rad.
Uses the robot's own model with legs and waist frozen, and adds the sag that gravity causes under the arms' PD gains.
"""

from __future__ import annotations

import mink
import mujoco
import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.tasks.base import palm_geoms

SOLVE_STEPS, SOLVE_DT_S, SOLVE_COST = 150, 0.05, 1e-3
FOLLOW_STEPS, POSTURE_COST = 4, 0.05
HANDS_AHEAD_M = np.array([[0.32, 0.15, 0.05], [0.32, -0.15, 0.05]])  # elbows as one wants them while following
POSITION_TOLERANCE_M = 0.03


class ArmSolver:
    """Solves both arms at once for palm targets in the pelvis frame, the waist being straight.

    Both hands are turned as the pelvis is: fingers ahead, palms facing each other. The wrists stay near their middle.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.model = robot.build(collisions="feet").compile()
        self.torso_m = self._torso_place()
        joints = [self.model.joint(name) for name in robot.joints]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        arm_dofs = [self.model.joint(name).dofadr[0] for name in robot.arm_joints]
        self._arm_dofs = np.array(arm_dofs)
        self._frozen = mink.DofFreezingTask(
            self.model, dof_indices=[d for d in range(self.model.nv) if d not in set(arm_dofs)]
        )
        self._palms, self._turns = palm_geoms(self.model), [mink.SO3.from_matrix(hand.T) for hand in robot.hands]
        # Made once: to make them takes longer than a few steps of solving do.
        self._configuration, self._data = mink.Configuration(self.model), mujoco.MjData(self.model)
        self._limits = [mink.ConfigurationLimit(self.model)]
        self._near = {cost: mink.PostureTask(self.model, cost=cost) for cost in (SOLVE_COST, POSTURE_COST)}
        self._hands = [
            mink.FrameTask(
                self.model.geom(geom).name, "geom", position_cost=1.0, orientation_cost=0.15, lm_damping=0.01
            )
            for geom in self._palms
        ]
        self._posture = self._default_pose()
        self._posture[self._qpos[robot.n_lmo : robot.n_lmo + 14]] = self.solve(*HANDS_AHEAD_M)

    def solve(self, left_m: np.ndarray, right_m: np.ndarray) -> np.ndarray:
        """Return arm targets (14,) rad that hold both palm centres (3,) in the pelvis frame.

        Raises ValueError when a palm stays more than 3 cm away from its place.
        """
        q = self._default_pose()
        configuration = self._approach(q, q, SOLVE_COST, (left_m, right_m), SOLVE_STEPS)
        data = configuration.data
        for geom, place in zip(self._palms, (left_m, right_m)):
            miss = float(np.linalg.norm(data.geom_xpos[geom] - place))
            if miss > POSITION_TOLERANCE_M:
                raise ValueError(f"palm target {np.round(place, 2)}: misses by {miss:.2f} m; choose a nearer place")
        return self._against_gravity(configuration.q, np.zeros((2, 3)))

    def follow(self, arms: np.ndarray, places_m: np.ndarray, forces_N: np.ndarray) -> tuple:
        """Move arm joints (14,) a few steps towards palm centres (2, 3), however far those are.

        Args:
            arms: where the joints are thought to be, rad; what the last call returned first.
            forces_N: what each palm shall press with (2, 3), pelvis frame, beside carrying its own arm.
        Returns:
            the joints (14,) after the steps, and the PD targets (14,) that hold them there under these forces.
        """
        n = self.robot.n_lmo
        q = self._posture.copy()
        q[self._qpos[n : n + 14]] = arms
        q = self._approach(q, self._posture, POSTURE_COST, places_m, FOLLOW_STEPS).q
        return q[self._qpos[n : n + 14]], self._against_gravity(q, forces_N)

    def _torso_place(self) -> np.ndarray:
        """Return where the torso is in the pelvis frame (3,) while the waist is straight."""
        data = mujoco.MjData(self.model)
        mujoco.mj_kinematics(self.model, data)
        return data.body("torso_link").xpos - data.body("pelvis").xpos

    def _default_pose(self) -> np.ndarray:
        q = self.model.qpos0.copy()
        q[:7] = [0, 0, 0, 1, 0, 0, 0]
        q[self._qpos] = self.robot.array("default")
        return q

    def _approach(self, q, posture, posture_cost, places_m, steps: int) -> mink.Configuration:
        self._configuration.update(q)
        self._near[posture_cost].set_target(posture)
        for task, place, rotation in zip(self._hands, places_m, self._turns):
            task.set_target(mink.SE3.from_rotation_and_translation(rotation, np.asarray(place)))
        for _ in range(steps):
            velocity = mink.solve_ik(
                self._configuration, [self._near[posture_cost], *self._hands], SOLVE_DT_S, solver="daqp", damping=1e-4,
                limits=self._limits, constraints=[self._frozen],
            )  # fmt: skip
            self._configuration.integrate_inplace(velocity, SOLVE_DT_S)
        return self._configuration

    def _against_gravity(self, q: np.ndarray, forces_N: np.ndarray) -> np.ndarray:
        """Move the targets (14,) by what the PD needs to carry the arms' weight and to press with the palms (2, 3)."""
        data = self._data
        data.qpos[:] = q
        mujoco.mj_forward(self.model, data)
        torque = data.qfrc_bias.copy()
        jacobian = np.empty((3, self.model.nv))
        for geom, force in zip(self._palms, forces_N):
            mujoco.mj_jacGeom(self.model, data, jacobian, None, geom)
            torque += jacobian.T @ force
        n = self.robot.n_lmo
        arms = q[self._qpos][n : n + 14]
        targets = arms + torque[self._arm_dofs] / self.robot.array("kp")[n : n + 14]
        return np.clip(targets, *self.robot.range_rad[n : n + 14].T)
