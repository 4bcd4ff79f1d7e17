"""Protocol `robust`: who is still standing.

Table D of the public policies' measurements, then harder rows over 1000 seeds: flags redrawn and reversed, heights
changing on the way, arms moving; nominal, randomised, loaded, and taking over from any standing pose.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wbvla.lmo.bench.cell import Cell, Row
from wbvla.lmo.bench.draw import (
    Plan,
    Setting,
    constant,
    flag_commands,
    jumps,
    plan,
    random_arms,
    sensor_noise,
    standing_pose,
    steps_of,
)  # fmt: skip
from wbvla.lmo.bench.model import Body

JUMP_TIMES_S = (4.0, 8.0, 12.0, 16.0)
JUMPS_M_S = (0.0, 0.5, 1.0)
SEEDS = 1000
NOMINAL_S, HARD_S, HANDOVER_S, REST_S = 60.0, 20.0, 10.0, 2.0
MOVING_KG, HELD_KG = 2.5, 5.0


def cells() -> list[Cell]:
    """Return the rows."""
    rows = [_walk(size) for size in JUMPS_M_S]
    return rows + [
        Cell("nominal 60 s", SEEDS, NOMINAL_S, lambda rng, s: _flags(rng, s, NOMINAL_S)),
        Cell("randomised, jumps 0.5 m/s", SEEDS, HARD_S, _randomised),
        Cell("hands 2 x 2.5 kg moving", SEEDS, HARD_S, lambda rng, s: _loaded(rng, s, MOVING_KG, moving=True)),
        Cell("hands 2 x 5 kg held", SEEDS, HARD_S, lambda rng, s: _loaded(rng, s, HELD_KG, moving=False)),
        Cell("hand-over from any standing pose", SEEDS, HANDOVER_S, _handover),
    ]


def figures(rows: list[Row]) -> dict[str, float | None]:
    """Return the headline figures; `survival_loaded` is the lower of the two loaded rows."""
    names = ("walk_jump_00", "walk_jump_05", "walk_jump_10", "nominal", "randomised", "loaded_moving", "loaded_held",
             "handover")  # fmt: skip
    out: dict[str, float | None] = {f"survival_{name}": row.mean("survival") for name, row in zip(names, rows)}
    out["survival_loaded"] = min(out["survival_loaded_moving"], out["survival_loaded_held"])
    return out


def _walk(size_m_s: float) -> Cell:
    """0.3 m/s forward for 20 s, arms random, friction 0.4-1.2, torso +-3 kg, a jump every 4 s."""

    def draw(rng: np.random.Generator, s: Setting) -> Plan:
        command = constant(HARD_S, 0.3, 0, 0, s.nominal_m)
        out = plan(rng, s, command, random_arms(rng, s, len(command)))
        out.body = Body(friction=rng.uniform(0.4, 1.2), torso_kg=rng.uniform(-3, 3))
        out.jumps = jumps(rng, JUMP_TIMES_S, size_m_s)
        return out

    return Cell(f"walk 0.3 m/s, jumps {size_m_s:.1f} m/s", 32, HARD_S, draw)


def _flags(rng: np.random.Generator, s: Setting, seconds: float, rest_s: float = 0.0) -> Plan:
    command = flag_commands(rng, s, seconds, rest_s)
    return plan(rng, s, command, random_arms(rng, s, len(command)))


def _randomised(rng: np.random.Generator, s: Setting) -> Plan:
    """Redrawn flags; robot, floor, sensors and delay drawn too; jumps of 0.5 m/s every 4 s."""
    out, joints = _flags(rng, s, HARD_S), len(s.robot.joints)
    out.body = Body(
        friction=rng.uniform(0.4, 1.2), torso_kg=rng.uniform(-3, 3), torso_shift_m=rng.uniform(-0.03, 0.03, 3),
        hands_kg=tuple(rng.uniform(0, 1.5, 2)), link_mass=rng.uniform(0.9, 1.1, len(s.robot.bodies)),
        kp=rng.uniform(0.85, 1.15, joints), kd=rng.uniform(0.85, 1.15, joints),
    )  # fmt: skip
    out.delayed = bool(rng.random() < 0.5)
    out.jumps = jumps(rng, JUMP_TIMES_S, 0.5)
    out.noise = sensor_noise(rng, steps_of(HARD_S), joints)
    return out


def _loaded(rng: np.random.Generator, s: Setting, load_kg: float, moving: bool) -> Plan:
    """Redrawn flags with a load in each hand; the arms move at random, or hold the default pose."""
    out = _flags(rng, s, HARD_S)
    if not moving:
        out.arms[:] = s.default[s.arms]
    out.body = Body(hands_kg=(load_kg, load_kg))
    return out


def _handover(rng: np.random.Generator, s: Setting) -> Plan:
    """Start in any standing pose, stand for 2 s with the arms held, then redrawn flags and random arms."""
    q, quat, qvel = standing_pose(rng, s)
    out, rest = _flags(rng, s, HANDOVER_S, rest_s=REST_S), steps_of(REST_S)
    arms_there = replace(s, default=np.concatenate([s.default[: s.robot.n_lmo], q[s.arms]]))
    out.arms = np.concatenate([np.tile(q[s.arms], (rest, 1)), random_arms(rng, arms_there, len(out.command) - rest)])
    out.q, out.quat, out.qvel = q, quat, qvel
    return out
