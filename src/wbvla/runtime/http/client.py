"""The robot's side of `/act`: the next chunk is asked for while the current one plays.

In: the newest observation each turn of a control loop, which never waits here. Out: the action for this moment, or None
when there is none. A chunk is played by age: entry i belongs to the moment i / fps after its observation, so entries
that went by while the policy thought are skipped. No action outlives its chunk: what to do then is the robot's matter.
"""

from __future__ import annotations

import base64
import http.client
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import numpy as np

from wbvla.runtime.chunk import check_rate
from wbvla.runtime.http.wire import Query, decode_chunk, encode_query

RETRY_S = 0.2  # after a failure, before the next attempt
MAX_ANSWER_BYTES = 16 << 20

log = logging.getLogger(__name__)


class Refused(ValueError):
    """The server says that what we ask is wrong (4xx): asking again would not help."""


class ChunkClient:
    """Asks an HTTP policy server in a background thread; use it as a context manager.

    Args:
        url: of the server, such as "http://127.0.0.1:8000"; "http://robot:TOKEN@host:8000" shows a token.
        domain_id: id of this robot in the policy's table; None for policies of a single robot.
        fps: entries of a chunk per second, those of the dataset that the policy learned from.
        replan_steps: a new chunk is asked for when this many entries of the current one have gone by.
        steps: denoising steps.
        timeout_s: after this long without an answer the newest observation is sent instead.
    Attributes:
        counts: requests sent, answered, failed.
        last_error: why the last failed one did.
    Raises:
        ValueError: the address or a number makes no sense.
    """

    def __init__(
        self,
        url: str,
        domain_id: int | None = None,
        fps: float = 30.0,
        replan_steps: int = 8,
        steps: int = 10,
        timeout_s: float = 2.0,
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"url: got {url!r}, expected such as http://127.0.0.1:8000")
        if replan_steps < 1:
            raise ValueError(f"replan_steps: got {replan_steps}, expected at least 1")
        self._domain_id, self._fps, self._steps = domain_id, check_rate(1, fps), steps
        self._replan_s, self._timeout_s = replan_steps / fps, timeout_s
        self._chunk: tuple[np.ndarray, float] | None = None  # entries (T, A), time of their observation
        self._born_s = time.monotonic()  # older observations are another episode's
        self._outbox: deque[tuple[Query, float]] = deque(maxlen=1)
        self._inbox: deque[tuple[np.ndarray, float]] = deque(maxlen=1)
        self._asking, self._stop = threading.Event(), threading.Event()
        self._refusal: Refused | None = None
        self.counts = {"sent": 0, "answered": 0, "failed": 0}
        self.last_error: str | None = None
        self._thread = threading.Thread(target=self._work, name="chunk-client", daemon=True)
        self._thread.start()

    def step(self, images: Mapping[str | int, np.ndarray], state: np.ndarray, task: str) -> np.ndarray | None:
        """Return the action (A,) for this moment, or None before the first answer and after a chunk's end.

        Args:
            images: (H, W, 3) uint8 RGB by camera name, or by place (0, 1, 2) in the policy's order.
            state: (S,) in the dataset's units.
            task: what the robot is told.
        Raises:
            Refused: the server refused what was asked, such as an unknown camera; its reason is the message.
        """
        if self._refusal is not None:
            raise self._refusal
        now_s = time.monotonic()
        if self._inbox:
            answer = self._inbox.popleft()
            self._chunk = answer if answer[1] >= self._born_s else None
        if not self._asking.is_set() and (self._chunk is None or now_s - self._chunk[1] >= self._replan_s):
            # copies: the robot's buffers may change while the thread writes the request
            pictures = {name: np.array(image) for name, image in images.items()}
            query = Query(pictures, np.array(state, np.float32), task, self._domain_id, self._steps)
            self._outbox.append((query, now_s))
            self._asking.set()
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
        self._stop.set()
        self._asking.set()
        self._thread.join()

    def __enter__(self) -> ChunkClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            self._asking.wait()
            if self._stop.is_set():
                break
            query, t_s = self._outbox.popleft()
            self.counts["sent"] += 1
            try:
                self._inbox.append((self._ask(connection, query), t_s))
                self.counts["answered"] += 1
            except Refused as error:
                self._refusal = error
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                self._fail(f"{type(error).__name__}: {error}")
                self._stop.wait(RETRY_S)
            self._asking.clear()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.hostname, self._url.port, timeout=self._timeout_s)

    def _ask(self, connection: http.client.HTTPConnection, query: Query) -> np.ndarray:
        headers = {"Content-Type": "application/json"}
        if self._url.password is not None:
            secret = f"{unquote(self._url.username or '')}:{unquote(self._url.password)}"
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        connection.request("POST", f"{self._url.path.rstrip('/')}/act", encode_query(query), headers)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
        if 400 <= response.status < 500 and response.status != 408:
            raise Refused(f"the server refused ({response.status}): {body.decode(errors='replace'):.300}")
        if response.status != 200:
            raise ValueError(f"the server answered {response.status}: {body.decode(errors='replace'):.300}")
        return decode_chunk(body)

    def _fail(self, reason: str) -> None:
        if reason != self.last_error:
            log.warning("policy server: %s", reason)
        self.last_error = reason
        self.counts["failed"] += 1
