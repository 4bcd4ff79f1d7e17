"""Policies without a model for the tests of HTTP serving; imports nothing heavy, their server runs as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from runtime_world import marching_chunk


class Slow:
    """A policy that thinks for `seconds`; answers the first number of the state, notes batches' sizes and steps."""

    def __init__(self, seconds: float = 0.0, steps: int = 20) -> None:
        self.seconds, self.steps, self.batches, self.denoised = seconds, steps, [], []

    def prepare(self, images, state, task, domain, steps, seed):
        self.denoised.append(steps)
        return float(state[0]), task

    def answer(self, prepared):
        self.batches.append(len(prepared))
        time.sleep(self.seconds)
        if any(task == "fail" for _, task in prepared):
            raise RuntimeError("no idea")
        shape = (self.steps, 1)
        return [np.full(shape, np.nan if task == "nan" else n) + np.arange(self.steps)[:, None] for n, task in prepared]


class March:
    """A policy that thinks for `seconds` and always answers one second of walking forward."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds

    def prepare(self, images, state, task, domain, steps, seed):
        assert list(images) == ["head"] and domain == 30

    def answer(self, prepared):
        time.sleep(self.seconds)
        return [marching_chunk()] * len(prepared)


def start_http_server(policy: str, port: int = 0) -> tuple[subprocess.Popen, str]:
    """Serve a policy of this module, such as "Slow(0.05)", in a process of its own; return it and its address."""
    code = (
        f"import sys, threading; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from http_world import March, Slow\nfrom wbvla.runtime.http.server import HttpServer\n"
        f"server = HttpServer({policy}, port={port})\nprint(server.address, flush=True)\n"
        "server.serve(threading.Event())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()
