"""Measure the runtime alone: what the server adds to the policy's own time on loopback, and the fast loop's lateness.

In: nothing. Out: JSON with milliseconds. Server and robot are two processes, as in use; the policy sleeps a known
time, so that everything above it is overhead.

    python benchmarks/runtime_latency.py --seconds 20 --json outputs/runtime_latency.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from wbvla.robots import get_robot
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.loop import FastLoop
from wbvla.runtime.wire import Request
from wbvla.types import Proprioception

SERVER = """
import sys, threading, time
import numpy as np
from wbvla.runtime.server import PolicyServer

class Sleeper:
    def infer(self, image, state, task):
        time.sleep(float(sys.argv[1]))
        return {"chunk": np.zeros((20, 20), np.float32)}

server = PolicyServer(Sleeper(), port=0)
print(server.address, flush=True)
server.serve(threading.Event())
"""


class Body:
    """A robot whose joints follow at once and whose camera gives a frame every 50 ms; the physics is left out."""

    def __init__(self, image_size: int) -> None:
        self.robot = get_robot("g1")
        self._q_rad = self.robot.array("default")
        self._image = np.random.default_rng(0).integers(0, 256, (image_size, image_size, 3)).astype(np.uint8)
        self._next_frame_s = 0.0

    def read(self):
        """Return an upright body."""
        return Proprioception(self._q_rad, np.zeros(29), np.zeros(3), np.array([0.0, 0.0, -1.0])), time.monotonic()

    def camera(self):
        """Return a frame every 50 ms."""
        now_s = time.monotonic()
        if now_s < self._next_frame_s:
            return None
        self._next_frame_s = now_s + 0.05
        return self._image, now_s

    def send(self, targets_rad, kp, kd) -> None:
        """Follow at once."""
        self._q_rad = targets_rad.copy()

    def close(self) -> None:
        """Nothing to release."""


def legs():
    """Return the shipped legs, or a standing pose where none are shipped, and which of the two."""
    from wbvla.lmo.controller import shipped_controller

    try:
        return shipped_controller("g1"), "shipped"
    except ValueError:
        pose = get_robot("g1").array("default")[:15]
        return type("Pose", (), {"step": lambda self, command, body: pose})(), "standing pose"


def percentiles(values_ms) -> dict[str, float]:
    """Return p50, p99 and max, rounded to microseconds."""
    return {name: round(float(np.percentile(values_ms, q)), 3) for name, q in (("p50", 50), ("p99", 99), ("max", 100))}


def overhead(address: str, image_size: int, questions: int) -> dict:
    """Ask one question after the other; overhead is the round trip less the policy's own time."""
    image = np.random.default_rng(0).integers(0, 256, (image_size, image_size, 3)).astype(np.uint8)
    state = get_robot("g1").array("default")
    state = np.resize(state, 68).astype(np.float32)
    extra_ms = []
    with PolicyClient(address, period_s=0.0) as client:
        for n in range(questions + 20):
            start_s = time.perf_counter()
            client.offer(Request(image, state, "push the cart", float(n)))
            answer = client.wait(5.0)
            if n >= 20:  # the first ones connect and warm up
                extra_ms.append(1e3 * (time.perf_counter() - start_s) - answer.server_time_ms)
    return percentiles(extra_ms)


def fast_loop(address: str, image_size: int, seconds: float) -> dict:
    """Run the fast loop against the server and report its lateness and work."""
    controller, which = legs()
    body = Body(image_size)
    with PolicyClient(address) as client:
        loop = FastLoop(body.robot, body, controller, client, "push the cart")
        report = loop.run(seconds)
    log = loop.log
    return {
        "legs": which,
        "ticks": report.ticks,
        "lateness_ms": percentiles(1e3 * log.late_s[: log.n]),
        "work_ms": percentiles(1e3 * log.work_s[: log.n]),
        "missed_deadlines": report.missed_deadlines,
        "chunk_share": round(report.mode_shares["chunk"], 4),
    }


def state_of_machine() -> dict:
    """Return what the numbers depend on."""
    return {
        "cpu_count": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> None:
    """Measure and print; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the fast loop's run")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--policy-ms", type=float, default=20.0, help="the stand-in policy's own time")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    command = [sys.executable, "-c", SERVER, str(args.policy_ms / 1e3)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        result = {"machine": state_of_machine(), "policy_ms": args.policy_ms}
        result["server_overhead_ms"] = {f"{s}px": overhead(address, s, args.questions) for s in (96, 224)}
        result["fast_loop"] = fast_loop(address, 224, args.seconds)
    finally:
        server.kill()
        server.wait()
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
