"""An HTTP policy server as the fast loop's link. In: requests of the loop. Out: whole-body chunks with their times."""

from __future__ import annotations

import numpy as np

from wbvla.runtime.chunk import check_chunk, check_rate
from wbvla.runtime.http.asker import Asker
from wbvla.runtime.http.wire import Query, decode_chunk
from wbvla.runtime.wire import Answer, Request

CAMERA, FPS = "head", 20.0  # of the project's recordings; the protocol does not say


class HttpLink:
    """Stands where `runtime.client.PolicyClient` does, for servers of `/act`; use it as a context manager.

    Args:
        server: address such as "http://127.0.0.1:8765"; "http://robot:TOKEN@host:8765" shows a token.
        domain_id: id of this robot in the policy's table.
        period_s: least time between two requests.
        reply_timeout_s: after this long without an answer the newest request is sent instead.
    Attributes:
        server: the address without the token; counts, last_error, round_trip_ms: see `Asker`.
    Raises:
        ValueError: the address makes no sense.
    """

    def __init__(self, server: str, domain_id: int, period_s: float = 0.1, reply_timeout_s: float = 1.0) -> None:
        self._asker = Asker(server, reply_timeout_s, period_s, _whole_body_chunk)
        self._domain_id = domain_id
        self.server, self.counts, self.round_trip_ms = (
            self._asker.address,
            self._asker.counts,
            self._asker.round_trip_ms,
        )
        self.server_ms: list[float] = []  # the protocol does not tell

    @property
    def last_error(self) -> str | None:
        """Why the last request without a chunk did not get one."""
        return self._asker.last_error

    def offer(self, request: Request) -> None:
        """Leave a request in the one-slot outbox, replacing an older one; returns at once."""
        query = Query({CAMERA: request.image}, request.state, request.task, self._domain_id)
        self._asker.offer(query, request.t_capture_s)

    def poll(self) -> Answer | None:
        """Take the newest unread answer, or None; returns at once."""
        found = self._asker.poll()
        return found and Answer(found[1], 0.0, found[0], FPS)

    def wait(self, timeout_s: float) -> Answer | None:
        """Wait for an answer and take it; None after `timeout_s`. Not for the fast loop."""
        self._asker.arrived.wait(timeout_s)
        self._asker.arrived.clear()
        return self.poll()

    def close(self) -> None:
        """Stop asking; safe to call twice."""
        self._asker.close()

    def __enter__(self) -> HttpLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _whole_body_chunk(body: bytes) -> np.ndarray:
    """Read an answer's chunk (T, 20). Raises ValueError for one that no humanoid may play."""
    chunk = check_chunk(decode_chunk(body))
    check_rate(len(chunk), FPS)
    return chunk
