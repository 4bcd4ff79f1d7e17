"""Protocol `stability`: how far the centre of mass sways while the arms work fast and the torso is pushed.

Table C of the public policies' measurements, for three heights and four pushes.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.bench.cell import Cell, Measures, Row
from wbvla.lmo.bench.draw import Setting, constant, plan, replayed_arms, steps_of, torso_pushes
from wbvla.lmo.bench.metrics import only, sway
from wbvla.lmo.bench.play import Trace

SETTLE_S, MEASURED_S = 3.0, 10.0
SPEED, AMPLITUDE = 2.0, 1.5
PUSHES_S = (0.0, 0.05, 0.1, 0.2)
HEIGHTS_M = {"stand": None, "squat 0.55": 0.55, "squat 0.45": 0.45}


def cells() -> list[Cell]:
    """Return the rows."""
    return [_cell(name, height, push) for name, height in HEIGHTS_M.items() for push in PUSHES_S]


def figures(rows: list[Row]) -> dict[str, float | None]:
    """Return the headline figures; those with pushes are at 0.2 s, the squat is 0.55 m."""
    by_name = {row.name: row for row in rows}
    out: dict[str, float | None] = {}
    for name, key in (("stand", "stand"), ("squat 0.55", "squat"), ("squat 0.45", "squat_045")):
        for push, suffix in ((0.0, ""), (0.2, "_push")):
            row = by_name.get(_name(name, push))
            out[f"com_sway_{key}{suffix}_m"] = row.mean("com_sway_m") if row else None
            out[f"survival_{key}{suffix}"] = row.mean("survival") if row else None
    return out


def _name(name: str, push_s: float) -> str:
    return f"{name}, push {push_s:g} s" if push_s else f"{name}, no push"


def _cell(name: str, height_m: float | None, push_s: float) -> Cell:
    seconds = SETTLE_S + MEASURED_S

    def draw(rng: np.random.Generator, s: Setting):
        command = constant(seconds, 0, 0, 0, s.nominal_m if height_m is None else height_m)
        out = plan(rng, s, command, replayed_arms(rng, s, len(command), SPEED, AMPLITUDE))
        if push_s:
            out.pushes = torso_pushes(rng, seconds, SETTLE_S, push_s)
        return out

    def measure(trace: Trace) -> Measures:
        start = steps_of(SETTLE_S)
        figures = {"com_sway_m": only(trace.survived, sway(trace.com[start:]))}
        if height_m is not None:
            figures["height_error_m"] = only(trace.survived, np.abs(trace.height[start:] - height_m).mean(0))
        return figures

    return Cell(_name(name, push_s), 32, seconds, draw, measure, needs_height=height_m is not None)
