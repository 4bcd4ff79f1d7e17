"""Compare the CPU engine of the legs' training with raw MuJoCo-Warp and the mjlab engine, all on this machine's CPU.

In: nothing; needs the extras train, sim and mjlab. Out: one JSON line on stdout with steps a second (20 ms of one
world) of the two engines with observations and rewards, of the physics below each alone, and the ratios between them.
Same model, time step, substeps, solver iterations and collisions.
Run: .venv/bin/python benchmarks/bench_engines.py
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from wbvla import __version__
from wbvla.lmo.cpu_engine import CpuEngine
from wbvla.lmo.mjlab_engine import MjlabEngine
from wbvla.recipes.lmo import get_recipe
from wbvla.robots import get_robot

WORLDS, STEPS, ROUNDS, THREADS = 128, 25, 5, 2


def engine_step(engine: CpuEngine) -> Callable[[], None]:
    """Return a step of a training engine under small random actions, with observations and rewards."""
    rng = np.random.default_rng(0)

    def step() -> None:
        engine.observe()
        engine.step(engine.xp.asarray(rng.normal(scale=0.3, size=(engine.n, engine.robot.n_lmo))))

    return step


def physics_step(engine: CpuEngine) -> Callable[[], None]:
    """Return a step of a CPU engine's physics alone, holding the default pose from its first states on."""
    engine._control[:] = 0.0
    engine._control[:, :, : engine.nu] = engine.default
    return engine._physics


def warp_step(engine: MjlabEngine) -> Callable[[], None]:
    """Return a step of MuJoCo-Warp alone, as it comes, holding the default pose from the same states on."""
    import mujoco_warp

    engine.write()
    engine.sim.data.ctrl[:] = engine.default
    model, data = engine.sim.wp_model, engine.sim.wp_data

    def step() -> None:
        for _ in range(engine.config.substeps):
            mujoco_warp.step(model, data)

    return step


def steps_per_s(step: Callable[[], None]) -> float:
    """Return steps a second over all worlds."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return WORLDS * STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    robot, recipe = get_robot("g1"), get_recipe("lmo_g1")
    cpu, native = (CpuEngine(robot, recipe, WORLDS, 0, THREADS) for _ in range(2))
    mjlab, warp = (MjlabEngine(robot, recipe, WORLDS, 0) for _ in range(2))
    for engine in (mjlab, warp):
        option, same = engine.sim.wp_model.opt, cpu.model.opt
        option.iterations, option.ls_iterations = same.iterations, same.ls_iterations
    steps = {
        "cpu_engine": engine_step(cpu),
        "mjlab_engine": engine_step(mjlab),
        "cpu_physics": physics_step(native),
        "mujoco_warp": warp_step(warp),
    }
    for step in steps.values():
        step()  # compiles kernels
    rounds = [{name: steps_per_s(step) for name, step in steps.items()} for _ in range(ROUNDS)]
    best = {name: max(figures[name] for figures in rounds) for name in steps}
    report = {
        "benchmark": "engines",
        "wbvla": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "method": f"G1, {WORLDS} worlds, {recipe.substeps} x {1e3 * recipe.physics_s:g} ms, feet on the floor, "
        f"best of {ROUNDS} interleaved rounds of {STEPS} steps, {THREADS} threads (MuJoCo-Warp uses one on a CPU)",
        "steps_per_s": {name: round(figure) for name, figure in best.items()},
        "ratios": {
            f"{a} / {b}": round(best[a] / best[b], 1)
            for a, b in (("cpu_engine", "mjlab_engine"), ("cpu_engine", "mujoco_warp"), ("cpu_physics", "mujoco_warp"))
        },
    }
    print(json.dumps(report))
