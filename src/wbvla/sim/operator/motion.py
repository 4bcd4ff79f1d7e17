"""What every operator moves with: ternary flags with hysteresis and dwell, smooth arm paths.

In: errors in m or rad, joint targets. Out: -1, 0 or 1; joint targets (14,) along a path.
"""

from __future__ import annotations

from collections import deque

import numpy as np

PERIOD_S = 0.05
DWELL_S = 0.3
ARM_SPEED_RAD_S = 1.5
TURN_FIRST_RAD = 0.35
STRIDE_S = 0.7


class TernaryFlag:
    """Turn an error into -1, 0 or 1 with hysteresis (on > off) and a minimum dwell of 0.3 s in each value."""

    def __init__(self, on: float, off: float) -> None:
        self._on, self._off = on, off
        self.value = 0
        self._held_s = DWELL_S

    def update(self, error: float) -> int:
        """Return the flag that reduces this error; a reversal passes through 0."""
        if self.value == 0:
            wanted = int(np.sign(error)) if abs(error) > self._on else 0
        else:
            wanted = self.value if error * self.value > self._off else 0
        if wanted != self.value and self._held_s >= DWELL_S - 1e-9:
            self.value, self._held_s = wanted, 0.0
        self._held_s += PERIOD_S
        return self.value


class MinimumJerk:
    """A straight joint path with zero speed and acceleration at both ends, never faster than 1.5 rad/s."""

    def __init__(self, start: np.ndarray, goal: np.ndarray) -> None:
        self._start, self._goal = start.copy(), goal.copy()
        self._duration_s = max(0.5, 1.875 * float(np.abs(goal - start).max()) / ARM_SPEED_RAD_S)
        self._t_s = 0.0

    @property
    def done(self) -> bool:
        """True at the goal."""
        return self._t_s >= self._duration_s

    def step(self) -> np.ndarray:
        """Advance one period and return the target."""
        self._t_s = min(self._t_s + PERIOD_S, self._duration_s)
        s = self._t_s / self._duration_s
        return self._start + (self._goal - self._start) * (10 * s**3 - 15 * s**4 + 6 * s**5)


def wrap(angle_rad: float) -> float:
    """Return the same angle within half a turn of zero."""
    return float((angle_rad + np.pi) % (2 * np.pi) - np.pi)


class Walker:
    """Walks to a place and a heading: turn first if far off, then step along both axes while facing it.

    Args:
        on_m, off_m, on_rad, off_rad: errors at which a flag is raised and dropped.
        lead_s: how far ahead to look; a flag that drops now is felt that much later.
    """

    def __init__(
        self,
        on_m: float = 0.08,
        off_m: float = 0.02,
        on_rad: float = 0.13,
        off_rad: float = 0.03,
        lead_s: float = 0.35,
    ) -> None:
        self._ahead, self._aside = TernaryFlag(on_m, off_m), TernaryFlag(on_m, off_m)
        self._turn = TernaryFlag(on_rad, off_rad)
        self._lead_s = lead_s
        self._past: deque[np.ndarray] = deque(maxlen=round(STRIDE_S / PERIOD_S))

    def see(self, state) -> None:
        """Take in the pelvis' pose; call once per period before the others.

        What they use is its mean and trend over one stride, for the trunk sways with every step.
        """
        yaw = state.yaw_rad
        if self._past:
            yaw = self._past[-1][2] + wrap(yaw - self._past[-1][2])
        self._past.append(np.array([*state.pelvis_m[:2], yaw]))
        seen = np.array(self._past)
        t_s = PERIOD_S * (np.arange(len(seen)) - (len(seen) - 1) / 2)
        self._rate = t_s @ seen / max(t_s @ t_s, 1e-9)
        self._now = seen.mean(0) + self._rate * t_s[-1]

    def flags(self, x_m: float, y_m: float, heading_rad: float) -> tuple[int, int, int]:
        """Return the flags (s_x, s_y, s_psi) of the next period."""
        ahead, aside, turn = _off(self._now + self._lead_s * self._rate, x_m, y_m, heading_rad)
        if abs(turn) > TURN_FIRST_RAD:
            ahead = aside = 0.0
        return self._ahead.update(ahead), self._aside.update(aside), self._turn.update(turn)

    def at(self, x_m: float, y_m: float, heading_rad: float, near_m: float, near_rad: float) -> bool:
        """Return whether the pelvis is there, and slower than 0.1 m/s and 0.2 rad/s."""
        ahead, aside, turn = _off(self._now, x_m, y_m, heading_rad)
        slow = np.hypot(*self._rate[:2]) < 0.1 and abs(self._rate[2]) < 0.2
        return bool(slow and abs(ahead) < near_m and abs(aside) < near_m and abs(turn) < near_rad)


def _off(pose: np.ndarray, x_m: float, y_m: float, heading_rad: float) -> tuple[float, float, float]:
    """What a pose (x, y, yaw) lacks to another, in its own axes: ahead and left in m, turn in rad."""
    dx, dy = x_m - pose[0], y_m - pose[1]
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return float(c * dx + s * dy), float(-s * dx + c * dy), wrap(heading_rad - pose[2])
