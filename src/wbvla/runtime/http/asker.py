"""Questions to an HTTP policy server from a background thread, with a one-slot mailbox each way.

In: observations with their times, from a loop that never waits here. Out: the newest chunk with its observation's time.
While the server is away the newest question is kept; when it returns that one reaches it.
"""

from __future__ import annotations

import base64
import http.client
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import numpy as np

from wbvla.runtime.http.wire import Query, decode_chunk, encode_query

RETRY_S = 0.2  # after a failure, before the next attempt
MAX_ANSWER_BYTES = 16 << 20

log = logging.getLogger(__name__)


class Refused(ValueError):
    """The server says that what we ask is wrong (4xx): asking again would not help."""


class Asker:
    """Asks one question at a time.

    Args:
        url: of the server, such as "http://127.0.0.1:8000"; "http://robot:TOKEN@host:8000" shows a token.
        timeout_s: after this long without an answer the newest question is sent instead.
        period_s: least time between two questions.
        decode: reads an answer's body; a ValueError makes it an error of the server.
    Attributes:
        counts: questions sent, answered, failed (no answer at all), errors (no chunk in the answer).
        last_error: why the last one of these did not get its chunk. refusal: the last Refused.
        round_trip_ms: from asking to having the chunk, the last 1000.
        arrived: set when there is a chunk to poll.
    Raises:
        ValueError: the address makes no sense.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        period_s: float = 0.0,
        decode: Callable[[bytes], np.ndarray] = decode_chunk,
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"url: got {url!r}, expected such as http://127.0.0.1:8000")
        self._timeout_s, self._period_s, self._decode = timeout_s, period_s, decode
        self._outbox: deque[tuple[Query, float]] = deque(maxlen=1)
        self._inbox: deque[tuple[np.ndarray, float]] = deque(maxlen=1)
        self._asking, self._resting, self._stop = threading.Event(), threading.Event(), threading.Event()
        self.arrived = threading.Event()
        self.refusal: Refused | None = None
        self.counts = {"sent": 0, "answered": 0, "failed": 0, "errors": 0}
        self.round_trip_ms: deque[float] = deque(maxlen=1000)
        self.last_error: str | None = None
        self._thread = threading.Thread(target=self._work, name="http-asker", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The server's address without the token."""
        return self._url._replace(netloc=self._url.netloc.rpartition("@")[2]).geturl()

    @property
    def busy(self) -> bool:
        """Whether a question is on its way; not after a failure, when a newer one may take its place."""
        return self._asking.is_set() and not self._resting.is_set()

    def offer(self, query: Query, t_s: float) -> None:
        """Leave a question and its time in the outbox, replacing an older one; returns at once."""
        self._outbox.append((query, t_s))
        self._asking.set()

    def poll(self) -> tuple[np.ndarray, float] | None:
        """Take the newest unread chunk (T, A) and the time of its question, or None; returns at once."""
        return self._inbox.popleft() if self._inbox else None

    def close(self) -> None:
        """Stop the thread, at the latest when its request has timed out; safe to call twice."""
        self._stop.set()
        self._asking.set()
        self._thread.join()

    def _work(self) -> None:
        connection, question = self._connect(), None
        while not self._stop.is_set():
            self._asking.wait()
            if self._stop.is_set():
                break
            if self._outbox:  # otherwise the one that failed, once more
                question = self._outbox.popleft()
            sent_s = time.monotonic()
            self.counts["sent"] += 1
            try:
                self._inbox.append((self._ask(connection, question[0]), question[1]))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._fail("failed", f"{type(error).__name__}: {error}")
                continue
            except ValueError as error:
                connection.close()
                self.refusal = error if isinstance(error, Refused) else self.refusal
                self._fail("errors", str(error))
            else:
                self.counts["answered"] += 1
                self.round_trip_ms.append(1e3 * (time.monotonic() - sent_s))
                self.arrived.set()
                self._stop.wait(max(0.0, sent_s + self._period_s - time.monotonic()))
            self._asking.clear()
            if self._outbox:  # offered meanwhile
                self._asking.set()
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
        return self._decode(body)

    def _fail(self, kind: str, reason: str) -> None:
        if reason != self.last_error:
            log.warning("policy server: %s", reason)
        self.last_error = reason
        self.counts[kind] += 1
        self._resting.set()
        self._stop.wait(RETRY_S)
        self._resting.clear()
