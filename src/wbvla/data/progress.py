"""Progress on standard error. In: a label, a total, advances. Out: one line with rate and time left.

On a terminal the line is rewritten in place; in a log file a new line is written every few seconds.
"""

from __future__ import annotations

import sys
import time


def hms(seconds: float) -> str:
    """Format a duration: 42 s, 3:07, 1:02:09."""
    s = max(0, round(seconds))
    if s < 60:
        return f"{s} s"
    return f"{s // 60}:{s % 60:02d}" if s < 3600 else f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}"


class Progress:
    """Count finished units of work and print rate and time left.

    Args:
        label: what is being done, for example "decode".
        total: units of the whole work, including the ones already done.
        unit: their name.
        done: units that were done before; they do not count for the rate.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._done_before = done
        self._started = self._printed = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Add `n` finished units and print when it is time to."""
        self.done += n
        now = time.monotonic()
        if now - self._printed >= (0.2 if self._terminal else 5.0):
            self._printed = now
            self._write(note, end="\r" if self._terminal else "\n")

    def close(self, note: str = "") -> None:
        """Print the final line with the time taken."""
        self._write(note, end="\n")

    def _write(self, note: str, end: str) -> None:
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._done_before) / max(elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 and self.done < self.total else 0.0
        time_part = f"{hms(left)} left" if left else f"took {hms(elapsed)}"
        line = f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.2f}/s, {time_part}"
        clear = "\x1b[2K" if self._terminal else ""
        print(clear + line + (f", {note}" if note else ""), end=end, file=sys.stderr, flush=True)
