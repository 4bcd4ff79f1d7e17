"""A sloppy demonstrator: it sees late, its hands tremble, and it does not go straight to its work.

In: an operator and how sloppy it is, from 0 to 1; a task's state at 20 Hz. Out: WholeBodyAction.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.operator.motion import DWELL_S, PERIOD_S, Walker
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

DELAY_S = 0.2  # most that it sees late
TREMOR_RAD, TREMOR_S = 0.03, 0.4  # standard deviation and time constant of what is added to the arms' targets
DETOUR_M, DETOUR_S = 0.4, 4.0  # most that it first goes aside, and for how long at most
DETOUR_AHEAD_M, NEAR_M, NEAR_RAD = 0.3, 0.15, 0.3
STOP_S = 2 * DWELL_S  # to let go of a flag that has just been raised, and for the legs to be told so


class SloppyOperator:
    """See the module's first lines.

    Args:
        operator: who does it without fault.
        robot: with whom.
        sloppiness: share of the delays, tremor and detours above.
        rng: draws them.
    """

    def __init__(self, operator: Any, robot: Robot, sloppiness: float, rng: np.random.Generator) -> None:
        self._operator, self._robot, self._share = operator, robot, sloppiness
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._operator.reset(rng)
        self._rng = rng
        self._seen: deque[Any] = deque(maxlen=1 + round(self._share * rng.uniform(0.0, DELAY_S) / PERIOD_S))
        self._tremor = np.zeros(len(self._robot.arm_joints))
        n = self._robot.n_lmo
        self._rest = ArmTarget(self._robot.array("default")[n : n + len(self._tremor)])
        self._aside_m = self._share * DETOUR_M * rng.uniform(0.5, 1.0) * rng.choice((-1.0, 1.0))
        self._walker, self._place, self._left_s = Walker(self._robot.name), None, DETOUR_S

    def act(self, state: Any) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        self._seen.append(state)
        state = self._seen[0]
        action = self._detour(state) if self._left_s > 0.0 else self._operator.act(state)
        keep = np.exp(-PERIOD_S / TREMOR_S)
        kick = np.sqrt(1.0 - keep**2) * self._rng.standard_normal(self._tremor.shape)
        self._tremor = keep * self._tremor + kick
        arms = ArmTarget(action.arms.positions_rad + self._share * TREMOR_RAD * self._tremor, action.arms.grippers)
        return WholeBodyAction(arms, action.loco)

    def _detour(self, state: Any) -> WholeBodyAction:
        """Walk to a place aside, arms at rest, and stand before the operator begins."""
        self._left_s -= PERIOD_S
        self._walker.see(state)
        if self._place is None:
            x, y, heading = self._walker.pose
            c, s = np.cos(heading), np.sin(heading)
            self._place = (
                x + c * DETOUR_AHEAD_M - s * self._aside_m,
                y + s * DETOUR_AHEAD_M + c * self._aside_m,
                heading,
            )
        flags = self._walker.flags(*(self._place if self._left_s > STOP_S else self._walker.pose))
        if self._walker.at(*self._place, NEAR_M, NEAR_RAD):
            self._left_s = 0.0
        return WholeBodyAction(self._rest, LocoCommand(*flags, self._robot.nominal_height_m))
