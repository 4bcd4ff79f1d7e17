"""Laws of worker processes: results come back, and no worker outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wbvla.collect.workers import Workers


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_workers_work_apart_and_end_with_the_block() -> None:
    with Workers(2) as workers:
        pids = {f.result() for f in [workers.submit(pid_after, 0.3) for _ in range(6)]}
    assert os.getpid() not in pids
    assert all(wait_for_end(pid) for pid in pids)


def test_an_interruption_stops_the_workers_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:
        pid = workers.submit(pid_after, 0.0).result()
        workers.submit(pid_after, 60.0)
        raise KeyboardInterrupt
    assert wait_for_end(pid)
    assert time.monotonic() - started < 20


def test_workers_end_when_their_parent_is_killed() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_collect_workers as t
if __name__ == "__main__":
    with t.Workers(1) as workers:
        print(workers.submit(t.pid_after, 0.0).result(), flush=True)
        workers.submit(t.pid_after, 60.0).result()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for_end(worker)


def test_a_worker_leaves_ctrl_c_to_its_parent_from_its_first_moment() -> None:
    others = set(multiprocessing.active_children())
    with Workers(1) as workers:
        future = workers.submit(pid_after, 0.0)
        (worker,) = set(multiprocessing.active_children()) - others
        while not future.done():
            os.kill(worker.pid, signal.SIGINT)
            time.sleep(0.005)
        assert future.result() == worker.pid
