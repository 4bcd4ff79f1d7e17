"""Stand-ins for the runtime's tests: a robot without physics, policies that march, and server processes to kill."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np

from wbvla.robots import get_robot
from wbvla.types import FLAGS, HEIGHT, Proprioception

MARCH = """
import sys, threading, time
import numpy as np
from wbvla.runtime.server import PolicyServer

class March:
    def infer(self, image, state, task):
        time.sleep(0.02)
        chunk = np.zeros((20, 20), np.float32)
        chunk[:, 16], chunk[:, 19] = 1, 0.7
        return {"chunk": chunk}

server = PolicyServer(March(), port=int(sys.argv[1]))
print(server.address, flush=True)
server.serve(threading.Event())
"""


@contextmanager
def running(server):
    """Let a server answer in a thread; it must end within 8 s of being told to."""
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(8)
        assert not thread.is_alive()


def start_marching_server(port: int = 0) -> tuple[subprocess.Popen, str]:
    """Start a server process whose policy always walks forward; return it and its address."""
    process = subprocess.Popen([sys.executable, "-c", MARCH, str(port)], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


class StillRobot:
    """An adapter without physics: joints follow their targets at once. Its sensors and camera can be broken."""

    def __init__(self, clock=None) -> None:
        self.robot = get_robot("g1")
        self.q_rad = self.robot.array("default")
        self.now = clock.now if clock else time.monotonic
        self.sensor_delay_s = 0.0
        self.sent: list[tuple[np.ndarray, np.ndarray]] = []
        self._image = np.zeros((96, 96, 3), np.uint8)
        self._next_frame_s = 0.0

    def read(self):
        body = Proprioception(self.q_rad, np.zeros(29), np.zeros(3), np.array([0.0, 0.0, -1.0]))
        return body, self.now() - self.sensor_delay_s

    def camera(self):
        if self.now() < self._next_frame_s:
            return None
        self._next_frame_s = self.now() + 0.05
        return self._image, self.now() - 0.05

    def send(self, targets_rad, kp, kd) -> None:
        self.q_rad = targets_rad.copy()
        self.sent.append((targets_rad.copy(), kp.copy()))

    def close(self) -> None:
        pass


class Legs:
    """A controller that keeps the default pose (a body with physics then falls) and writes down its commands."""

    def __init__(self) -> None:
        self.pose_rad = get_robot("g1").array("default")[:15]
        self.reset()

    def reset(self):
        self.commands = []

    def step(self, command, body):
        self.commands.append(command)
        return self.pose_rad


def marching_chunk(height_m: float = 0.7) -> np.ndarray:
    """One second of walking forward, (20, 20)."""
    chunk = np.zeros((20, 20), np.float32)
    chunk[:, FLAGS.start], chunk[:, HEIGHT] = 1, height_m
    return chunk
