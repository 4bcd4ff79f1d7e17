"""`wbvla serve`: put a policy behind a socket until Ctrl-C.

In: a checkpoint folder or "zero", an address. Out: answers to robots, over ZeroMQ or HTTP; the metrics when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wbvla.robots import get_robot
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction


@dataclass(frozen=True)
class Serve:
    """Settings of the policy server.

    Attributes:
        policy: checkpoint folder of `wbvla vla finetune`, with `http` also of X-VLA, or "zero" (stand still).
        host: address to listen on; beyond loopback `keys`, or with `http` a `token`, is required.
        port: TCP port; 0 picks a free one.
        keys: folder made by `python -m wbvla.runtime.keys FOLDER`: CURVE keys and the allow-list.
        threads: CPU threads the policy may use.
        robot: whose standing pose "zero" answers.
        http: answer `POST /act` instead of ZeroMQ, see docs/xvla.md.
        token: with `http`, file that holds the word clients must show.
        steps: denoising steps of an X-VLA where a request names none; 10 when left out.
        device: where an X-VLA computes: cpu or cuda.
        dtype: in which numbers an X-VLA computes.
    """

    policy: str
    host: str = "127.0.0.1"
    port: int = 5757
    keys: str | None = None
    threads: int = 1
    robot: str = "g1"
    http: bool = False
    token: str | None = None
    steps: int | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"


class ZeroPolicy:
    """Answers every observation with one second of standing at the nominal height, arms at their default."""

    def __init__(self, robot_name: str) -> None:
        robot = get_robot(robot_name)
        arms = ArmTarget(robot.array("default")[robot.n_lmo : robot.n_lmo + 14])
        action = WholeBodyAction(arms, LocoCommand(height_m=robot.nominal_height_m))
        self._chunk = np.tile(action.to_vector(), (20, 1))

    def infer(self, image: np.ndarray, state: np.ndarray, task: str) -> dict:
        """Return {"chunk": (20, 20)}."""
        return {"chunk": self._chunk}

    def prepare(self, *_: object) -> None:
        """Nothing to prepare."""

    def answer(self, prepared: Sequence[None]) -> list[np.ndarray]:
        """Return (20, 20) for each."""
        return [self._chunk] * len(prepared)


def load_policy(cfg: Serve):
    """Return the policy that a configuration names. Raises ValueError or FileNotFoundError with the fix."""
    if cfg.policy == "zero":
        return ZeroPolicy(cfg.robot)
    if not Path(cfg.policy).is_dir():
        raise ValueError(f"policy: got {cfg.policy!r}, expected 'zero' or a checkpoint folder")
    try:
        import torch
    except ImportError:
        raise ValueError("policy: a checkpoint needs PyTorch; install the extra: pip install 'wbvla[train]'") from None

    from wbvla.device import get_device
    from wbvla.vla.policy import VlaPolicy
    from wbvla.xvla.checkpoint import is_xvla
    from wbvla.xvla.checkpoint import load_model as load_xvla
    from wbvla.xvla.policy import XvlaPolicy

    torch.set_num_threads(cfg.threads)
    if not is_xvla(cfg.policy):
        given = (cfg.device, cfg.dtype, cfg.steps)
        if given != ("cpu", "float32", None):
            got = f"device, dtype, steps: got {', '.join(map(str, given))}"
            raise ValueError(f"{got}; leave them out for {cfg.policy}, which is no X-VLA")
        return VlaPolicy(cfg.policy)
    if not cfg.http:
        raise ValueError(f"policy: {cfg.policy} is an X-VLA checkpoint, which is served with --http")
    device = get_device(cfg.device)  # before the weights are read
    return XvlaPolicy(load_xvla(cfg.policy).to(device), cfg.dtype)


def make_server(cfg: Serve):
    """Load the policy and listen. Raises ValueError or FileNotFoundError with the fix."""
    if not cfg.http:
        if cfg.token is not None:
            raise ValueError("token: only goes with --http; ZeroMQ takes --keys")
        if cfg.steps is not None:
            raise ValueError("steps: only go with --http; a policy behind ZeroMQ denoises nothing")
        from wbvla.runtime.server import PolicyServer

        return PolicyServer(load_policy(cfg), cfg.host, cfg.port, cfg.keys)
    if cfg.keys is not None:
        raise ValueError("keys: only go with ZeroMQ; --http takes --token")
    from wbvla.runtime.http.server import STEPS, HttpServer

    token = Path(cfg.token).read_text().strip() if cfg.token is not None else None
    steps = STEPS if cfg.steps is None else cfg.steps
    return HttpServer(load_policy(cfg), cfg.host, cfg.port, token, steps)


def run(cfg: Serve) -> dict[str, float]:
    """Serve until SIGINT or SIGTERM and return the metrics. Raises ValueError on a configuration that cannot serve."""
    from wbvla.runtime.signals import stop_on_signals

    if cfg.threads < 1:
        raise ValueError(f"threads: got {cfg.threads}, expected at least 1")
    if not 0 <= cfg.port <= 65535:  # ZeroMQ would take it modulo 65536
        raise ValueError(f"port: got {cfg.port}, expected 0 to 65535")
    server = make_server(cfg)
    stop = threading.Event()
    with stop_on_signals(stop):
        print(f"serving {cfg.policy} on {server.address} (Ctrl-C ends)", flush=True)
        server.serve(stop)
    metrics = server.metrics()
    print("  ".join(f"{name} {value:.6g}" for name, value in metrics.items()), flush=True)
    return metrics
