"""Two palms that go where the operator wants them, smoothly, and press as hard as it wants.

In: palm places (2, 3) m in the trunk frame, forces (2, 3) N. Out: arm targets (14,) rad at 20 Hz.
The trunk frame is that of a pelvis straight below the trunk: hands move with the trunk, whatever the waist does.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.ik import ArmSolver
from wbvla.sim.operator.motion import ARM_SPEED_RAD_S, PERIOD_S, STRIDE_S

HAND_M_S = 0.30
AIM_GAIN, AIM_LIMIT_M = 0.03, 0.05  # correction by eye of what the arms miss: share per period, and at most
PRESS_N, RELEASE_N = 3.0, 6.0  # change of the pressing force per period


class Hands:
    """See the module's first lines; `reset` begins an episode, `step` is called once per period."""

    def __init__(self, robot: Robot) -> None:
        n = robot.n_lmo
        self._rest = robot.array("default")[n : n + 14]
        self._solver = ArmSolver(robot)
        self.reset()

    def reset(self) -> None:
        """Begin a new episode, arms at their default."""
        self.place: np.ndarray | None = None  # where the palms are told to be, (2, 3)
        self.press_N = 0.0
        self._joints, self._sent = self._rest.copy(), self._rest.copy()
        self._aim = np.zeros((2, 3))

    def see(self, state) -> None:
        """Take in the state; call once per period before the others."""
        self._state = state
        if self.place is None:
            self.place = self.to_trunk(state.palm_m)
            self._wanted = deque([self.place], round(STRIDE_S / PERIOD_S))

    def to_trunk(self, points_m: np.ndarray) -> np.ndarray:
        """World points (N, 3) in the trunk frame."""
        state = self._state
        return (points_m - state.torso_m) @ state.torso_rotation + self._solver.torso_m

    def step(self, wanted_m: np.ndarray, jumps: bool, holds: bool, press_N: float, load_N: float) -> np.ndarray:
        """Return the arm targets (14,) of the next period.

        Args:
            wanted_m: where the palms shall be (2, 3). They go to its mean over one stride: hands that chase the trunk's
                sway shake it even more.
            jumps: it is another place than a moment ago, so the mean jumps with it.
            holds: an object between the palms decides how far apart and how level they are.
            press_N: force of each palm towards the other; 0 for free hands.
            load_N: weight on each palm.
        """
        if jumps:
            self._wanted = deque((w + wanted_m - self._wanted[-1] for w in self._wanted), self._wanted.maxlen)
        self._wanted.append(wanted_m)
        limit_m = HAND_M_S * PERIOD_S
        self.place = self.place + np.clip(np.mean(self._wanted, axis=0) - self.place, -limit_m, limit_m)
        self._correct(holds)
        self.press_N += float(np.clip(press_N - self.press_N, -RELEASE_N, PRESS_N))
        forces_N = np.array([[0.0, -self.press_N, load_N], [0.0, self.press_N, load_N]])
        self._joints, targets = self._solver.follow(self._joints, self.place + self._aim, forces_N)
        limit_rad = ARM_SPEED_RAD_S * PERIOD_S
        self._sent = self._sent + np.clip(targets - self._sent, -limit_rad, limit_rad)
        return self._sent

    def _correct(self, holds: bool) -> None:
        """Aim off by what the palms are seen to miss."""
        drift = AIM_GAIN * (self.place - self.to_trunk(self._state.palm_m))
        if holds:
            drift[:, 1] = 0.0
            drift[:, 2] = drift[:, 2].mean()
        self._aim = np.clip(self._aim + drift, -AIM_LIMIT_M, AIM_LIMIT_M)
