"""Do legs gain from knowing what the arms are about to do? Two policies at one budget, and arms that lunge.

In: a budget, seeds. Out: a JSON file with falls and sway of the centre of mass while the arms lunge, with and without
the latent action in the observation; runs that are finished are kept.
Run: .venv/bin/python benchmarks/lmo_latent.py --steps 8_000_000 --seeds 0 --json docs/results/lmo_latent.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from wbvla import __version__
from wbvla.lmo.command import STEP_S

RECIPES = ("lmo_g1", "lmo_g1_latent")
WORLDS, SECONDS, FIRST_S, EVERY_S = 128, 20.0, 2.0, 2.0
SPEED_RAD_S = 6.0
LUNGE_RAD = -1.6  # of both shoulders' pitch: arms straight ahead; then back to the default pose


def train(recipe: str, steps: int, seed: int, out: Path) -> Path:
    """Train one policy; return its folder."""
    if not (out / "export" / "policy.onnx").exists():
        command = [sys.executable, "-m", "wbvla.cli", "lmo", "train", "--recipe", recipe, "--steps", str(steps)]
        subprocess.run([*command, "--seed", str(seed), "--out", str(out)], check=True)
    return out


def lunge(recipe: str, folder: Path) -> dict[str, float | None]:
    """Return the share of standing robots that falls, and the sway of the others, m, while their arms lunge."""
    from wbvla.lmo.controller import load_policy
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe
    from wbvla.robots import get_robot

    robot, config = get_robot("g1"), get_recipe(recipe)
    config = replace(config, rewards=(*config.rewards, ("com_stability", 0.0)))  # the row brings the sensor
    session, _ = load_policy(folder / "export")
    engine = CpuEngine(robot, config, WORLDS, 0, training=False)
    rng, alive, com = np.random.default_rng(1), np.ones(WORLDS, bool), []
    engine.qpos[:, 7:] += rng.uniform(-0.05, 0.05, (WORLDS, engine.nu))
    for t in range(round(SECONDS / STEP_S)):
        beat, late = divmod(t - round(FIRST_S / STEP_S), round(EVERY_S / STEP_S))
        if late == 0 and beat >= 0:
            engine.arms.goal[:] = engine.arms.default
            if beat % 2 == 0:
                engine.arms.goal[:, [0, 7]] = LUNGE_RAD
            engine.arms.speed[:], engine.arms.left[:] = SPEED_RAD_S, 10_000
        observation = engine.observe()[0]
        _, fallen, _ = engine.step(session.run(None, {"observation": observation})[0].astype(float))
        alive &= ~fallen
        com.append(engine.sensor("com")[:, :2].copy())
    com = np.array(com)[round(FIRST_S / STEP_S) :, alive]
    sway = np.sqrt(((com - com.mean(0)) ** 2).sum(2).mean(0))
    return {"falls": float(1 - alive.mean()), "com_sway_m": float(sway.mean()) if alive.any() else None}


def main() -> None:
    """Train and measure both, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/latent"))
    parser.add_argument("--json", type=Path, default=Path("outputs/latent/report.json"))
    arguments = parser.parse_args()
    report = {"benchmark": "lmo_latent", "wbvla": __version__, "steps": arguments.steps, "worlds": WORLDS, "runs": []}
    for recipe in RECIPES:
        for seed in arguments.seeds:
            folder = train(recipe, arguments.steps, seed, arguments.out / f"{recipe}_{seed}")
            row = {"recipe": recipe, "seed": seed, **lunge(recipe, folder)}
            report["runs"].append(row)
            print(row, flush=True)
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {arguments.json}")


if __name__ == "__main__":
    main()
