"""Requests that wait together are answered together.

In: prepared requests from many threads. Out: futures, filled by the one thread that runs the policy.
Nobody waits for a batch to fill up: while the policy thinks the next batch gathers by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

MAX_BATCH, MAX_WAITING = 16, 64


class ChunkPolicy(Protocol):
    """What the server needs of a policy; see wbvla.xvla.policy."""

    def prepare(
        self,
        images: Mapping[str | int, np.ndarray],
        state: np.ndarray,
        task: str,
        domain: int | None,
        steps: int,
        seed: int | None,
    ) -> Any:
        """Check one observation and bring it to the model's form; called from many threads. Raises ValueError."""

    def answer(self, prepared: Sequence[Any]) -> list[np.ndarray]:
        """Return a chunk (T, A) in the dataset's units for each, as far as possible in one forward pass."""


class Busy(Exception):
    """Too many requests wait already."""


class Batcher:
    """A waiting line and the times that requests spent in it.

    Attributes:
        counts: requests answered, failed and dropped (their client left), batches.
        latency_s, overhead_s: of the last 1000 answers: time since `submit`, and that less the policy's own time.
    """

    def __init__(self, policy: ChunkPolicy) -> None:
        self._policy = policy
        self._waiting: deque[tuple[Any, Future, float]] = deque()
        self._arrived = threading.Condition()
        self.counts = {"answered": 0, "failed": 0, "dropped": 0, "batches": 0}
        self.latency_s: deque[float] = deque(maxlen=1000)
        self.overhead_s: deque[float] = deque(maxlen=1000)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._waiting)

    def submit(self, prepared: Any) -> Future:
        """Queue what the policy prepared; the future holds its chunk (T, A). Raises Busy."""
        future: Future = Future()
        with self._arrived:
            if len(self._waiting) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} requests wait already, ask again later")
            self._waiting.append((prepared, future, time.monotonic()))
            self._arrived.notify()
        return future

    def work(self, timeout_s: float) -> None:
        """Answer those that wait, at most MAX_BATCH; return after `timeout_s` if nobody comes."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting, timeout_s)
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        # a client that gave up has asked anew by now: its old question is not worth a pass through the network
        wanted = [request for request in batch if request[1].set_running_or_notify_cancel()]
        self.counts["dropped"] += len(batch) - len(wanted)
        if wanted:
            self._answer(wanted)

    def close(self) -> None:
        """Refuse those that still wait."""
        with self._arrived:
            while self._waiting:
                _, future, _ = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_exception(Busy("the server is stopping"))

    def _answer(self, batch: list[tuple[Any, Future, float]]) -> None:
        start_s = time.monotonic()
        try:
            chunks = self._policy.answer([prepared for prepared, _, _ in batch])
        except Exception as error:  # a policy's fault must reach the clients as a message, and must not end the server
            self.counts["failed"] += len(batch)
            for _, future, _ in batch:
                future.set_exception(error)
            return
        end_s = time.monotonic()
        self.counts["batches"] += 1
        for (_, future, came_s), chunk in zip(batch, chunks):
            if not np.isfinite(chunk).all():  # a robot's absurd state; the others in the batch go on
                self.counts["failed"] += 1
                future.set_exception(RuntimeError("the policy gave numbers that are not finite"))
                continue
            self.counts["answered"] += 1
            self.latency_s.append(end_s - came_s)
            self.overhead_s.append(start_s - came_s)
            future.set_result(chunk)
