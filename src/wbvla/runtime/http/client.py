"""The robot's side of `/act`: the next chunk is asked for while the current one plays.

In: the newest observation each turn of a control loop, which never waits here. Out: the action for this moment, or None
when there is none. A chunk is played by age: entry i belongs to the moment i / fps after its observation, so entries
that went by while the policy thought are skipped. No action outlives its chunk: what to do then is the robot's matter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from wbvla.runtime.chunk import check_rate
from wbvla.runtime.http.asker import Asker
from wbvla.runtime.http.wire import Query


class ChunkClient:
    """Asks an HTTP policy server in a background thread; use it as a context manager.

    Args:
        url: of the server, such as "http://127.0.0.1:8000"; "http://robot:TOKEN@host:8000" shows a token.
        domain_id: id of this robot in the policy's table; None for policies of a single robot.
        fps: entries of a chunk per second, those of the dataset that the policy learned from.
        replan_steps: a new chunk is asked for when this many entries of the current one have gone by.
        steps: denoising steps; None = the server's.
        timeout_s: after this long without an answer the newest observation is sent instead.
    Attributes:
        counts, last_error: see `Asker`.
    Raises:
        ValueError: the address or a number makes no sense.
    """

    def __init__(
        self,
        url: str,
        domain_id: int | None = None,
        fps: float = 30.0,
        replan_steps: int = 8,
        steps: int | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        if replan_steps < 1:
            raise ValueError(f"replan_steps: got {replan_steps}, expected at least 1")
        self._domain_id, self._fps, self._steps = domain_id, check_rate(1, fps), steps
        self._replan_s = replan_steps / fps
        self._chunk: tuple[np.ndarray, float] | None = None  # entries (T, A), time of their observation
        self._born_s = time.monotonic()  # older observations are another episode's
        self._asker = Asker(url, timeout_s)
        self.counts = self._asker.counts

    @property
    def last_error(self) -> str | None:
        """Why the last request without a chunk did not get one."""
        return self._asker.last_error

    def step(self, images: Mapping[str | int, np.ndarray], state: np.ndarray, task: str) -> np.ndarray | None:
        """Return the action (A,) for this moment, or None before the first answer and after a chunk's end.

        Args:
            images: (H, W, 3) uint8 RGB by camera name, or by place (0, 1, 2) in the policy's order.
            state: (S,) in the dataset's units.
            task: what the robot is told.
        Raises:
            Refused: the server refused what was asked, such as an unknown camera; its reason is the message.
        """
        if self._asker.refusal is not None:
            raise self._asker.refusal
        now_s = time.monotonic()
        answer = self._asker.poll()
        if answer is not None:
            self._chunk = answer if answer[1] >= self._born_s else None
        if not self._asker.busy and (self._chunk is None or now_s - self._chunk[1] >= self._replan_s):
            # copies: the robot's buffers may change while the thread writes the request
            pictures = {name: np.array(image) for name, image in images.items()}
            query = Query(pictures, np.array(state, np.float32), task, self._domain_id, self._steps)
            self._asker.offer(query, now_s)
        if self._chunk is None:
            return None
        values, t_s = self._chunk
        index = int((now_s - t_s) * self._fps)
        return values[index].copy() if index < len(values) else None

    def reset(self) -> None:
        """Forget the chunk, for a new episode; an answer that is still under way will not be played."""
        self._born_s, self._chunk = time.monotonic(), None

    def close(self) -> None:
        """Stop the thread, at the latest when its request has timed out; safe to call twice."""
        self._asker.close()

    def __enter__(self) -> ChunkClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
