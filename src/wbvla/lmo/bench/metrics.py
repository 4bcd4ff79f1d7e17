"""Figures from traces, as pure functions: a `Trace` in; one number a world out, NaN where it has no meaning."""

from __future__ import annotations

import math

import numpy as np

from wbvla.lmo.bench.play import Trace
from wbvla.lmo.command import STEP_S

WINDOW_S = 1.0  # velocities are averaged over a second: a stride's own swaying is no tracking error
SETTLED_S = 1.5  # a command counts once it has been the same for so long
CONTACT_N = 20.0
LANDING_STEPS = 3  # the first 60 ms after a foot touches down


def sway(com: np.ndarray) -> np.ndarray:
    """Return sqrt(mean |c - mean c|^2) of horizontal CoM paths (T, n, 2), m, shape (n,): WholeBodyVLA's CoMS."""
    return np.sqrt(((com - com.mean(0)) ** 2).sum(2).mean(0))


def in_frame(pose: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Express poses (n, 3) in the heading frames of `origin` (n, 3); the yaw difference is not wrapped."""
    d = pose - origin
    c, s = np.cos(origin[:, 2]), np.sin(origin[:, 2])
    return np.column_stack([c * d[:, 0] + s * d[:, 1], -s * d[:, 0] + c * d[:, 1], d[:, 2]])


def steady(trace: Trace, from_s: float, to_s: float | None = None) -> np.ndarray:
    """Return mean forward, lateral and yaw velocity between two times, (n, 3)."""
    return trace.velocity[_at(from_s) : None if to_s is None else _at(to_s)].mean(0)


def only(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (n,) with NaN outside the mask."""
    return np.where(mask, values, np.nan)


def tracking_errors(trace: Trace) -> np.ndarray:
    """Return mean |v - command| per axis and mean |height - command|, (n, 4), over the settled steps before a fall.

    v is the mean over the last second, and a step counts once its command has not changed for 1.5 s. NaN where a
    world has no such step.
    """
    window, settled = _at(WINDOW_S), _at(SETTLED_S)
    sums = np.cumsum(trace.velocity.astype(float), axis=0)
    mean = sums.copy()
    mean[window:] -= sums[:-window]
    mean /= window
    changed = np.ones(trace.alive.shape, bool)
    changed[1:] = (trace.command[1:] != trace.command[:-1]).any(2)
    step = np.arange(len(changed))[:, None]
    since = step - np.maximum.accumulate(np.where(changed, step, 0), axis=0)
    counts = (since >= settled) & trace.alive
    error = np.abs(np.concatenate([mean, trace.height[..., None]], axis=2) - trace.command)
    total, number = (error * counts[..., None]).sum(0), counts.sum(0)[:, None]
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def wear(trace: Trace) -> dict[str, np.ndarray]:
    """Return what every row reports of torque, feet, jitter and energy, (n,) each, over the steps before a fall.

    torque_p95: 95th percentile over steps of the largest torque over limit among legs and waist.
    torque_above_95: share of steps in which one of them is above 95 % of its limit.
    foot_impact: 95th percentile of the landings' peak ground force, in robot weights (a landing: 60 ms).
    foot_slip_m_s: mean horizontal speed of feet that carry more than 20 N.
    jitter_rad: RMS second difference of the targets. power_w: mean of the sum of |torque x speed|.
    """
    n, alive = trace.alive.shape[1], trace.alive
    out = {k: np.full(n, np.nan) for k in ("torque_p95", "torque_above_95", "foot_impact", "foot_slip_m_s")}
    peak = trace.foot_force.copy()
    for k in range(1, LANDING_STEPS):
        peak[:-k] = np.maximum(peak[:-k], trace.foot_force[k:])
    contact = trace.foot_force > CONTACT_N
    landing = np.zeros_like(contact)
    landing[2:] = contact[2:] & ~contact[1:-1] & ~contact[:-2]
    for i in range(n):
        steps = int(alive[:, i].sum())
        if steps == 0:
            continue
        torque = trace.torque[:steps, i]
        out["torque_p95"][i], out["torque_above_95"][i] = np.percentile(torque, 95), (torque > 0.95).mean()
        landings = peak[:steps, i][landing[:steps, i]]
        if len(landings):
            out["foot_impact"][i] = np.percentile(landings, 95) / trace.weight_n
        if contact[:steps, i].any():
            out["foot_slip_m_s"][i] = trace.foot_speed[:steps, i][contact[:steps, i]].mean()
    counts = np.maximum(alive.sum(0), 1)
    out["jitter_rad"] = np.sqrt((trace.jitter.astype(float) ** 2 * alive).sum(0) / counts)
    out["power_w"] = (trace.power.astype(float) * alive).sum(0) / counts
    return out


def common(trace: Trace) -> dict[str, np.ndarray]:
    """Return the figures that every row of every protocol has, (n,) each."""
    errors = tracking_errors(trace)
    names = ("error_vx_m_s", "error_vy_m_s", "error_wz_rad_s", "height_error_m")
    figures = {name: errors[:, i] for i, name in enumerate(names)}
    return {"survival": trace.survived.astype(float), **figures, **wear(trace)}


def interval(successes: int, n: int, z: float = 1.645) -> tuple[float, float]:
    """Return the 90 % Wilson interval of a rate."""
    p, scale = successes / n, 1 + z * z / n
    centre, half = (p + z * z / (2 * n)) / scale, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def _at(seconds: float) -> int:
    return round(seconds / STEP_S)
