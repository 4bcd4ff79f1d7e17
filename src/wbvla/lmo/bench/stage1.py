"""Protocol `stage1`: the tutorials' checklist after the first stage, with numbers: straight line, turn, squat."""

from __future__ import annotations

import numpy as np

from wbvla.lmo.bench.cell import Cell, Measures, Row
from wbvla.lmo.bench.draw import CRUISE, Setting, constant, plan, sequence
from wbvla.lmo.bench.metrics import in_frame, only
from wbvla.lmo.bench.play import Trace
from wbvla.lmo.command import STEP_S

WORLDS, SECONDS = 32, 10.0
SQUAT_BELOW_M = 0.14  # under the robot's nominal height
# What passes: every robot stands, and the means over robots stay within these.
LIMITS = {
    "straight line": {"distance_share": (0.7, 1.3), "aside_share": (0.0, 0.15), "heading_drift_rad": (0.0, 0.25)},
    "turn left": {"angle_share": (0.7, 1.3), "place_drift_m": (0.0, 0.5)},
    "turn right": {"angle_share": (0.7, 1.3), "place_drift_m": (0.0, 0.5)},
    "squat": {"low_error_m": (0.0, 0.03), "rise_error_m": (0.0, 0.03)},
}


def cells() -> list[Cell]:
    """Return the rows."""
    forward, yaw = CRUISE[0], CRUISE[2]
    return [
        Cell("straight line", WORLDS, SECONDS, lambda rng, s: _held(rng, s, forward, 0.0), _straight),
        Cell("turn left", WORLDS, SECONDS, lambda rng, s: _held(rng, s, 0.0, yaw), lambda trace: _turn(trace, 1.0)),
        Cell("turn right", WORLDS, SECONDS, lambda rng, s: _held(rng, s, 0.0, -yaw), lambda trace: _turn(trace, -1.0)),
        Cell("squat", WORLDS, SECONDS, _squat_plan, _squat, needs_height=True),
    ]


def figures(rows: list[Row]) -> dict[str, float | bool | None]:
    """Return the means that the limits are about, and `stage1_passed`."""
    out: dict[str, float | bool | None] = {}
    passed = len(rows) == len(LIMITS)
    for row in rows:
        passed &= row.survived == row.worlds
        for figure, (low, high) in LIMITS[row.name].items():
            value = row.mean(figure)
            out[f"{row.name.replace(' ', '_')}_{figure}"] = value
            passed &= value is not None and low <= value <= high
    return {"stage1_passed": passed} | out


def _held(rng: np.random.Generator, s: Setting, vx: float, wz: float):
    return plan(rng, s, constant(SECONDS, vx, 0.0, wz, s.nominal_m))


def _straight(trace: Trace) -> Measures:
    moved, ideal = in_frame(trace.pose[-1], trace.start), CRUISE[0] * SECONDS
    return {
        "distance_share": only(trace.survived, moved[:, 0] / ideal),
        "aside_share": only(trace.survived, np.abs(moved[:, 1]) / ideal),
        "heading_drift_rad": only(trace.survived, np.abs(moved[:, 2])),
    }


def _turn(trace: Trace, sign: float) -> Measures:
    moved = in_frame(trace.pose[-1], trace.start)
    return {
        "angle_share": only(trace.survived, sign * moved[:, 2] / (CRUISE[2] * SECONDS)),
        "place_drift_m": only(trace.survived, np.linalg.norm(moved[:, :2], axis=1)),
    }


def _squat_plan(rng: np.random.Generator, s: Setting):
    """Two seconds at the nominal height, four low, four high again."""
    low = s.robot.nominal_height_m - SQUAT_BELOW_M
    parts = [constant(t, 0, 0, 0, h) for t, h in ((2.0, s.nominal_m), (4.0, low), (4.0, s.nominal_m))]
    return plan(rng, s, sequence(*parts))


def _squat(trace: Trace) -> Measures:
    error = np.abs(trace.height - trace.command[..., 3])
    part = lambda a, b: error[round(a / STEP_S) : round(b / STEP_S)].mean(0)  # noqa: E731
    return {"low_error_m": only(trace.survived, part(4, 6)), "rise_error_m": only(trace.survived, part(8, 10))}
