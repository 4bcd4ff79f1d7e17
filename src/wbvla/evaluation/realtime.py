"""Closed-loop trials in wall time: a policy server and a robot in two processes, joined by sockets, as on the machine.

In: an `Evaluate` configuration and episode seeds. Out: an `Episode` a seed, and the median time from asking to answer.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbvla.evaluation.rollout import Episode, conclude

if TYPE_CHECKING:
    from wbvla.evaluation.run import Evaluate


def trials(cfg: Evaluate, seeds: list[int]) -> tuple[list[Episode], float]:
    """Run the seeds one after another with `wbvla serve` in a process of its own.

    Returns:
        An Episode a seed, and the median round trip in s.
    Raises:
        ValueError: the policy is no checkpoint folder, or the server does not start; one line.
    """
    from wbvla.contract import load_contract
    from wbvla.data.progress import Progress
    from wbvla.lmo.controller import shipped_controller

    contract = Path(cfg.policy) / "contract.json"
    if not contract.is_file():
        raise ValueError(f"policy: got {cfg.policy!r}, but --realtime needs a folder of `wbvla vla finetune` to serve")
    image_size = load_contract(contract, "vla")["image_size"]
    legs, episodes, round_trips_ms = shipped_controller(cfg.robot), [], []
    progress = Progress(f"eval {Path(cfg.policy).name} in real time", len(seeds), "trials")
    with served(cfg.policy) as address:
        for seed in seeds:
            episode, took_ms = _trial(cfg, seed, address, legs, image_size)
            episodes.append(episode)
            round_trips_ms += took_ms
            progress.advance(1, f"{sum(e.success for e in episodes)} succeeded")
    progress.close(f"{sum(e.success for e in episodes)} succeeded")
    return episodes, float(np.median(round_trips_ms)) / 1e3


@contextmanager
def served(checkpoint: str) -> Iterator[str]:
    """Serve a checkpoint on a free loopback port while inside; yields the address."""
    command = [sys.executable, "-m", "wbvla.cli", "serve", "--policy", checkpoint, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        words: list[str] = []
        for line in server.stdout:
            words.append(line.strip())
            if found := re.search(r"tcp://\S+", line):
                yield found[0]
                return
        raise ValueError(f"server: it ended before it served: {words[-1] if words else 'it printed nothing'}")
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(5.0)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _trial(cfg: Evaluate, seed: int, address: str, legs, image_size: int) -> tuple[Episode, list[float]]:
    from wbvla.runtime.client import PolicyClient
    from wbvla.runtime.clock import WallClock
    from wbvla.runtime.run import RunRobot, run_episode
    from wbvla.runtime.sim_robot import SimRobot
    from wbvla.sim.tasks import get_task

    started, clock = time.perf_counter(), WallClock()
    seconds = get_task(cfg.task).time_limit_s + 1.0
    with PolicyClient(address) as client:
        adapter = SimRobot(cfg.task, cfg.robot, legs, clock, seed, image_size)
        try:
            report = run_episode(RunRobot(address, cfg.task, cfg.robot, seconds, seed), adapter, client, clock)
        finally:
            adapter.close()
        round_trips_ms = list(client.round_trip_ms)
    loop = report["loop"]
    return conclude(report, seed, loop["ticks"], started, loop["flag_differences"]), round_trips_ms
