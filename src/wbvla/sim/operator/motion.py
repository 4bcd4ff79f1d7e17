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
BEHIND_MOST_M, FORGET_S = 0.4, 2.0
LEGS_LAG_S, REACHED_SHARE = 0.35, 0.8  # flags are felt that much later; share of the nominal speed that legs reach


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

    The trunk sways with every step, so it looks at the mean pose over one stride, and adds what the flags of the last
    moments have yet to bring. After a step it waits and sees before it takes the next.

    Args:
        robot: whose legs; their contract tells what the flags stand for, in m/s and rad/s.
        on_m, off_m, on_rad, off_rad: errors at which a flag is raised and dropped.
    """

    def __init__(
        self, robot: str, on_m: float = 0.09, off_m: float = 0.02, on_rad: float = 0.13, off_rad: float = 0.03
    ) -> None:
        from wbvla.contract import load_contract
        from wbvla.lmo.controller import weights_folder

        speed = load_contract(weights_folder(robot) / "contract.json", "lmo")["shaping"]["goal"]
        self._ahead, self._aside = TernaryFlag(on_m, off_m), TernaryFlag(on_m, off_m)
        self._turn = TernaryFlag(on_rad, off_rad)
        self._step = REACHED_SHARE * PERIOD_S * np.asarray(speed)
        self.behind_m = 0.0
        self._past: deque[np.ndarray] = deque(maxlen=round(STRIDE_S / PERIOD_S))
        self.pose = np.zeros(3)
        self._sent: deque[np.ndarray] = deque(maxlen=round((STRIDE_S / 2 + LEGS_LAG_S) / PERIOD_S))

    def see(self, state) -> None:
        """Take in the pelvis' pose; call once per period before the others."""
        yaw = state.yaw_rad
        if self._past:
            yaw = self._past[-1][2] + wrap(yaw - self._past[-1][2])
        self._past.append(np.array([*state.pelvis_m[:2], yaw]))
        before, self.pose = self.pose, np.mean(self._past, axis=0)  # x, y, heading: m, m, rad
        if self._sent:  # how far it lags behind its forward flags: legs that were held up run to make up for it
            told_m = self._sent[-1][0] * self._step[0] / REACHED_SHARE
            went_m = np.array([np.cos(yaw), np.sin(yaw)]) @ (self.pose - before)[:2]
            kept_m = (1.0 - PERIOD_S / FORGET_S) * self.behind_m  # legs may never make up for all of it
            self.behind_m = float(np.clip(kept_m + told_m - went_m, 0.0, BEHIND_MOST_M))

    def flags(self, x_m: float, y_m: float, heading_rad: float) -> tuple[int, int, int]:
        """Return the flags (s_x, s_y, s_psi) of the next period."""
        coming = self._step * np.sum(self._sent, axis=0) if self._sent else np.zeros(3)
        ahead, aside, turn = np.array(_off(self.pose, x_m, y_m, heading_rad)) - coming
        if abs(turn) > TURN_FIRST_RAD:
            ahead = aside = 0.0
        axes = zip((self._ahead, self._aside, self._turn), (ahead, aside, turn), coming)
        flags = tuple(flag.update(0.0 if flag.value == 0 and under_way else error) for flag, error, under_way in axes)
        self._sent.append(np.array(flags))
        return flags

    def at(self, x_m: float, y_m: float, heading_rad: float, near_m: float, near_rad: float) -> bool:
        """Return whether the pelvis is there and the flags have been down for a while."""
        ahead, aside, turn = _off(self.pose, x_m, y_m, heading_rad)
        still = not np.any(np.array(self._sent)[-round(LEGS_LAG_S / PERIOD_S) :])
        return bool(still and abs(ahead) < near_m and abs(aside) < near_m and abs(turn) < near_rad)


def _off(pose: np.ndarray, x_m: float, y_m: float, heading_rad: float) -> tuple[float, float, float]:
    """What a pose (x, y, yaw) lacks to another, in its own axes: ahead and left in m, turn in rad."""
    dx, dy = x_m - pose[0], y_m - pose[1]
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return float(c * dx + s * dy), float(-s * dx + c * dy), wrap(heading_rad - pose[2])
