"""Measure one step of the shipped legs' policy (observation, onnxruntime, joint targets) on one core.

In: the shipped weights. Out: one JSON line on stdout with the machine, the method and microseconds.
Run: .venv/bin/python benchmarks/bench_legs_step.py
"""

from __future__ import annotations

import json
import os
import platform
import time

import numpy as np

from wbvla import __version__
from wbvla.lmo.controller import shipped_controller
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception


def step_times_us(robot_name: str, steps: int = 5000) -> np.ndarray:
    """Return the wall times in microseconds of `steps` steps on a robot that stands still, shape (steps,)."""
    robot = get_robot(robot_name)
    controller = shipped_controller(robot_name)
    q_rad = robot.array("default")
    body = Proprioception(q_rad, np.zeros_like(q_rad), np.zeros(3), np.array([0.0, 0.0, -1.0]))
    command = LocoCommand(1, 0, 0, robot.nominal_height_m)
    controller.reset()
    times_us = np.empty(steps)
    for i in range(steps):
        start = time.perf_counter()
        controller.step(command, body)
        times_us[i] = 1e6 * (time.perf_counter() - start)
    return times_us[steps // 10 :]


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    times_us = step_times_us("g1")
    report = {
        "benchmark": "legs_step",
        "wbvla": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "method": "5000 steps on one pinned core, the first tenth left out",
        "p50_us": round(float(np.percentile(times_us, 50)), 1),
        "p99_us": round(float(np.percentile(times_us, 99)), 1),
    }
    print(json.dumps(report))
