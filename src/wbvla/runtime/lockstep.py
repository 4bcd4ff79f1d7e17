"""A policy server in simulated time: every request is answered, and the answer arrives a fixed latency later.

In: a PolicyClient and a SimulatedClock. Out: the same two calls the fast loop makes on a PolicyClient.
The server takes whatever wall time it needs meanwhile, so a run does not depend on the speed of this machine.
"""

from __future__ import annotations

import time

from wbvla.runtime.client import PolicyClient
from wbvla.runtime.clock import SimulatedClock
from wbvla.runtime.wire import Answer, Request


class LockstepLink:
    """Asks at most one question at a time, waits for the reply in wall time, delivers it `latency_s` later.

    Raises from `offer`:
        ValueError: the server is gone or refuses.
    """

    def __init__(self, client: PolicyClient, clock: SimulatedClock, latency_s: float, patience_s: float = 30.0) -> None:
        self._client, self._clock = client, clock
        self._latency_s, self._patience_s = latency_s, patience_s
        self._answer: Answer | None = None
        self._due_s = 0.0

    def offer(self, request: Request) -> None:
        """Ask, unless an answer is still on its way."""
        if self._answer is not None:
            return
        self._answer = ask(self._client, request, self._patience_s)
        self._due_s = self._clock.now() + self._latency_s

    def poll(self) -> Answer | None:
        """Return the answer once its latency has passed."""
        if self._answer is None or self._clock.now() < self._due_s - 1e-9:
            return None
        answer, self._answer = self._answer, None
        return answer


def ask(client: PolicyClient, request: Request, patience_s: float) -> Answer:
    """Ask and wait for the answer in wall time. Raises ValueError when none comes or the server refuses."""
    errors = client.counts["errors"]
    until_s = time.monotonic() + patience_s
    client.offer(request)
    while time.monotonic() < until_s:
        answer = client.wait(0.1)
        if answer is not None and answer.t_capture_s == request.t_capture_s:
            return answer
        if client.counts["errors"] > errors:
            raise ValueError(f"server: it refused the observation: {client.last_error}")
    asked = f"{client.server} in {patience_s:.0f} s"
    raise ValueError(f"server: no answer from {asked}; start one with `wbvla serve --policy CHECKPOINT`")
