"""Measure the simulated world's speed with every worker busy, and where the time goes.

In: nothing. Out: a table, and JSON with the processor's name: for each task, simulated seconds per second and worker
when stepping without pictures and with the 224 px head camera 20 times a second; minutes to record demonstrations,
encoding included. Shares are of the time in `TaskEnv.step`; the operator that chooses the actions is timed apart.

    python benchmarks/sim_speed.py --json outputs/sim_speed.json
    python benchmarks/sim_speed.py --tasks box-loading --seconds 5 --episodes 2      # a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from wbvla.collect.sim import CollectSim
from wbvla.collect.sim import run as collect
from wbvla.collect.workers import Workers
from wbvla.sim.listing import choose_tasks

CAMERA_PX = 224
PARTS = ("physics", "legs", "rules", "rendering", "rest")


def processor() -> str:
    """Return the processor's name as the kernel knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def timed(spent: Counter, part: str, function: Callable) -> Callable:
    """Return the function with its wall time added to `spent[part]`."""

    def call(*arguments, **named):
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += time.perf_counter() - started

    return call


def step(task: str, image_px: int, seconds: float, seed: int) -> dict[str, float]:
    """Let the operator act for some simulated seconds; return them and the wall seconds of each part. In a worker."""
    from wbvla.sim.env import TaskEnv
    from wbvla.sim.operator import get_operator

    env, spent, simulated_s = TaskEnv(task, image_size=image_px), Counter(), 0.0
    operator = get_operator(env.task, env.robot, np.random.default_rng(seed))
    see = env.task.state
    env.plant.tick = timed(spent, "physics", env.plant.tick)
    env.plant.render = timed(spent, "rendering", env.plant.render)
    env.body.controller.step = timed(spent, "legs", env.body.controller.step)
    env.task.state = timed(spent, "rules", see)
    advance, act = timed(spent, "step", env.step), timed(spent, "operator", operator.act)
    while simulated_s < seconds:
        before = dict(spent)
        env.reset(seed)
        spent.clear()  # what the reset took does not count
        spent.update(before)
        operator.reset(np.random.default_rng([seed, 1]))
        began_s, info = env.t_s, {"done": False}
        while not info["done"] and simulated_s + env.t_s - began_s < seconds:
            _, info = advance(act(see(env.plant)).to_vector())
        simulated_s += env.t_s - began_s
        seed += 1
    return {"simulated_s": simulated_s, **spent}


def stepping(tasks: tuple[str, ...], image_px: int, seconds: float, n_workers: int) -> list[dict]:
    """Return a row a task: times real time per worker (mean, slowest) and the shares of `TaskEnv.step`."""
    rows = []
    for task in tasks:
        with Workers(n_workers) as workers:
            futures = [workers.submit(step, task, image_px, seconds, 1000 * i) for i in range(n_workers)]
            parts = [future.result() for future in futures]
        speeds = [part["simulated_s"] / part["step"] for part in parts]
        total = Counter()
        for part in parts:
            total.update(part)
        total["rest"] = total["step"] - sum(total[name] for name in PARTS[:-1])
        rows.append(
            {
                "task": task,
                "camera_px": image_px,
                "times_real_time": round(float(np.mean(speeds)), 2),
                "slowest_worker": round(min(speeds), 2),
                "shares": {name: round(total[name] / total["step"], 3) for name in PARTS},
                "operator_to_step": round(total["operator"] / total["step"], 3),
            }
        )
    return rows


def recording(task: str, episodes: int, n_workers: int) -> dict:
    """Record demonstrations as `wbvla collect sim` does; return minutes and the share of the recorder's process."""
    from wbvla.data.recorder import EpisodeRecorder

    spent: Counter = Counter()
    EpisodeRecorder.add = timed(spent, "rows", EpisodeRecorder.add)
    EpisodeRecorder.save_episode = timed(spent, "encoding", EpisodeRecorder.save_episode)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        counts = collect(CollectSim(str(Path(folder) / "dataset"), task, episodes=episodes, workers=n_workers))
        took_s = time.perf_counter() - started
    return {
        "task": task,
        "episodes": episodes,
        "failures": counts["rows"][0]["failures"],
        "minutes": round(took_s / 60, 2),
        "encoding_to_whole": round(spent["encoding"] / took_s, 3),
        "rows_to_whole": round(spent["rows"] / took_s, 3),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="all", help="a task, several with commas between them, or all")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated seconds of each worker and case")
    parser.add_argument("--workers", type=int, default=2, help="processes that are busy at the same time")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations to record; 0 leaves that out")
    parser.add_argument("--record-task", default="box-loading", help="which task is recorded")
    parser.add_argument("--json", help="file for the result")
    cfg = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a worker a core
    tasks, report = choose_tasks(cfg.tasks), {"processor": processor(), "cores": os.cpu_count(), "workers": cfg.workers}
    report["load_before"] = round(os.getloadavg()[0], 2)
    report["stepping"] = [row for px in (0, CAMERA_PX) for row in stepping(tasks, px, cfg.seconds, cfg.workers)]
    if cfg.episodes:
        report["recording"] = recording(cfg.record_task, cfg.episodes, cfg.workers)
    table = Table("task", "camera", "x real time", "slowest", *PARTS, "operator / step", title=report["processor"])
    for row in report["stepping"]:
        camera = f"{row['camera_px']} px" if row["camera_px"] else "none"
        shares = [f"{row['shares'][name]:.0%}" for name in PARTS]
        speeds = [f"{row[name]:.2f}" for name in ("times_real_time", "slowest_worker")]
        table.add_row(row["task"], camera, *speeds, *shares, f"{row['operator_to_step']:.0%}")
    console = Console(width=110)
    console.print(table)
    if cfg.episodes:
        done = report["recording"]
        console.print(
            f"{done['episodes']} demonstrations of {done['task']}: {done['minutes']} minutes; the recorder's process "
            f"encodes for {done['encoding_to_whole']:.0%} of them and writes rows for {done['rows_to_whole']:.0%}"
        )
    if cfg.json:
        Path(cfg.json).parent.mkdir(parents=True, exist_ok=True)
        Path(cfg.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
