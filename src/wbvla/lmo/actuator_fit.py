"""Fit the network of the joints' drives to a log of a robot. In: an .npz. Out: wbvla.lmo.actuator.ActuatorNet, scored.

The log is what every humanoid's low-level interface reports: measured positions, velocities and torques, and the
targets it was sent, best an hour of random targets at random speeds, standing, hanging and walking.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from wbvla.lmo.actuator import ActuatorNet, joint_types
from wbvla.lmo.command import STEP_S

SIGNALS = ("q_rad", "dq_rad_s", "target_rad", "torque_nm")
MIN_S = 10.0
TRAINED = 0.8  # the rest, at the log's end, is held out: neighbouring samples are too alike to be drawn at random
HIDDEN = (32, 32)
STEPS, BATCH, LEARNING_RATE = 3000, 1024, 5e-3


@dataclass
class FitActuator:
    """Fit the network of the joints' drives to a robot's log.

    Attributes:
        log: an .npz with q_rad, dq_rad_s, target_rad, torque_nm, each (T, J) in the robot's joint order, and rate_hz.
        out: folder for actuator.safetensors and actuator.json; `wbvla lmo train` takes it.
        robot: whose joints.
        rate_hz: samples a second that the network sees, a multiple of 50 and at most the log's; the training's physics
            steps at it.
        history: samples that the network sees.
        seed: of weights and batches.
    """

    log: str
    out: str = "outputs/actuator"
    robot: str = "g1"
    rate_hz: int = 250
    history: int = 8
    seed: int = 0


@dataclass(frozen=True)
class ActuatorLog:
    """A robot's log.

    Attributes:
        q_rad, dq_rad_s, target_rad, torque_nm: (T, J), as measured or sent in the same instants.
        rate_hz: rows a second. joints: J names.
    """

    q_rad: np.ndarray
    dq_rad_s: np.ndarray
    target_rad: np.ndarray
    torque_nm: np.ndarray
    rate_hz: float
    joints: tuple[str, ...]

    def part(self, first: float, last: float) -> ActuatorLog:
        """Return the rows between two shares of the log's time."""
        rows = slice(round(first * len(self.q_rad)), round(last * len(self.q_rad)))
        return replace(self, **{name: getattr(self, name)[rows] for name in SIGNALS})

    def resampled(self, rate_hz: float) -> ActuatorLog:
        """Return the log at another rate, linear between rows."""
        time = np.arange(len(self.q_rad)) / self.rate_hz
        at = np.arange(int(time[-1] * rate_hz + 1e-6) + 1) / rate_hz
        line = lambda signal: np.column_stack([np.interp(at, time, joint) for joint in signal.T])  # noqa: E731
        return replace(self, rate_hz=rate_hz, **{name: line(getattr(self, name)) for name in SIGNALS})


def read_log(path: str | Path, joints: tuple[str, ...]) -> ActuatorLog:
    """Read a log of these joints. Raises ValueError in one line if it cannot be used."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            signals = {name: np.asarray(file[name], float) for name in SIGNALS}
            rate = float(file["rate_hz"])
    except FileNotFoundError:
        raise ValueError(f"log: got {path}, expected an .npz file; check the path") from None
    except (KeyError, ValueError, OSError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        need = f"an .npz with {', '.join(SIGNALS)} (T, J) and rate_hz"
        raise ValueError(f"{path}: got {' '.join(str(error).split())[:80]}, expected {need}; save it again") from None
    shape = signals["q_rad"].shape
    if len(shape) != 2 or shape[1] != len(joints) or any(s.shape != shape for s in signals.values()):
        got = ", ".join(f"{name} {s.shape}" for name, s in signals.items())
        raise ValueError(f"{path}: got {got}, expected (T, {len(joints)}) each; give every joint a column, in order")
    if not (math.isfinite(rate) and rate > 0 and (shape[0] - 1) / rate >= MIN_S):
        raise ValueError(f"{path}: got {shape[0]} rows at {rate} Hz, expected at least {MIN_S:.0f} s; record longer")
    for name, signal in signals.items():
        if not np.isfinite(signal).all():
            row, joint = np.argwhere(~np.isfinite(signal))[0]
            raise ValueError(f"{path}: got a {name} of {joints[joint]} that is none in row {row}, expected finite "
                             "numbers; cut that part out")  # fmt: skip
    if np.abs(signals["q_rad"]).max() > 2 * np.pi:
        joint = joints[int(np.abs(signals["q_rad"]).max(0).argmax())]
        raise ValueError(f"{path}: got {joint} at {np.abs(signals['q_rad']).max():.1f} rad, expected less than a turn; "
                         "are these degrees?")  # fmt: skip
    still = np.flatnonzero(np.ptp(signals["torque_nm"], axis=0) == 0)
    if len(still):
        raise ValueError(f"{path}: got the same torque of {joints[still[0]]} in every row, expected it to vary; move "
                         "that joint, and check that its torque is logged")  # fmt: skip
    return ActuatorLog(**signals, rate_hz=rate, joints=tuple(joints))


def fit_actuator(log: ActuatorLog, rate_hz: float = 250.0, history: int = 8, seed: int = 0) -> ActuatorNet:
    """Fit one small network a joint type by least squares (Adam, cosine decay).

    Raises:
        ValueError: `rate_hz` is no multiple of 50 or above the log's.
    """
    import torch

    if rate_hz <= 0 or (rate_hz * STEP_S) % 1:
        raise ValueError(f"rate_hz: got {rate_hz}, expected a multiple of 50, so that 20 ms are whole steps; try 250")
    if log.rate_hz < rate_hz:
        raise ValueError(f"rate_hz: got {rate_hz} for a log at {log.rate_hz} Hz, expected at most that; lower it")
    if history < 1:
        raise ValueError(f"history: got {history}, expected at least 1 sample; try 8")
    inputs, torque = _samples(log.resampled(rate_hz), history)
    types = joint_types(log.joints)
    generator = torch.Generator().manual_seed(seed)
    networks = []
    for kind in dict.fromkeys(types):
        columns = [i for i, other in enumerate(types) if other == kind]
        x = torch.from_numpy(np.concatenate([inputs[:, i] for i in columns]))
        y = torch.from_numpy(np.concatenate([torque[:, i] for i in columns]))
        networks.append(_fit_type(torch, x, y, generator))
    return ActuatorNet(
        log.joints, float(rate_hz), history,
        tuple(tuple(np.stack(parts) for parts in zip(*layer)) for layer in zip(*networks)),
    )  # fmt: skip


def _samples(log: ActuatorLog, history: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's inputs (N, J, 2 H) and torques (N, J), float32."""
    past = [
        np.lib.stride_tricks.sliding_window_view(signal.astype(np.float32), history, axis=0)[:, :, ::-1]
        for signal in (log.target_rad - log.q_rad, log.dq_rad_s)
    ]
    return np.concatenate(past, axis=2), log.torque_nm[history - 1 :].astype(np.float32)


def _fit_type(torch, x, y, generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (weight (in, out), bias (1, out)) of every layer. x: (N, 2 H); y: (N,)."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    y_mean, y_scale = y.mean(), y.std()
    x, y = (x - mean) / scale, (y - y_mean) / y_scale
    sizes = [x.shape[1], *HIDDEN, 1]
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        weight = torch.randn(fan_in, fan_out, generator=generator) / fan_in**0.5
        layers.append([weight.requires_grad_(), torch.zeros(1, fan_out, requires_grad=True)])
    optimizer = torch.optim.Adam([p for layer in layers for p in layer], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        h = x[rows]
        for weight, bias in layers[:-1]:
            h = torch.nn.functional.softsign(h @ weight + bias)
        loss = ((h @ layers[-1][0] + layers[-1][1])[:, 0] - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():  # the scales become part of the first and the last layer
        (first, first_bias), (last, last_bias) = layers[0], layers[-1]
        first_bias -= (mean / scale) @ first
        first /= scale[:, None]
        last *= y_scale
        last_bias.mul_(y_scale).add_(y_mean)
    return [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in layers]


def score(net: ActuatorNet, log: ActuatorLog) -> dict[str, dict[str, float]]:
    """Return {joint: {"r2", "rmse_nm", "std_nm"}} of predicted against logged torques; r2 is 0 where none varied."""
    inputs, torque = _samples(log.resampled(net.rate_hz), net.history)
    error = net.torque(inputs[..., : net.history], inputs[..., net.history :]) - torque
    rmse, std = np.sqrt((error**2).mean(0)), torque.std(0)
    r2 = np.where(std > 0, 1 - (rmse / np.maximum(std, 1e-9)) ** 2, 0.0)
    return {
        joint: {"r2": float(a), "rmse_nm": float(b), "std_nm": float(c)}
        for joint, a, b, c in zip(log.joints, r2, rmse, std)
    }


def run(cfg: FitActuator) -> dict:
    """Fit on the log's first 80 %, score on the rest, print the table, write the network. Returns the scores."""
    from rich.console import Console
    from rich.table import Table

    from wbvla.robots import get_robot

    log = read_log(cfg.log, get_robot(cfg.robot).joints)
    net = fit_actuator(log.part(0.0, TRAINED), cfg.rate_hz, cfg.history, cfg.seed)
    scores = score(net, log.part(TRAINED, 1.0))
    table = Table("joint", "held-out R2", "RMSE N m", "of a spread of N m")
    for joint, row in scores.items():
        table.add_row(joint, *(f"{row[k]:.3f}" for k in ("r2", "rmse_nm", "std_nm")))
    Console().print(table)
    origin = {"log": Path(cfg.log).name, "sha256": hashlib.sha256(Path(cfg.log).read_bytes()).hexdigest()}
    net.save(Path(cfg.out), {"robot": cfg.robot, "seed": cfg.seed, "held_out": scores, **origin})
    worst = min(scores, key=lambda joint: scores[joint]["r2"])
    print(f"wrote {cfg.out}: lowest R2 {scores[worst]['r2']:.3f} ({worst})")
    return scores
