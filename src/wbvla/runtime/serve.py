"""`wbvla serve`: put a policy behind a socket until Ctrl-C.

In: a checkpoint folder or "zero", an address. Out: answers to robots; the metrics when it ends.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.robots import get_robot
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction


@dataclass(frozen=True)
class Serve:
    """Settings of the policy server.

    Attributes:
        policy: checkpoint folder of `wbvla vla finetune`, or "zero" (stand still).
        host: address to listen on; beyond loopback `keys` is required.
        port: TCP port; 0 picks a free one.
        keys: folder made by `python -m wbvla.runtime.keys FOLDER`: CURVE keys and the allow-list.
        threads: CPU threads the policy may use.
        robot: whose standing pose "zero" answers.
    """

    policy: str
    host: str = "127.0.0.1"
    port: int = 5757
    keys: str | None = None
    threads: int = 1
    robot: str = "g1"


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


def load_policy(cfg: Serve):
    """Return the policy that a configuration names. Raises ValueError or FileNotFoundError with the fix."""
    if cfg.policy == "zero":
        return ZeroPolicy(cfg.robot)
    if not Path(cfg.policy).is_dir():
        raise ValueError(f"policy: got {cfg.policy!r}, expected 'zero' or a folder of `wbvla vla finetune`")
    try:
        import torch
    except ImportError:
        raise ValueError("policy: a checkpoint needs PyTorch; install the extra: pip install 'wbvla[train]'") from None

    from wbvla.vla.policy import VlaPolicy

    torch.set_num_threads(cfg.threads)
    return VlaPolicy(cfg.policy)


def run(cfg: Serve) -> dict[str, float]:
    """Serve until SIGINT or SIGTERM and return the metrics. Raises ValueError on a configuration that cannot serve."""
    from wbvla.runtime.server import PolicyServer
    from wbvla.runtime.signals import stop_on_signals

    if cfg.threads < 1:
        raise ValueError(f"threads: got {cfg.threads}, expected at least 1")
    if not 0 <= cfg.port <= 65535:  # ZeroMQ would take it modulo 65536
        raise ValueError(f"port: got {cfg.port}, expected 0 to 65535")
    server = PolicyServer(load_policy(cfg), cfg.host, cfg.port, cfg.keys)
    stop = threading.Event()
    with stop_on_signals(stop):
        print(f"serving {cfg.policy} on {server.address} (Ctrl-C ends)", flush=True)
        server.serve(stop)
    metrics = server.metrics()
    print("  ".join(f"{name} {value:.6g}" for name, value in metrics.items()), flush=True)
    return metrics
