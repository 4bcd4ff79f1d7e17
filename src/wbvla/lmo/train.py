"""Train the legs with rsl_rl's PPO on the CPU or the mjlab engine, with the harness curriculum.

In: a recipe. Out: a folder with checkpoint (safetensors + JSON), log.jsonl, and an ONNX export with its contract.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wbvla.lmo.cpu_engine import Diverged


@dataclass
class TrainLmo:
    """Train the legs.

    Attributes:
        recipe: name of a recipe in wbvla.recipes.lmo.
        robot: whose legs.
        engine: cpu (MuJoCo on CPU threads) or mjlab (MuJoCo-Warp; on the first GPU if there is one).
        worlds: simulated robots; 0 for the recipe's number, which is meant for two CPU cores (a GPU: 4096).
        out: folder of the run: checkpoint, log.jsonl and, at the end, export/ with the finished legs.
        init: folder of a finished run, or of an earlier stage, whose networks to begin with; its recipe may differ.
        arms: recorded arm motion (.npz, .npy or datasets' folders) that half of the worlds play while the others pursue
            random goals; without any, all worlds pursue random goals.
        actuator: folder that `wbvla lmo actuator` wrote; its network replaces the joints' PD.
        steps: environment steps of 20 ms in total, over all worlds and all earlier runs in `out`.
        minutes: end this run earlier, after so many minutes of wall time; 0 sets no limit.
        seed: of weights, commands and disturbances.
        threads: CPU threads for physics and torch.
        resume: continue from the checkpoint in `out`; --no-resume starts anew.
        evaluate_every: updates of the policy between two evaluations.
    """

    recipe: str = "lmo_g1"
    robot: str = "g1"
    engine: str = "cpu"
    worlds: int = 0
    out: str = "outputs/lmo"
    init: str = ""
    arms: tuple[str, ...] = ()
    actuator: str = ""
    steps: int = 20_000_000
    minutes: float = 0.0
    seed: int = 0
    threads: int = 2
    resume: bool = True
    evaluate_every: int = 150


class Curriculum:
    """Anneal the harness by the mean length of the last 200 episodes; after it, each world finds its own level."""

    def __init__(self, harness: bool) -> None:
        self.harness = 1.0 if harness else 0.0
        self.lengths: deque[int] = deque(maxlen=200)

    def update(self, max_steps: int) -> None:
        """Move one notch (called every ten updates)."""
        if len(self.lengths) < 20:
            return
        mean = sum(self.lengths) / len(self.lengths) / max_steps
        if mean > 0.35 and self.harness > 0:
            self.harness = max(0.0, self.harness - 0.03)
        elif mean < 0.12 and self.harness > 0:
            self.harness = min(1.0, self.harness + 0.02)


def run(cfg: TrainLmo) -> dict:
    """Train, print progress, keep a checkpoint a minute; Ctrl-C keeps the newest. Returns the last evaluation."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's spinning threads would starve the physics
    import torch

    from wbvla.lmo.cpu_engine import Diverged
    from wbvla.lmo.export import export
    from wbvla.lmo.ppo import Trainer
    from wbvla.recipes.lmo import get_recipe
    from wbvla.robots import get_robot

    torch.set_num_threads(cfg.threads)
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    recipe = replace(get_recipe(cfg.recipe), arms=cfg.arms, actuator=cfg.actuator)
    recipe = replace(recipe, worlds=cfg.worlds or recipe.worlds)
    trainer = Trainer(get_robot(cfg.robot), recipe, cfg.seed, cfg.threads, cfg.engine)
    if cfg.resume and (out / "checkpoint.json").exists():
        trainer.load(out)
        print(f"resumed {out} at {trainer.steps:,} steps", flush=True)
    elif cfg.init:
        trainer.begin_with(Path(cfg.init))
    start, start_steps, saved, result = time.time(), trainer.steps, time.time(), {}
    last = trainer.steps >= cfg.steps
    try:
        while not last:
            row = trainer.update()
            elapsed = time.time() - start
            rate = (trainer.steps - start_steps) / elapsed
            last = trainer.steps >= cfg.steps or (cfg.minutes > 0 and elapsed > 60 * cfg.minutes)
            row |= {"minutes": round(elapsed / 60, 2), "steps_per_s": round(rate)}
            if trainer.updates % 20 == 0:
                _log(out, row)
                left = (cfg.steps - trainer.steps) / rate / 60
                print(f"{trainer.steps:>12,} steps  {rate:6.0f}/s  {left:5.1f} min left  " + _short(row), flush=True)
            if trainer.updates % cfg.evaluate_every == 0 or last:
                result = trainer.evaluate()
                _log(out, {"steps": trainer.steps, "evaluation": result})
                speeds = {k: (r["survival"], r["vx"], r["vy"], r["wz"]) for k, r in result["commands"].items()}
                print(f"evaluation without harness: survival {result['survival']:.2f} {speeds}", flush=True)
            if time.time() - saved > 60 or last:
                trainer.save(out)
                saved = time.time()
    except Diverged as error:
        raise ValueError(f"{error} at {trainer.steps:,} steps: {_dump(out, error)}") from None
    except KeyboardInterrupt:
        trainer.save(out)
        print(f"interrupted: checkpoint at {trainer.steps:,} steps kept in {out}; the same command continues")
        raise
    if not result:  # there was nothing left to train
        result = trainer.evaluate()
    command = f"wbvla lmo train --recipe {cfg.recipe} --robot {cfg.robot} --seed {cfg.seed}"
    command += f" --engine {cfg.engine}" * (cfg.engine != "cpu") + f" --worlds {cfg.worlds}" * (cfg.worlds > 0)
    export(trainer, out / "export", command, result)
    print(f"wrote {out / 'export'}")
    return result


def _dump(out: Path, error: Diverged) -> str:
    """Write what is needed to repeat the step; the checkpoint stays as it was. Returns where it lies."""
    import mujoco
    import numpy as np

    mujoco.mj_saveModel(error.model, str(out / "diverged.mjb"), None)
    np.savez(out / "diverged.npz", state=error.state, control=error.control)
    return f"model and state of that step are in {out}/diverged.mjb and diverged.npz, the last checkpoint is untouched"


def _short(row: dict) -> str:
    keys = ("length", "harness", "level", "std", "lr", "track_xy", "track_yaw", "track_height")
    return "  ".join(f"{k} {row[k]:.3g}" for k in keys)


def _log(out: Path, row: dict) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
