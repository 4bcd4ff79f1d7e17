"""Progress of a chain of stages, for people. In: what a `wbvla.chain.Runner` does. Out: lines on standard error.

On a terminal one line is rewritten in place: stages done, time used, time left, what runs and its own last words.
In a log file a line is written every quarter of a minute.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wbvla.chain import tail
from wbvla.data.progress import hms
from wbvla.stages import Stage

QUIET_S = 15.0


class Monitor:
    """Prints what happens.

    Args:
        name: of the whole, for example "demo".
        stages: all of them.
        cores: that the stages share.
        log_path: gives a stage's log, whose last line is shown.
    """

    def __init__(self, name: str, stages: list[Stage], cores: int, log_path: Callable[[Stage], Path]) -> None:
        self._name, self._stages, self._cores, self._log_path = name, stages, cores, log_path
        self._began = self._printed = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._done = 0
        self._expected_s = self._took_s = 0.0  # of the stages that ran now: how fast is this machine?

    def skipped(self, stage: Stage) -> None:
        """A stage is done and valid."""
        self._done += 1
        self._line(f"= {stage.title}: done before, still valid")

    def started(self, stage: Stage) -> None:
        """A stage has begun."""
        self._line(f"> {stage.title}")

    def finished(self, stage: Stage, seconds: float) -> None:
        """A stage is done."""
        self._done += 1
        self._expected_s += stage.expected_s
        self._took_s += seconds
        self._line(f"+ {stage.title}: {hms(seconds)}")

    def failed(self, stage: Stage, lines: list[str]) -> None:
        """A stage has failed; `lines` are its last words."""
        self._line(f"x {stage.title}: failed; the end of {self._log_path(stage)}:")
        for line in lines:
            self._line(f"  | {line}")

    def stopping(self, stages: list[Stage]) -> None:
        """The run ends early; these stages save their work."""
        self._line(f"stopping: {', '.join(s.name for s in stages)} may save their work first ...")

    def show(self, waiting: list[Stage], running: list[tuple[Stage, float]]) -> None:
        """Show the whole's state when it is time to; `running` holds stages and their seconds so far."""
        now = time.monotonic()
        if not running or now - self._printed < (0.5 if self._terminal else QUIET_S):
            return
        self._printed = now
        left_s = self.seconds_left(waiting, running)
        words = "; ".join(f"{s.name}: {self._last_words(s)}" for s, _ in running)
        head = f"{self._name} {self._done}/{len(self._stages)}, {hms(now - self._began)} so far, {hms(left_s)} left"
        if self._terminal:
            text = f"{head} | {words}"[: shutil.get_terminal_size().columns - 1]
            print(f"\x1b[2K{text}", end="\r", file=sys.stderr, flush=True)
        else:
            print(f"{head} | {words}", file=sys.stderr, flush=True)

    def seconds_left(self, waiting: list[Stage], running: list[tuple[Stage, float]]) -> float:
        """Estimate the time left: core seconds of the open stages over the cores, at the pace of the finished ones."""
        pace = min(max(self._took_s / self._expected_s, 0.3), 5.0) if self._expected_s > 0 else 1.0
        share = {s.name: min(s.cores, self._cores) / self._cores for s in self._stages}
        open_s = sum(s.expected_s * pace * share[s.name] for s in waiting)
        rest = [(max(s.expected_s * pace - seconds, 1.0), s) for s, seconds in running]
        shared_s = sum(left * share[s.name] for left, s in rest)
        return max(open_s + shared_s, *(left for left, _ in rest)) if rest else open_s

    def close(self) -> None:
        """End the line that is being rewritten."""
        if self._terminal:
            print("\x1b[2K", end="\r", file=sys.stderr, flush=True)

    def _last_words(self, stage: Stage) -> str:
        lines = tail(self._log_path(stage), 1)
        return "starting" if not lines or lines[0].startswith("$ ") else lines[0]

    def _line(self, text: str) -> None:
        clear = "\x1b[2K" if self._terminal else ""
        print(clear + text, file=sys.stderr, flush=True)
