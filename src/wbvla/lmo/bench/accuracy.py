"""Protocol `accuracy`: steady speed per axis, pose after a five second command, and standing heights.

Tables A and B of the public policies' measurements (docs/lmo_bench.md), and the heights that they do not have.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.bench.cell import Cell, Measures, Row, pooled
from wbvla.lmo.bench.draw import Setting, constant, plan, sequence
from wbvla.lmo.bench.metrics import in_frame, only, steady
from wbvla.lmo.bench.play import Trace
from wbvla.lmo.command import STEP_S

AXES = ("forward", "lateral", "yaw")
UNITS = ("vx_m_s", "vy_m_s", "wz_rad_s")
SPEEDS = {  # the first eight are table A; the rest complete cruise speed in both directions
    "forward": (0.3, -0.3, 0.5, -0.5),
    "lateral": (0.3, -0.3),
    "yaw": (0.3, -0.3, 0.6, -0.6, 0.5, -0.5),
}
HEIGHTS_M = (0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.74)
REST_S, MOVE_S, END_S = 2.0, 5.0, 10.0
SPEED_B = 0.3
NAMES_B = {"forward": "forward", "lateral": "lateral", "yaw": "turn"}


def cells() -> list[Cell]:
    """Return the rows."""
    rows = [_speed(axis, v) for axis, speeds in SPEEDS.items() for v in speeds]
    rows += [_reach(axis, sign) for axis in AXES for sign in (1, -1)]
    return rows + [_height(h) for h in HEIGHTS_M]


def figures(rows: list[Row]) -> dict[str, float | None]:
    """Return the headline figures."""
    by_name = {row.name: row for row in rows}
    out: dict[str, float | None] = {}
    for axis in AXES:
        both = [by_name[f"reach {axis} {sign:+d}"] for sign in (1, -1)]
        name = NAMES_B[axis]
        out[f"{name}_position_error_m"] = pooled(both, "position_error_m")
        out[f"{name}_yaw_error_rad"] = pooled(both, "yaw_error_rad")
        out[f"{name}_rest_drift_m"] = pooled(both, "rest_drift_m")
        out[f"{name}_rest_drift_rad"] = pooled(both, "rest_drift_rad")
    for axis, unit in zip(AXES, UNITS):
        means = {v: by_name[f"speed {axis} {v:+.1f}"].mean(f"steady_{unit}") for v in SPEEDS[axis]}
        errors = [None if mean is None else abs(mean - v) / abs(v) for v, mean in means.items()]
        out[f"tracking_error_{axis}"] = None if None in errors else max(errors)
    heights = [by_name[f"height {h:.2f}"].mean("height_error_m") for h in HEIGHTS_M if f"height {h:.2f}" in by_name]
    out["height_error_m"] = max(heights) if heights and None not in heights else None
    return out


def _command(axis: str, v: float) -> list[float]:
    return [v if a == axis else 0.0 for a in AXES]


def _speed(axis: str, v: float) -> Cell:
    """Ten seconds of one command from standing; mean of 4-10 s."""

    def measure(trace: Trace) -> Measures:
        mean = steady(trace, 4.0, 10.0)
        return {f"steady_{k}": only(trace.survived, mean[:, i]) for i, k in enumerate(UNITS)}

    draw = lambda rng, s: plan(rng, s, constant(10.0, *_command(axis, v), s.nominal_m))  # noqa: E731
    return Cell(f"speed {axis} {v:+.1f}", 16, 10.0, draw, measure)


def _reach(axis: str, sign: int) -> Cell:
    """Two seconds of rest, five of 0.3, ten of rest: final pose against the ideal integral, 1.5 m or 1.5 rad."""
    ideal = np.array(_command(axis, sign * SPEED_B * MOVE_S))

    def draw(rng: np.random.Generator, s: Setting):
        rest = lambda seconds: constant(seconds, 0, 0, 0, s.nominal_m)  # noqa: E731
        move = constant(MOVE_S, *_command(axis, sign * SPEED_B), s.nominal_m)
        return plan(rng, s, sequence(rest(REST_S), move, rest(END_S)))

    def measure(trace: Trace) -> Measures:
        begin, stop = (trace.pose[round(t / STEP_S) - 1] for t in (REST_S, REST_S + MOVE_S))
        return reach_errors(begin, stop, trace.pose[-1], ideal, trace.survived)

    return Cell(f"reach {axis} {sign:+d}", 200, REST_S + MOVE_S + END_S, draw, measure)


def reach_errors(begin: np.ndarray, stop: np.ndarray, end: np.ndarray, ideal: np.ndarray, ok: np.ndarray) -> Measures:
    """Return distance and angle between the final pose and the ideal one, and the drift since the command ended.

    begin, stop, end: (n, 3) poses at the command's start and end and at the episode's end; ideal: (3,) in the heading
    frame at the start. Yaw differences are wrapped to pi.
    """
    got = in_frame(end, begin) - ideal
    drift = in_frame(end, stop)
    angle = lambda a: np.abs((a + np.pi) % (2 * np.pi) - np.pi)  # noqa: E731
    return {
        "position_error_m": only(ok, np.linalg.norm(got[:, :2], axis=1)),
        "yaw_error_rad": only(ok, angle(got[:, 2])),
        "rest_drift_m": only(ok, np.linalg.norm(drift[:, :2], axis=1)),
        "rest_drift_rad": only(ok, angle(drift[:, 2])),
    }


def _height(height_m: float) -> Cell:
    """Ten seconds at one height, standing; mean |height - command| of 4-10 s."""

    def measure(trace: Trace) -> Measures:
        error = np.abs(trace.height[round(4 / STEP_S) :] - height_m).mean(0)
        return {"height_error_m": only(trace.survived, error)}

    draw = lambda rng, s: plan(rng, s, constant(10.0, 0, 0, 0, height_m))  # noqa: E731
    return Cell(f"height {height_m:.2f}", 16, 10.0, draw, measure, needs_height=True, height_m=height_m)
