"""Protocol `follow FILE`: track a recorded human command stream: forward, lateral and yaw velocity, and height.

In: Project Aria's closed-loop trajectory (head pose at 1 kHz), or a CSV with t_s, vx_m_s, vy_m_s, wz_rad_s, height_m.
A person is taller and faster than the robot: lengths are scaled by 0.75, and the stream is stretched in time until its
speeds fit the robot's (both written into the result).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.lmo.bench.cell import Cell, Measures, Row
from wbvla.lmo.bench.draw import CRUISE, plan
from wbvla.lmo.bench.metrics import in_frame, only
from wbvla.lmo.bench.play import Trace
from wbvla.lmo.command import STEP_S

WORLDS = 32
SCALE = 0.75  # G1 and X2, 1.32 m, over a person of 1.75 m
SMOOTH_S = 0.4  # low-pass of a walking head's bobbing
FASTEST = 0.98  # quantile of the speed that the stretch brings to cruise
PLAIN = ("t_s", "vx_m_s", "vy_m_s", "wz_rad_s", "height_m")
ARIA = ("tracking_timestamp_us", "tx_world_device", "ty_world_device", "tz_world_device", "qx_world_device",
        "qy_world_device", "qz_world_device", "qw_world_device", "angular_velocity_x_device",
        "angular_velocity_y_device", "angular_velocity_z_device")  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """Commands at 50 Hz, (T, 4), heights relative to nominal; and how the recording was scaled in length and time."""

    command: np.ndarray
    scale: float
    stretch: float


def read_stream(path: str | Path) -> Stream:
    """Read a recording. Raises ValueError with one line if it is none."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no recording at {path}: --file names a CSV (docs/lmo_bench.md)")
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        names = next((names for names in (PLAIN, ARIA) if set(names) <= set(header)), None)
        if names is None:
            raise ValueError(f"{path}: got columns {', '.join(header[:6])}, expected {', '.join(PLAIN)} or Aria's")
        columns = [header.index(name) for name in names]
        try:
            table = np.array([[float(row[c]) for c in columns] for row in rows])
        except (ValueError, IndexError):
            raise ValueError(f"{path}: got a row that is not numbers, expected {', '.join(names)}") from None
    if len(table) < 3 or not np.isfinite(table).all() or (np.diff(table[:, 0]) <= 0).any():
        raise ValueError(f"{path}: expected three or more rows of finite numbers with growing times")
    return plain_stream(table) if names is PLAIN else aria_stream(table)


def plain_stream(table: np.ndarray) -> Stream:
    """Sample commands (t, vx, vy, wz, height) at 50 Hz, unscaled. The first row's height is the nominal one."""
    t = np.arange(table[0, 0], table[-1, 0], STEP_S)
    command = np.column_stack([np.interp(t, table[:, 0], table[:, i]) for i in range(1, 5)])
    command[:, 3] -= command[0, 3]
    return Stream(command, 1.0, 1.0)


def aria_stream(table: np.ndarray) -> Stream:
    """Turn head poses into commands: see the module's text. The heading is the integral of the vertical turning rate.

    How the device sits on the head does not matter: the forward direction is the one in which the person walked, on
    average, relative to the integrated heading.
    """
    time = 1e-6 * (table[:, 0] - table[0, 0])
    quat, rate = table[:, [7, 4, 5, 6]], table[:, 8:11]
    up_rate = _turned(quat, rate)[:, 2]
    t = np.arange(0.0, time[-1], STEP_S)
    sample = lambda x: _smooth(np.interp(t, time, x))  # noqa: E731
    x, y, z = (SCALE * sample(table[:, i]) for i in (1, 2, 3))
    wz = sample(up_rate)
    heading = np.cumsum(wz) * STEP_S
    velocity = np.gradient(x, STEP_S) + 1j * np.gradient(y, STEP_S)
    ahead = np.angle((velocity * np.exp(-1j * heading) * np.abs(velocity)).sum())
    local = velocity * np.exp(-1j * (heading + ahead))
    command = np.column_stack([local.real, local.imag, wz, z - np.quantile(z, 0.95)])
    stretch = max(1.0, *(np.quantile(np.abs(command[:, i]), FASTEST) / CRUISE[i] for i in range(3)))
    long = np.arange(0.0, t[-1] * stretch, STEP_S)
    command = np.column_stack([np.interp(long / stretch, t, command[:, i]) for i in range(4)])
    command[:, :3] = np.clip(command[:, :3] / stretch, -CRUISE, CRUISE)
    return Stream(command, SCALE, float(stretch))


def cells(stream: Stream) -> list[Cell]:
    """Return the row."""
    count = len(stream.command)

    def draw(rng: np.random.Generator, s):
        command = stream.command.copy()
        command[:, 3] = np.clip(command[:, 3] + s.nominal_m, s.robot.height_range_m[0], s.nominal_m)
        return plan(rng, s, command)

    def measure(trace: Trace) -> Measures:
        return follow_errors(trace)

    return [Cell("follow", WORLDS, count * STEP_S, draw, measure)]


def follow_errors(trace: Trace) -> Measures:
    """Return RMS errors of one second means per axis, mean height error, and the final pose against the integral."""
    window = round(1.0 / STEP_S)
    smooth = lambda x: np.stack([_moving_mean(x[:, i], window) for i in range(x.shape[1])], axis=1)  # noqa: E731
    error = smooth(trace.velocity.astype(float)) - smooth(trace.command[..., :3].astype(float))
    rms = np.sqrt((error**2).mean(0))
    ideal = integral(trace.command[:, 0, :3].astype(float))
    got = in_frame(trace.pose[-1], trace.start) - ideal
    length = np.hypot(*trace.command[:, 0, :2].T.astype(float)).sum() * STEP_S
    ok = trace.survived
    names = ("follow_vx_rms_m_s", "follow_vy_rms_m_s", "follow_wz_rms_rad_s")
    return {name: only(ok, rms[:, i]) for i, name in enumerate(names)} | {
        "height_error_m": only(ok, np.abs(trace.height - trace.command[..., 3]).mean(0)),
        "end_position_error_m": only(ok, np.linalg.norm(got[:, :2], axis=1)),
        "end_yaw_error_rad": only(ok, np.abs((got[:, 2] + np.pi) % (2 * np.pi) - np.pi)),
        "path_m": only(ok, length),
    }


def integral(command: np.ndarray) -> np.ndarray:
    """Return the pose (3,) that velocities (T, 3) in the heading frame add up to."""
    heading = np.cumsum(command[:, 2]) * STEP_S
    moved = ((command[:, 0] + 1j * command[:, 1]) * np.exp(1j * heading)).sum() * STEP_S
    return np.array([moved.real, moved.imag, heading[-1]])


def figures(rows: list[Row]) -> dict[str, float | None]:
    """Return the headline figures."""
    row = rows[0]
    names = ("follow_vx_rms_m_s", "follow_vy_rms_m_s", "follow_wz_rms_rad_s", "end_position_error_m",
             "end_yaw_error_rad", "path_m")  # fmt: skip
    return {"survival_follow": row.mean("survival")} | {name: row.mean(name) for name in names}


def _turned(quat: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rotate vectors (T, 3) by unit quaternions (T, 4), w first."""
    w, u = quat[:, :1], quat[:, 1:]
    return v + 2 * np.cross(u, np.cross(u, v) + w * v)


def _moving_mean(x: np.ndarray, window: int) -> np.ndarray:
    """Return the mean over the last `window` rows of (T, ...), fewer at the start."""
    sums = np.cumsum(x, axis=0)
    sums[window:] = sums[window:] - np.cumsum(x, axis=0)[:-window]
    return sums / np.minimum(np.arange(1, len(x) + 1), window)[:, None]


def _smooth(x: np.ndarray) -> np.ndarray:
    """Average over a centred Hann window of `SMOOTH_S`; the ends are held."""
    half = round(SMOOTH_S / STEP_S)
    kernel = np.hanning(2 * half + 1)
    return np.convolve(np.pad(x, half, mode="edge"), kernel / kernel.sum(), mode="valid")
