"""Score legs without assistance: nine commands, many worlds, ten seconds.

In: a policy (actor observation -> action). Out: survival and reached speed per command. `EvaluateLmo` is the command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

NINE = {
    "forward": (1, 0, 0),
    "backward": (-1, 0, 0),
    "left": (0, 1, 0),
    "right": (0, -1, 0),
    "turn_left": (0, 0, 1),
    "turn_right": (0, 0, -1),
    "stand": (0, 0, 0),
    "forward_left": (1, 0, 1),
    "forward_right": (1, 0, -1),
}


def nine_commands(policy, robot, config, worlds: int = 64, seconds: float = 10.0, arms: float = 0.0, push: float = 0.0,
                  height_m: float | None = None, seed: int = 0, threads: int = 2) -> dict:  # fmt: skip
    """Run 9 commands x `worlds` worlds without harness.

    policy: maps observations (n, width) float32 to actions (n, n_lmo). arms: amplitude of arm motion in [0, 1].
    push: velocity jumps, m/s.
    Returns {"survival": share, "commands": {name: {"survival", "vx", "vy", "wz", "height_error_m"}}}.
    """
    from wbvla.lmo.cpu_engine import CpuEngine

    n = len(NINE) * worlds
    env = CpuEngine(robot, config, n, seed, threads, training=False)
    env.flags[:] = np.repeat(np.array(list(NINE.values()), float), worlds, axis=0)
    env.height[:] = robot.nominal_height_m if height_m is None else height_m
    env.level[:] = arms
    alive, sums, steps = np.ones(n, bool), np.zeros((n, 4)), int(seconds / 0.02)
    for t in range(steps):
        _, fallen, _ = env.step(policy(env.observe()[0]))
        alive &= ~fallen
        if push:
            env.disturbance.push(env.qvel[:, :2], np.ones(n), replace(config, push_m_s=push, shove_n=0.0, shove_nm=0.0))
        if t >= steps // 5:
            v = env.in_heading_frame(env.qvel[:, :3])
            sums += np.stack([v[:, 0], v[:, 1], env.qvel[:, 5], np.abs(env.qpos[:, 2] - env.height)], axis=1)
    means = sums / (steps - steps // 5)
    rows = {}
    for i, name in enumerate(NINE):
        worlds_of = slice(i * worlds, (i + 1) * worlds)
        ok = alive[worlds_of]
        mean = means[worlds_of][ok].mean(0) if ok.any() else np.zeros(4)
        keys = ("vx", "vy", "wz", "height_error_m")
        rows[name] = {"survival": float(ok.mean()), **{k: round(float(x), 4) for k, x in zip(keys, mean)}}
    return {"survival": float(alive.mean()), "worlds": worlds, "seconds": seconds, "commands": rows}


@dataclass
class EvaluateLmo:
    """Score shipped or own legs: nine commands without assistance.

    Attributes:
        policy: folder with policy.onnx and contract.json; the shipped legs when left out.
        robot: whose legs.
        worlds: simulated robots for each of the nine commands.
        seconds: simulated time of each world, s.
        arms: amplitude of random arm motion, 0 to 1.
        push: largest jump of the base's velocity along each horizontal axis, m/s, every 2 to 6 s; 0 for none.
        height_m: commanded pelvis height, m; 0 is the robot's nominal one.
        json: file for the figures.
    """

    policy: str = ""
    robot: str = "g1"
    worlds: int = 64
    seconds: float = 10.0
    arms: float = 0.0
    push: float = 0.0
    height_m: float = 0.0
    json: str = ""


def run(cfg: EvaluateLmo) -> dict:
    """Print the table and return the figures."""
    from rich.console import Console
    from rich.table import Table

    from wbvla.lmo.command import ShapingConfig
    from wbvla.lmo.controller import load_policy, weights_folder
    from wbvla.lmo.odometry import OdometryConfig
    from wbvla.recipes.lmo import LmoConfig
    from wbvla.robots import get_robot

    robot = get_robot(cfg.robot)
    session, contract = load_policy(Path(cfg.policy) if cfg.policy else weights_folder(cfg.robot))
    infer = lambda obs: session.run(None, {"observation": obs})[0].astype(float)  # noqa: E731
    recipe = replace(
        LmoConfig(), shaping=ShapingConfig(**contract["shaping"]), odometry=OdometryConfig(**contract["odometry"]),
        terms=tuple(name for name, *_ in contract["observation"]), history=contract["history"]["frames"],
        action_scale_rad=contract["action_scale_rad"], lift_rad=contract["lift_rad"],
    )  # fmt: skip
    figures = nine_commands(infer, robot, recipe, cfg.worlds, cfg.seconds, cfg.arms, cfg.push, cfg.height_m or None)
    figures["policy"] = contract["policy_id"]
    table = Table("command", "survival", "vx m/s", "vy m/s", "wz rad/s", "height error m")
    for name, row in figures["commands"].items():
        table.add_row(name, *(f"{row[k]:.3f}" for k in ("survival", "vx", "vy", "wz", "height_error_m")))
    Console().print(table)
    if cfg.json:
        Path(cfg.json).write_text(json.dumps(figures, indent=2) + "\n")
    return figures
