"""Run a chain of stages that survives interruption: each stage is a process with a log and a stamp.

In: `Stage`s and a folder. Out: their outputs, logs and stamps.
What is valid is skipped, what changed is redone with everything that follows it, and Ctrl-C lets the running stages
save their work before it is passed on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbvla.stages import Stage, Stamps

MARK = "WBVLA_STAGES_OF"  # in the environment of every process that belongs to a run: the folder of the run
STOP_S = 20.0  # a stage has this long to save itself after Ctrl-C


@dataclass
class _Running:
    stage: Stage
    key: str
    process: subprocess.Popen
    started: float


class Runner:
    """Runs a chain of stages, as many at a time as the cores allow.

    Args:
        root: the run's folder.
        stages: in an order in which each comes after those it follows.
        cores: processor cores to keep busy.
        monitor: shown what happens; see wbvla.monitor.Monitor.
    """

    def __init__(self, root: Path, stages: list[Stage], cores: int, monitor: Any) -> None:
        self.stages, self.cores, self.monitor = stages, cores, monitor
        self.stamps = Stamps(root)
        self.root = root
        self.ran = 0  # stages that had to run
        self._running: list[_Running] = []
        self._ids: dict[str, str] = {}

    def seconds(self) -> dict[str, float]:
        """How long each finished stage took, by name."""
        return {stage.name: self.stamps.seconds(stage) for stage in self.stages}

    def log_path(self, stage: Stage) -> Path:
        """Where the stage's output is written."""
        return self.root / "logs" / f"{stage.name}.log"

    def run(self) -> None:
        """Bring every stage up to date.

        Raises:
            ValueError: a stage failed; its last lines have been shown.
            KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, when all stages have saved and ended.
        """
        waiting = list(self.stages)
        with _exclusive(self.root), _terminate_as_interrupt():
            end_leftovers(self.root)
            try:
                while waiting or self._running:
                    self._start_what_can_start(waiting)
                    self._collect_finished()
                    self.monitor.show(waiting, [(r.stage, time.monotonic() - r.started) for r in self._running])
                    if self._running:
                        time.sleep(0.1)
            finally:
                self._stop_all()
                with contextlib.suppress(OSError):
                    self.monitor.close()

    def _start_what_can_start(self, waiting: list[Stage]) -> None:
        for stage in list(waiting):
            if any(name not in self._ids for name in stage.after):
                continue
            key = self.stamps.key(stage, self._ids)
            identity = self.stamps.valid_id(stage, key)
            if identity is not None:
                self._ids[stage.name] = identity
                waiting.remove(stage)
                self.monitor.skipped(stage)
                continue
            busy = sum(r.stage.cores for r in self._running)
            if busy and busy + stage.cores > self.cores:
                return  # in order: a large stage must not be overtaken for ever by small ones
            waiting.remove(stage)
            self._start(stage, key)

    def _start(self, stage: Stage, key: str) -> None:
        self.stamps.begin(stage, key)
        argv = [word.replace("{config}", str(self.stamps.config_path(stage))) for word in stage.argv]
        log = self.log_path(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(argv)}\n")
            stream.flush()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=_environment(self.root, stage.cores),
                start_new_session=True,  # Ctrl-C reaches the runner only, which passes it on in good order
            )
        self.ran += 1
        self._running.append(_Running(stage, key, process, time.monotonic()))
        self.monitor.started(stage)

    def _collect_finished(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            if code is None:
                continue
            self._running.remove(running)
            stage, seconds = running.stage, time.monotonic() - running.started
            if code != 0:
                _signal_group(running.process, signal.SIGKILL)  # what it started may outlive it
                self.stamps.add_seconds(stage, seconds)
                lines = _of_the_last_run(tail(self.log_path(stage), 15))
                self.monitor.failed(stage, lines)
                why = lines[-1].removeprefix("wbvla: error: ") if lines else "it printed nothing"
                end = f"exit code {code}" if code > 0 else f"signal {-code}{', out of memory?' if code == -9 else ''}"
                raise ValueError(f"stage {stage.name} failed ({end}): {why}; its log is {self.log_path(stage)}")
            self._ids[stage.name] = self.stamps.finish(stage, running.key, seconds)
            self.monitor.finished(stage, seconds)

    def _stop_all(self) -> None:
        """Ask the stages that still run to save and end; make them after a while."""
        if not self._running:
            return
        for running in self._running:
            _signal_group(running.process, signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal may be gone; the stages must end all the same
            self.monitor.stopping([r.stage for r in self._running])
        deadline = time.monotonic() + STOP_S
        try:
            for running in self._running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also on a second Ctrl-C
            for running in self._running:
                _signal_group(running.process, signal.SIGKILL)
                running.process.wait()
                self.stamps.add_seconds(running.stage, time.monotonic() - running.started)
            self._running.clear()


def tail(path: Path, n: int) -> list[str]:
    """Return the last n non-empty lines of a log; of a line that was rewritten in place, the last state."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip().split("\r")[-1].strip() for line in text.split("\n")]
    return [line for line in lines if line][-n:]


def _of_the_last_run(lines: list[str]) -> list[str]:
    """Leave out of a log's last lines what earlier runs of the stage wrote."""
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    return lines[starts[-1] + 1 :] if starts else lines


def end_leftovers(root: Path) -> list[int]:
    """End processes that an earlier run in this folder left behind when it was killed. Returns their ids.

    They are known by a mark in their environment (Linux; elsewhere nothing is found).
    """
    mark = f"{MARK}={root.resolve()}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in entry.read_bytes().split(b"\0") and int(entry.parent.name) != os.getpid():
                found.append(int(entry.parent.name))
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while any(Path(f"/proc/{pid}/exe").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _environment(root: Path, cores: int) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    defaults = {"MUJOCO_GL": "egl", "OMP_WAIT_POLICY": "PASSIVE"}
    fixed = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", MARK: str(root.resolve())}
    return {**defaults, **os.environ, **threads, **fixed}


@contextlib.contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Hold the folder for one run. Raises ValueError when another process has it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{root}: another run is at work in this folder; wait for it or choose another") from None
        yield


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, end a run as cleanly as Ctrl-C does; what nohup ignores stays so."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, interrupt) for number in numbers}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
