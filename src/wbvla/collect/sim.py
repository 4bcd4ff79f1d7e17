"""`wbvla collect sim`: record the scripted operator's demonstrations in simulation.

In: a `CollectSim` configuration. Out: a LeRobot v3 dataset of successful episodes a task, and counts.
Worker processes simulate, this process records in the order of the seeds: the dataset depends on the configuration
only, not on the number of workers, and a run that was stopped goes on at the next seed.
"""

from __future__ import annotations

import json as json_module
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wbvla.collect.workers import Workers
from wbvla.data.progress import Progress
from wbvla.lmo.odometry import STEP_S
from wbvla.sim.listing import choose_tasks
from wbvla.types import LocoCommand, Observation, Proprioception, check_pictures

FPS = 20
SLIP_S = (0.3, 0.8)  # how long the legs go another way than they are told
SLIP_WAYS = [(aside, turn) for aside in (-1, 0, 1) for turn in (-1, 0, 1) if aside or turn]
CAMERA_DELAY_S = (0.03, 0.07)
CONTROL_DELAY_STEPS = 1


@dataclass(frozen=True)
class CollectSim:
    """Demonstrations in simulation.

    Attributes:
        out: folder of the dataset, with several tasks of a dataset OUT/TASK each; unfinished ones of the same
            configuration are continued.
        task: what to do: a task, several with commas between them, or all.
        robot: who does it.
        episodes: successful episodes of each task to have in the end.
        workers: processes that simulate.
        image_size: side of the head images, pixels.
        seed: where in the split to begin; different seeds give different episodes.
        split: whose episode seeds: train, validation or test.
        pictures: what is recorded beside the head images, of the same size: head_depth, left_wrist, right_wrist.
        sloppiness: of the operator, from 0 to 1: up to 0.2 s late, 0.03 rad of tremor, 0.4 m of detour.
        slips_hz: how often the legs go astray, per second of the episode; see `Slips`.
        json: file for the counts.
    """

    out: str
    task: str = "cart-pushing"
    robot: str = "g1"
    episodes: int = 40
    workers: int = 2
    image_size: int = 96
    seed: int = 0
    split: str = "train"
    pictures: tuple[str, ...] = ()
    sloppiness: float = 0.0
    slips_hz: float = 0.3
    json: str | None = None

    def __post_init__(self) -> None:
        from wbvla.sim.plant import MAX_IMAGE_PX

        choose_tasks(self.task)
        check_pictures(self.pictures)
        for name, least in (("episodes", 1), ("workers", 1), ("image_size", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        if self.image_size % 2 or self.image_size > MAX_IMAGE_PX:
            raise ValueError(f"image_size: got {self.image_size}, expected an even number up to {MAX_IMAGE_PX}")
        if not 0.0 <= self.slips_hz <= 2.0:
            raise ValueError(f"slips_hz: got {self.slips_hz}, expected 0 to 2 per second")
        if not 0.0 <= self.sloppiness <= 1.0:
            raise ValueError(f"sloppiness: got {self.sloppiness}, expected 0 to 1")


@dataclass
class Attempt:
    """One simulated episode.

    Attributes:
        success, failure: the task's verdict; failure is "", "fall", "drop" or "timeout".
        images: (T, S, S, 3) uint8. states: (T, 2 J + 10) float32. actions: (T, 20) float32, as applied.
        pictures: T of each other camera, by name.
        t_capture_s, t_state_s: (T,) when the image was taken and the state measured, since the first state.
    """

    success: bool
    failure: str = ""
    images: list[np.ndarray] | np.ndarray = field(default_factory=list)
    states: list[np.ndarray] | np.ndarray = field(default_factory=list)
    actions: list[np.ndarray] | np.ndarray = field(default_factory=list)
    t_capture_s: list[float] = field(default_factory=list)
    t_state_s: list[float] = field(default_factory=list)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)


def run(cfg: CollectSim) -> dict[str, Any]:
    """Record until each dataset holds `episodes` successes; returns {"rows": [counts]}. Raises ValueError."""
    from wbvla.data.cache import fingerprint
    from wbvla.lmo.controller import weights_folder

    legs = weights_folder(cfg.robot)
    facts = {
        "camera_delay_s": list(CAMERA_DELAY_S),
        "control_delay_steps": CONTROL_DELAY_STEPS,
        "legs": fingerprint((p.name, p) for p in sorted(legs.iterdir()) if p.suffix in (".onnx", ".json")),
    }
    tasks = choose_tasks(cfg.task)
    outs = [cfg.out] if len(tasks) == 1 else [str(Path(cfg.out) / task) for task in tasks]
    with Workers(cfg.workers) as workers:
        parts = [replace(cfg, task=task, out=out) for task, out in zip(tasks, outs)]
        report = {"rows": [collect(part, simulate, facts, workers) for part in parts]}
    if cfg.json is not None:
        Path(cfg.json).write_text(json_module.dumps(report, indent=1) + "\n")
    return report


def collect(cfg: CollectSim, attempt: Callable[[CollectSim, int], Attempt], facts: dict, workers: Workers) -> dict:
    """Record what `attempt(cfg, seed)` returns, in the order of the seeds.

    Args:
        cfg: what to record: one task.
        attempt: simulates one episode; called in worker processes.
        facts: further provenance; a dataset with other facts is not continued.
        workers: who simulate.
    Returns:
        Counts of this run: task, out, episodes, recorded_before, failures by kind, seconds.
    Raises:
        ValueError: `out` holds something else, or the operator hardly ever succeeds.
    """
    from wbvla.data.recorder import provenance_of, saved_episodes
    from wbvla.robots import get_robot
    from wbvla.sim.tasks import get_task

    started = time.monotonic()
    robot, text = get_robot(cfg.robot), get_task(cfg.task).text
    settings = {"seed": cfg.seed, "slips_hz": cfg.slips_hz, "sloppiness": cfg.sloppiness}
    facts = {"simulated": cfg.task, "split": cfg.split, **settings, **facts}
    saved = saved_episodes(cfg.out, provenance_of(robot, FPS, cfg.image_size, text, facts))
    failures: Counter[str] = Counter()
    if len(saved) < cfg.episodes:
        results = _InOrder(workers, attempt, cfg, saved[-1]["attempt"] + 1 if saved else 0)
        # The workers are at work while LeRobot is imported.
        from wbvla.data.recorder import EpisodeRecorder

        with EpisodeRecorder(cfg.out, robot, FPS, cfg.image_size, text, facts, cfg.pictures) as recorder:
            failures = _record(recorder, results, cfg)
        results.cancel()
    return {
        "task": cfg.task,
        "out": str(cfg.out),
        "episodes": max(len(saved), cfg.episodes),
        "recorded_before": len(saved),
        "failures": dict(failures),
        "seconds": round(time.monotonic() - started, 1),
    }


def episode_seed(cfg: CollectSim, index: int) -> int:
    """The seed of the index-th attempt; blocks of different `seed` start far apart and wrap at the split's end."""
    from wbvla.sim.seeds import SPLITS, seeds_for

    seeds_for(cfg.split, 0)  # names the known splits if this is none of them
    seeds = SPLITS[cfg.split]
    start = int(len(seeds) * (cfg.seed * 0.6180339887498949 % 1.0))  # the golden ratio spreads any number of blocks
    return seeds[(start + index) % len(seeds)]


class _InOrder:
    """Results of attempts in their order, some of them computed ahead. Iterates over (index, seed, Attempt)."""

    def __init__(self, workers: Workers, attempt: Callable, cfg: CollectSim, first: int) -> None:
        self._workers, self._attempt, self._cfg, self._next = workers, attempt, cfg, first
        self._ahead: deque = deque()
        for _ in range(2 * cfg.workers):  # whole episodes of raw pictures, so no more than keep the workers busy
            self._submit()

    def _submit(self) -> None:
        seed = episode_seed(self._cfg, self._next)
        self._ahead.append((self._next, seed, self._workers.submit(self._attempt, self._cfg, seed)))
        self._next += 1

    def __iter__(self) -> Iterator[tuple[int, int, Attempt]]:
        while True:
            index, seed, future = self._ahead.popleft()
            result = future.result()
            self._submit()
            yield index, seed, result

    def cancel(self) -> None:
        """Give up those of the attempts ahead that no worker has begun."""
        for _, _, future in self._ahead:
            future.cancel()


def _record(recorder, results: _InOrder, cfg: CollectSim) -> Counter[str]:
    """Record successes until there are enough; returns the failures by kind."""
    progress = Progress(f"collect {cfg.task}", cfg.episodes, "episodes", done=len(recorder.episodes))
    failures: Counter[str] = Counter()
    for index, seed, result in results:
        if result.success:
            for row, (action, t_state_s) in enumerate(zip(result.actions, result.t_state_s)):
                others = {name: values[row] for name, values in result.pictures.items()}
                seen = result.images[row], result.states[row], recorder.task_text, result.t_capture_s[row]
                recorder.add(Observation(*seen, others), action, t_state_s)
            recorder.save_episode({"seed": seed, "attempt": index})
        else:
            failures[result.failure] += 1
        note = "failed: " + (", ".join(f"{n} {kind}" for kind, n in failures.items()) or "none")
        progress.advance(int(result.success), note)
        if len(recorder.episodes) >= cfg.episodes:
            progress.close(note)
            return failures
        if failures.total() > 10 + 4 * len(recorder.episodes):
            check = f"look at them with `wbvla eval --policy operator --task {cfg.task}`"
            raise ValueError(f"the operator failed {failures.total()} times ({note}); {check}")
    return failures


class Slips:
    """Legs that now and then, for a moment, step aside or turn instead of what they are told.

    The operator only ever sees small errors, because it corrects them at once; a policy that learned from such
    recordings alone knows no way back from a large one. Slips make large errors without a single wrong command in the
    recording (noise injection into demonstrations, DART: Laskey et al. 2017).

    Args:
        legs: the controller between slips, and behind them.
    """

    def __init__(self, legs) -> None:
        self._legs, self._rng, self._rate_hz, self._left_s = legs, np.random.default_rng(0), 0.0, 0.0

    def reset(self) -> None:
        """Forget the past; no slips until `begin`."""
        self._legs.reset()
        self._rate_hz = self._left_s = 0.0

    def begin(self, rng: np.random.Generator, rate_hz: float) -> None:
        """Slip from now on, so often a second on average."""
        self._rng, self._rate_hz = rng, rate_hz

    def step(self, loco: LocoCommand, body: Proprioception) -> np.ndarray:
        """Return the targets of the real legs; call at 50 Hz."""
        self._left_s -= STEP_S
        if self._left_s <= 0.0 and self._rng.random() < self._rate_hz * STEP_S:
            self._left_s = self._rng.uniform(*SLIP_S)
            self._aside, self._turn = self._rng.choice(SLIP_WAYS)
        if self._left_s > 0.0:
            loco = replace(loco, s_y=int(self._aside), s_psi=int(self._turn))
        return self._legs.step(loco, body)


_ENVIRONMENTS: dict[CollectSim, tuple[Any, Any]] = {}  # this worker's environment and operator


def simulate(cfg: CollectSim, seed: int) -> Attempt:
    """Let the scripted operator try one episode."""
    if cfg not in _ENVIRONMENTS:
        from wbvla.lmo.controller import shipped_controller
        from wbvla.sim.env import TaskEnv
        from wbvla.sim.operator import get_operator

        env = TaskEnv(
            cfg.task,
            cfg.robot,
            cfg.image_size,
            controller=Slips(shipped_controller(cfg.robot)),
            camera_delay_s=CAMERA_DELAY_S,
            control_delay_steps=CONTROL_DELAY_STEPS,
            pictures=cfg.pictures,
        )
        operator = get_operator(env.task, env.robot, np.random.default_rng(seed), cfg.sloppiness)
        _ENVIRONMENTS[cfg] = env, operator
    env, operator = _ENVIRONMENTS[cfg]
    observation = env.reset(seed)
    operator.reset(np.random.default_rng([seed, 1]))
    env.body.controller.begin(np.random.default_rng([seed, 2]), cfg.slips_hz)
    start_s, result, info = env.t_s, Attempt(success=False), {"done": False}
    result.pictures = {name: [] for name in cfg.pictures}
    while not info["done"]:
        result.images.append(observation.image)
        for name, picture in observation.pictures.items():
            result.pictures[name].append(picture)
        result.states.append(observation.state)
        result.t_capture_s.append(observation.t_capture_s - start_s)
        result.t_state_s.append(env.t_s - start_s)
        observation, info = env.step(operator.act(env.privileged()).to_vector())
        result.actions.append(env.applied)
    if not info["success"]:
        return Attempt(success=False, failure=info["failure"])
    result.success = True
    result.images = np.stack(result.images)
    return result
