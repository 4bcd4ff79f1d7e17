"""`wbvla eval`: closed-loop success of one policy over many seeded episodes, in parallel processes.

In: an `Evaluate` configuration. Out: {"wall_s", "rows": [{policy, task, successes, trials, rate, low, high, ...}]}, a
row a task, also as JSON.
Workers are single-threaded processes; an episode depends on its seed only, never on who runs it or in which order.
"""

from __future__ import annotations

import json as json_module
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from wbvla.evaluation.statistics import wilson
from wbvla.sim.listing import choose_tasks

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Evaluate:
    """Closed-loop evaluation.

    Attributes:
        policy: operator, zero, walk-only, reach-only, random, replay, blind, modular, or the folder of a VLA or X-VLA.
        task: what to do: a task, several with commas between them, or all.
        robot: who does it.
        trials: episodes of each task.
        workers: processes.
        split: whose seeds: train, validation or test. Select nothing on test.
        seed: which block of `trials` seeds of the split; also draws the weights of `random`.
        json: file for the rows with every episode.
        checkpoint: the VLA or X-VLA behind `blind`, `modular` and `random`; without one `random` draws actions.
        dataset: the demonstrations that `replay` averages.
        video: mp4 of the first successful episode (of the first one if none succeeds); of several tasks NAME-TASK.mp4.
        latency_s: the policy's latency in simulated time; measured at the start if not given.
        realtime: in wall time instead, one trial after another through the sockets of `wbvla serve` and `wbvla run`.
        steps: denoising steps of an X-VLA; 5 if not given.
        device: where an X-VLA computes: cpu or cuda.
        variation: trained or unseen: from which ranges the task's axes are drawn; see `wbvla tasks`.
        vary: the axes that are unseen, with spaces between, the others stay trained; all of them if none is named.
    """

    policy: str
    task: str = "cart-pushing"
    robot: str = "g1"
    trials: int = 30
    workers: int = 2
    split: str = "test"
    seed: int = 0
    json: str | None = None
    checkpoint: str | None = None
    dataset: str | None = None
    video: str | None = None
    latency_s: float | None = None
    realtime: bool = False
    steps: int | None = None
    device: str = "cpu"
    variation: str = "trained"
    vary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from wbvla.evaluation.film import check_name
        from wbvla.evaluation.policies import FROM_CHECKPOINT, NAMED, OPERATORS

        choose_tasks(self.task)
        check_name(self.video)
        for name, least in (("trials", 1), ("workers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps: got {self.steps}, expected at least 1")
        if self.latency_s is not None and not 0.0 <= self.latency_s <= 10.0:
            raise ValueError(f"latency_s: got {self.latency_s}, expected seconds between 0 and 10")
        if self.latency_s is not None and self.policy in OPERATORS:
            raise ValueError(f"latency_s: {self.policy} acts at once, as in recording; leave --latency-s out")
        if self.checkpoint is not None and self.policy in NAMED and self.policy not in FROM_CHECKPOINT:
            raise ValueError(f"checkpoint: {self.policy} takes none, {', '.join(FROM_CHECKPOINT)} do")
        if self.realtime and (self.latency_s is not None or self.video is not None):
            raise ValueError("realtime: takes no --latency-s (it is what it is) and no --video (`wbvla run` has one)")
        if self.realtime and (self.steps is not None or self.device != "cpu"):
            raise ValueError("realtime: takes no --steps and no --device, which only an X-VLA has: it serves a VLA")
        if self.variation not in ("trained", "unseen"):
            raise ValueError(f"variation: got {self.variation!r}, expected trained or unseen")
        if self.variation == "trained" and self.vary:
            raise ValueError("vary: names unseen axes; add --variation unseen")
        if self.variation == "unseen" and self.realtime:
            raise ValueError("realtime: repeats the trained variation only")


def episode_seeds(split: str, trials: int, seed: int) -> list[int]:
    """Return the `seed`-th block of `trials` episode seeds; blocks wrap around at the split's end."""
    from wbvla.sim.seeds import SPLITS, seeds_for

    if split in SPLITS and trials > len(SPLITS[split]):
        raise ValueError(f"trials: got {trials}, expected at most {len(SPLITS[split])}, the seeds of split {split}")
    blocks = len(SPLITS[split]) // trials if split in SPLITS else 1
    return seeds_for(split, trials, trials * (seed % blocks))


def run(cfg: Evaluate) -> dict[str, Any]:
    """Run all trials, print the rows and return them. Raises ValueError on an unusable configuration."""
    started = time.monotonic()
    seeds = episode_seeds(cfg.split, cfg.trials, cfg.seed)
    parts = [replace(cfg, task=task) for task in choose_tasks(cfg.task)]
    for part in parts:
        unseen_axes(part)
    # Inherited by the workers before they import numpy, torch and mujoco.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    rows = _in_real_time(parts, seeds) if cfg.realtime else _in_simulated_time(parts, cfg, seeds)
    report = {"wall_s": round(time.monotonic() - started, 1), "rows": rows}
    if cfg.json is not None:
        write_json(cfg.json, report)
    _print(report, cfg)
    return report


def _in_real_time(parts: list[Evaluate], seeds: list[int]) -> list[dict[str, Any]]:
    from wbvla.evaluation.realtime import trials

    rows = []
    for part in parts:
        started = time.monotonic()
        episodes, latency_s = trials(part, seeds)
        rows.append(summarise(part, episodes, latency_s, time.monotonic() - started))
    return rows


def _in_simulated_time(parts: list[Evaluate], cfg: Evaluate, seeds: list[int]) -> list[dict[str, Any]]:
    """Run the tasks' trials in one pool, task after task, so that no worker waits between two of them."""
    from wbvla.collect.workers import Workers

    with Workers(min(cfg.workers, cfg.trials * len(parts))) as workers:
        # The first worker is alone while it measures: the others start with the trials.
        latency_s = cfg.latency_s if cfg.latency_s is not None else workers.submit(_latency, parts[0]).result()
        rows = _all_trials(workers, parts, seeds, latency_s)
        if cfg.video is not None:
            for future in [workers.submit(_film, part, row, video_of(cfg, part)) for part, row in zip(parts, rows)]:
                future.result()
    return rows


def video_of(cfg: Evaluate, part: Evaluate) -> str:
    """Return the file of a task's film: the one asked for, or with several tasks one named after each."""
    path = Path(cfg.video)
    return str(path if part.task == cfg.task else path.with_stem(f"{path.stem}-{part.task}"))


def summarise(cfg: Evaluate, episodes: list, latency_s: float, wall_s: float) -> dict[str, Any]:
    """Count outcomes of a task's `Episode`s and add the Wilson interval.

    In the row, `simulated_s` is the sum over the episodes and `wall_s` runs from the first one's start to the last
    one's end, however many workers shared them.
    """
    n, successes = len(episodes), sum(e.success for e in episodes)
    rate = wilson(successes, n, CONFIDENCE)
    subgoals = {name: sum(e.subgoals[name] for e in episodes) for name in episodes[0].subgoals}
    return {
        "policy": cfg.policy,
        "task": cfg.task,
        "robot": cfg.robot,
        "successes": successes,
        "trials": n,
        "rate": rate.rate,
        "low": rate.low,
        "high": rate.high,
        "confidence": CONFIDENCE,
        "subgoals": subgoals,
        "falls": sum(e.fallen for e in episodes),
        "drops": sum(e.failure == "drop" for e in episodes),
        "timeouts": sum(e.failure == "timeout" for e in episodes),
        "flag_differences": sum(e.flag_differences for e in episodes),
        "latency_s": latency_s,
        "realtime": cfg.realtime,
        "steps": cfg.steps,
        "device": cfg.device,
        "variation": cfg.variation,
        "vary": list(unseen_axes(cfg)),
        "split": cfg.split,
        "seed": cfg.seed,
        "wall_s": round(wall_s, 1),
        "simulated_s": round(sum(e.simulated_s for e in episodes), 2),
        "episodes": [{**asdict(e), "wall_s": round(e.wall_s, 2)} for e in episodes],
    }


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json_module.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def _all_trials(workers: Any, parts: list[Evaluate], seeds: list[int], latency_s: float) -> list[dict[str, Any]]:
    """Return a row a task, episodes in the order of the seeds, with progress on standard error."""
    from concurrent.futures import as_completed

    from wbvla.data.progress import Progress

    futures = [[workers.submit(_trial, part, seed, latency_s) for seed in seeds] for part in parts]
    where = {future: i for i, row in enumerate(futures) for future in row}
    progress, successes = Progress(f"eval {Path(parts[0].policy).name}", len(where), "trials"), 0
    spans = [(math.inf, 0.0)] * len(parts)
    for future in as_completed(where):
        episode, i, now = future.result(), where[future], time.monotonic()
        spans[i] = min(spans[i][0], now - episode.wall_s), now
        successes += episode.success
        progress.advance(1, f"{successes} succeeded")
    progress.close(f"{successes} succeeded")
    return [
        summarise(part, [future.result() for future in row], latency_s, end - start)
        for part, row, (start, end) in zip(parts, futures, spans)
    ]


@lru_cache(maxsize=1)  # one task after the other comes by; only its policy stays in memory
def _policy(cfg: Evaluate) -> tuple[Any, int]:
    """Return this worker's policy and the size of the pictures it looks at."""
    from wbvla.evaluation.policies import load_policy

    arguments = cfg.policy, cfg.task, cfg.robot, cfg.checkpoint, cfg.dataset, cfg.seed, cfg.steps, cfg.device
    policy = load_policy(*arguments)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return policy, getattr(policy, "image_size", 0)


def _latency(cfg: Evaluate) -> float:
    from wbvla.evaluation.rollout import measure_latency

    return measure_latency(*_policy(cfg), cfg.robot)


def _trial(cfg: Evaluate, seed: int, latency_s: float, watch: Any = None):
    from wbvla.evaluation.rollout import rollout

    policy, image_size = _policy(cfg)
    return rollout(cfg.task, cfg.robot, policy, seed, latency_s, image_size, watch=watch, unseen=unseen_axes(cfg))


def unseen_axes(cfg: Evaluate) -> tuple[str, ...]:
    """Return the axes of variation that are drawn from their unseen ranges. Raises ValueError on one it lacks."""
    from wbvla.sim.tasks import get_task

    if cfg.variation == "trained":
        return ()
    axes = tuple(get_task(cfg.task).axes)
    if unknown := sorted(set(cfg.vary) - set(axes)):
        raise ValueError(f"vary: got {', '.join(unknown)}, expected some of {cfg.task}'s axes: {', '.join(axes)}")
    return cfg.vary or axes


def _film(cfg: Evaluate, row: dict[str, Any], path: str) -> None:
    from wbvla.evaluation.film import Film

    seed = next((e["seed"] for e in row["episodes"] if e["success"]), row["episodes"][0]["seed"])
    film = Film(path)
    try:
        _trial(cfg, seed, row["latency_s"], film)
    finally:
        film.close()


def _print(report: dict[str, Any], cfg: Evaluate) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = report["rows"]
    table = Table("task", "success", f"{CONFIDENCE:.0%} interval", "falls", "drops", "timeouts", "s", "sim s")
    for row in rows:
        counts = [str(row[kind]) for kind in ("falls", "drops", "timeouts")]
        interval = f"{row['low']:.0%} - {row['high']:.0%}"
        success, times = f"{row['successes']}/{row['trials']}", [f"{row[k]:.0f}" for k in ("wall_s", "simulated_s")]
        table.add_row(row["task"], success, interval, *counts, *times)
    console, first = Console(), rows[0]
    console.print(table)
    for row in rows:
        goals = ", ".join(f"{name} {n}" for name, n in row["subgoals"].items())
        console.print(f"{row['task']} reached {goals}", soft_wrap=True)
    who = f"{Path(cfg.policy).name} on {cfg.robot}"
    latency_ms = 1000 * first["latency_s"]
    console.print(f"{who}, split {cfg.split}, latency {latency_ms:.0f} ms, {report['wall_s']} s")
    videos = [("video", video_of(cfg, replace(cfg, task=row["task"]))) for row in rows] if cfg.video else []
    for what, path in ([("result", cfg.json)] if cfg.json is not None else []) + videos:
        console.print(f"{what}: {path}", soft_wrap=True)
