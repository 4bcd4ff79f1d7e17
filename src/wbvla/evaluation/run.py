"""`wbvla eval`: closed-loop success of one policy over many seeded episodes, in parallel processes.

In: an `Evaluate` configuration. Out: a row {policy, task, successes, trials, rate, low, high, ...}, also as JSON.
Workers are single-threaded processes; an episode depends on its seed only, never on who runs it or in which order.
"""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wbvla.evaluation.statistics import wilson

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Evaluate:
    """Closed-loop evaluation.

    Attributes:
        policy: operator, zero, walk-only, reach-only, random, replay, blind, or the folder of a VLA checkpoint.
        task: what to do.
        robot: who does it.
        trials: episodes.
        workers: processes.
        split: whose seeds: train, validation or test. Select nothing on test.
        seed: which block of `trials` seeds of the split; also draws the weights of `random`.
        json: file for the result with every episode.
        checkpoint: the VLA behind `blind` and `random`.
        dataset: the demonstrations that `replay` averages.
        video: mp4 of the first successful episode (of the first one if none succeeds).
        latency_s: the policy's latency in simulated time; measured at the start if not given.
        realtime: in wall time instead, one trial after another through the sockets of `wbvla serve` and `wbvla run`.
        variation: trained or unseen: from which ranges the task's axes are drawn; see `wbvla tasks`.
        vary: the axes that are unseen, the others stay trained; all of them if none is named.
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
    variation: str = "trained"
    vary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("workers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        if self.latency_s is not None and not 0.0 <= self.latency_s <= 10.0:
            raise ValueError(f"latency_s: got {self.latency_s}, expected seconds between 0 and 10")
        if self.realtime and (self.latency_s is not None or self.video is not None):
            raise ValueError("realtime: takes no --latency-s (it is what it is) and no --video (`wbvla run` has one)")
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
    """Run all trials, print the result and return it as a row. Raises ValueError on an unusable configuration."""
    started = time.monotonic()
    seeds = episode_seeds(cfg.split, cfg.trials, cfg.seed)
    # Inherited by the workers before they import numpy, torch and mujoco.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if cfg.realtime:
        from wbvla.evaluation.realtime import trials

        episodes, latency_s = trials(cfg, seeds)
    else:
        episodes, latency_s = _in_simulated_time(cfg, seeds)
    row = summarise(cfg, episodes, latency_s, time.monotonic() - started)
    if cfg.json is not None:
        write_json(cfg.json, row)
    _print(row, cfg)
    return row


def _in_simulated_time(cfg: Evaluate, seeds: list[int]) -> tuple[list, float]:
    from wbvla.collect.workers import Workers

    with Workers(min(cfg.workers, cfg.trials)) as workers:
        # The first worker is alone while it measures: the others start with the trials.
        latency_s = cfg.latency_s if cfg.latency_s is not None else workers.submit(_latency, cfg).result()
        episodes = _all_trials(workers, cfg, seeds, latency_s)
        if cfg.video is not None:
            best = next((e.seed for e in episodes if e.success), seeds[0])
            workers.submit(_film, cfg, best, latency_s).result()
    return episodes, latency_s


def summarise(cfg: Evaluate, episodes: list, latency_s: float, wall_s: float) -> dict[str, Any]:
    """Count outcomes of `Episode`s and add the Wilson interval."""
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
        "timeouts": sum(e.failure == "timeout" for e in episodes),
        "flag_differences": sum(e.flag_differences for e in episodes),
        "latency_s": latency_s,
        "realtime": cfg.realtime,
        "drops": sum(e.failure == "drop" for e in episodes),
        "variation": cfg.variation,
        "vary": list(unseen_axes(cfg)),
        "split": cfg.split,
        "seed": cfg.seed,
        "wall_s": round(wall_s, 1),
        "episodes": [{**asdict(e), "wall_s": round(e.wall_s, 2)} for e in episodes],
    }


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json_module.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def _all_trials(workers: Any, cfg: Evaluate, seeds: list[int], latency_s: float) -> list:
    """Return one Episode a seed, in the order of the seeds, with progress on standard error."""
    from concurrent.futures import as_completed

    from wbvla.data.progress import Progress

    futures = [workers.submit(_trial, cfg, seed, latency_s) for seed in seeds]
    progress, successes = Progress(f"eval {Path(cfg.policy).name}", len(seeds), "trials"), 0
    for future in as_completed(futures):
        successes += future.result().success
        progress.advance(1, f"{successes} succeeded")
    progress.close(f"{successes} succeeded")
    return [future.result() for future in futures]


_POLICIES: dict[Evaluate, Any] = {}  # this worker's policy


def _policy(cfg: Evaluate) -> tuple[Any, int]:
    """Return the policy and the size of the pictures it looks at."""
    if cfg not in _POLICIES:
        from wbvla.evaluation.policies import load_policy

        _POLICIES[cfg] = load_policy(cfg.policy, cfg.task, cfg.robot, cfg.checkpoint, cfg.dataset, cfg.seed)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
    policy = _POLICIES[cfg]
    return policy, getattr(policy, "image_size", 0)


def _latency(cfg: Evaluate) -> float:
    from wbvla.evaluation.rollout import measure_latency

    return measure_latency(*_policy(cfg), cfg.robot)


def _trial(cfg: Evaluate, seed: int, latency_s: float, watch: Any = None):
    from wbvla.evaluation.rollout import rollout

    policy, image_size = _policy(cfg)
    return rollout(cfg.task, cfg.robot, policy, seed, latency_s, image_size, watch=watch, unseen=unseen_axes(cfg))


def unseen_axes(cfg: Evaluate) -> tuple[str, ...]:
    """Return the axes of variation that are drawn from their unseen ranges."""
    from wbvla.sim.tasks import get_task

    if cfg.variation == "trained":
        return ()
    return cfg.vary or tuple(get_task(cfg.task).axes)


def _film(cfg: Evaluate, seed: int, latency_s: float) -> None:
    from wbvla.evaluation.film import Film

    film = Film(cfg.video)
    try:
        _trial(cfg, seed, latency_s, film)
    finally:
        film.close()


def _print(row: dict[str, Any], cfg: Evaluate) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("policy", "success", f"{CONFIDENCE:.0%} interval", "falls", "drops", "timeouts", *row["subgoals"])
    counts = [*(str(row[kind]) for kind in ("falls", "drops", "timeouts"))]
    counts += [*(f"{n}/{row['trials']}" for n in row["subgoals"].values())]
    interval = f"{row['low']:.0%} - {row['high']:.0%}"
    table.add_row(Path(row["policy"]).name, f"{row['successes']}/{row['trials']}", interval, *counts)
    console = Console()
    console.print(table)
    console.print(f"{row['task']}, split {row['split']}, latency {1000 * row['latency_s']:.0f} ms, {row['wall_s']} s")
    for what, path in (("result", cfg.json), ("video", cfg.video)):
        if path is not None:
            console.print(f"{what}: {path}", soft_wrap=True)
