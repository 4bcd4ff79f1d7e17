"""A policy without a model for the tests of HTTP serving; imports nothing heavy, its server runs as a process."""

from __future__ import annotations

import time

import numpy as np


class Slow:
    """A policy that thinks for `seconds`; answers the first number of the state, notes the sizes of its batches."""

    def __init__(self, seconds: float = 0.0, steps: int = 20) -> None:
        self.seconds, self.steps, self.batches = seconds, steps, []

    def prepare(self, images, state, task, domain, steps, seed):
        return float(state[0]), task

    def answer(self, prepared):
        self.batches.append(len(prepared))
        time.sleep(self.seconds)
        if any(task == "fail" for _, task in prepared):
            raise RuntimeError("no idea")
        shape = (self.steps, 1)
        return [np.full(shape, np.nan if task == "nan" else n) + np.arange(self.steps)[:, None] for n, task in prepared]
