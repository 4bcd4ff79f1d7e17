"""The last thing between a decision and the motors: arm rates, joint limits, height range and the start-up blend.

In: a whole-body action and the legs' targets. Out: joint targets (J,) no motor may object to. Flags pass untouched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wbvla.robots.base import Robot
from wbvla.types import LocoCommand

ARM_RATE_RAD_S = 3.0  # the same as in recording (sim/body.py): a policy never meets a faster arm than it saw


class Limiter:
    """Turns arm and leg targets into joint targets within the robot's limits; keeps the last ones.

    Args:
        robot: gives joint ranges and the height range.
        period_s: time between two calls of `joints`.
        arm_rate_rad_s: the fastest an arm target may move.
    """

    def __init__(self, robot: Robot, period_s: float, arm_rate_rad_s: float = ARM_RATE_RAD_S) -> None:
        self._robot = robot
        self._period_s = period_s
        self._step_rad = arm_rate_rad_s * period_s
        self._low, self._high = robot.range_rad.T.copy()
        # The legs' policy aims beyond a joint's range to get torque near its end, as it did in training. Farther out
        # than the torque limit reaches, a target changes nothing.
        legs = slice(0, robot.n_lmo)
        reach_rad = robot.array("effort")[legs] / robot.array("kp")[legs]
        self._low[legs] -= reach_rad
        self._high[legs] += reach_rad
        self._upper = slice(robot.n_lmo, len(robot.joints))
        self.targets_rad = robot.array("default").copy()
        self._start_rad = self.targets_rad.copy()
        self._blend_s = self._elapsed_s = 0.0

    def start(self, q_rad: np.ndarray, blend_s: float = 0.0) -> None:
        """Begin from the measured joint positions (J,); during `blend_s` the targets move over from there."""
        self.targets_rad[:] = np.clip(q_rad, self._low, self._high)
        self._start_rad[:] = self.targets_rad
        self._blend_s, self._elapsed_s = blend_s, 0.0

    def loco(self, command: LocoCommand) -> LocoCommand:
        """Return the command with its height inside the robot's range; the flags are never changed."""
        low, high = self._robot.height_range_m
        if low <= command.height_m <= high:
            return command
        return replace(command, height_m=min(max(command.height_m, low), high))

    def joints(self, legs_rad: np.ndarray, upper_rad: np.ndarray) -> np.ndarray:
        """Return the joint targets (J,) for leg and waist targets (n_lmo,) and those of `Robot.upper_rad`.

        The array is reused by the next call. Raises ValueError on non-finite targets.
        """
        out = self.targets_rad
        upper = out[self._upper]
        upper += np.clip(upper_rad - upper, -self._step_rad, self._step_rad)
        legs = legs_rad
        self._elapsed_s += self._period_s
        if self._elapsed_s < self._blend_s:
            start = self._start_rad[: self._robot.n_lmo]
            legs = start + (self._elapsed_s / self._blend_s) * (legs_rad - start)
        out[: self._robot.n_lmo] = legs
        if not np.isfinite(out).all():
            raise ValueError("joint targets: got non-finite numbers, expected finite radians")
        np.clip(out, self._low, self._high, out=out)
        return out
