"""Answers in simulated time: every question is answered, and the answer arrives a fixed latency later.

In: a way to answer, a SimulatedClock. Out: the same two calls the fast loop makes on a PolicyClient.
Answering takes whatever wall time it needs meanwhile, so a run does not depend on the speed of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from wbvla.runtime.client import PolicyClient
from wbvla.runtime.clock import SimulatedClock
from wbvla.runtime.http.link import HttpLink
from wbvla.runtime.wire import Answer, Request


class LockstepLink:
    """Asks at most one question at a time and delivers the answer `latency_s` later.

    Args:
        answer: answers a request: a policy in this process, or `ask` on a server.
        clock: whose time the latency is counted in.
        latency_s: from the question to the answer; the loop notices it at its next tick, one at the earliest.
    """

    def __init__(self, answer: Callable[[Request], Answer], clock: SimulatedClock, latency_s: float) -> None:
        self._ask, self._clock, self._latency_s = answer, clock, latency_s
        self._answer: Answer | None = None
        self._due_s = 0.0

    def offer(self, request: Request) -> None:
        """Ask, unless an answer is still on its way; raises what answering raises."""
        if self._answer is not None:
            return
        self._answer = self._ask(request)
        self._due_s = self._clock.now() + self._latency_s

    def poll(self) -> Answer | None:
        """Return the answer once its latency has passed."""
        if self._answer is None or self._clock.now() < self._due_s - 1e-9:
            return None
        answer, self._answer = self._answer, None
        return answer


def ask(client: PolicyClient | HttpLink, request: Request, patience_s: float) -> Answer:
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
