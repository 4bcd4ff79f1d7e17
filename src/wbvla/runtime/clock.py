"""The time the fast loop lives in: the wall's, or a simulated one that waits for nobody.

In: deadlines. Out: the current time in seconds.
"""

from __future__ import annotations

import time

SPIN_S = 0.0004  # the operating system wakes a sleeper up to this late; the rest is spent looking at the clock


class WallClock:
    """Monotonic wall time."""

    realtime = True

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def wait_until(self, t_s: float) -> None:
        """Sleep until shortly before the deadline, then spin up to it."""
        rest = t_s - time.monotonic() - SPIN_S
        if rest > 0:
            time.sleep(rest)
        while time.monotonic() < t_s:
            pass


class SimulatedClock:
    """Time that passes only when somebody waits for it."""

    realtime = False

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        """Return the simulated time in seconds."""
        return self._now_s

    def wait_until(self, t_s: float) -> None:
        """Jump to the deadline."""
        self._now_s = max(self._now_s, t_s)
