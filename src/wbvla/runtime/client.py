"""The robot's end of the wire: a DEALER socket in a background thread with a one-slot mailbox each way.

In: requests from the fast loop, which never waits here. Out: the newest answer to something that was really asked.
While the server is away only the newest request is kept; when it returns that one reaches it.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress

import zmq

from wbvla.runtime import keys as curve
from wbvla.runtime import wire

MAX_OPEN = 8  # questions whose answer is still welcome
IDLE_MS, RETRY_MS = 200, 20

log = logging.getLogger(__name__)


class PolicyClient:
    """Asks a policy server; use it as a context manager.

    Args:
        server: address such as "tcp://127.0.0.1:5757".
        keys: folder with `robot.key_secret` and `server.key` when the server demands CURVE.
        period_s: least time between two requests.
        reply_timeout_s: after this long without an answer the next request is sent anyway.
    Raises:
        ValueError: the address or the keys cannot be used.
    """

    def __init__(
        self, server: str, keys: str | None = None, period_s: float = 0.1, reply_timeout_s: float = 1.0
    ) -> None:
        self.server = server
        self._period_s, self._reply_timeout_s = period_s, reply_timeout_s
        self._outbox: deque[wire.Request] = deque(maxlen=1)
        self._inbox: deque[wire.Answer] = deque(maxlen=1)
        self._arrived = threading.Event()
        self._open: OrderedDict[float, float] = OrderedDict()  # capture time -> when it was sent
        self._next: wire.Request | None = None  # taken from the outbox, not yet accepted by a connection
        self._waiting_since_s: float | None = None
        self._last_sent_s = time.monotonic() - period_s
        self._stop = False
        self.counts = {"offered": 0, "sent": 0, "answered": 0, "errors": 0, "foreign": 0}
        self.round_trip_ms: deque[float] = deque(maxlen=1000)
        self.server_ms: deque[float] = deque(maxlen=1000)
        self.last_error: str | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._context = zmq.Context()
        self._socket = self._connect(server, keys)
        self._thread = threading.Thread(target=self._work, name="policy-client", daemon=True)
        self._thread.start()

    def offer(self, request: wire.Request) -> None:
        """Leave a request in the one-slot outbox, replacing an older one; returns at once."""
        self.counts["offered"] += 1
        self._outbox.append(request)
        self._wake()

    def poll(self) -> wire.Answer | None:
        """Take the newest unread answer, or None; returns at once."""
        try:
            return self._inbox.popleft()
        except IndexError:
            return None

    def wait(self, timeout_s: float) -> wire.Answer | None:
        """Wait for an answer and take it; None after `timeout_s`. Not for the fast loop."""
        self._arrived.wait(timeout_s)
        self._arrived.clear()
        return self.poll()

    def close(self) -> None:
        """Stop the thread and close the socket; safe to call twice."""
        self._stop = True
        self._wake()
        self._thread.join()
        self._wake_in.close()
        self._wake_out.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, server: str, keys: str | None) -> zmq.Socket:
        dealer = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, 1),
            (zmq.RCVHWM, 8),
            (zmq.IMMEDIATE, 1),  # nothing queues for a server that is not there
            (zmq.MAXMSGSIZE, wire.MAX_ANSWER_BYTES),
            (zmq.RECONNECT_IVL, 50),
            (zmq.RECONNECT_IVL_MAX, 500),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 3000),
        ):
            dealer.setsockopt(option, value)
        try:
            if keys is not None:
                curve.secure_client(dealer, keys)
            dealer.connect(server)
            return dealer
        except zmq.ZMQError as error:
            fault = ValueError(f"server: got {server!r}, expected for example tcp://127.0.0.1:5757 ({error})")
        except ValueError as error:
            fault = error
        dealer.close(0)
        self._context.term()
        raise fault

    def _wake(self) -> None:
        with suppress(OSError):  # full: a wake-up is already on its way; closed: nobody is left to wake
            self._wake_in.send(b"\0")

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_out.fileno(), zmq.POLLIN)
        while not self._stop:
            poller.poll(self._patience_ms())
            with suppress(BlockingIOError):
                self._wake_out.recv(4096)
            self._receive()
            if self._may_send_in_s() <= 0:
                if self._outbox:
                    self._next = self._outbox.popleft()
                if self._next is not None:
                    self._send(self._next)
        self._socket.close(0)
        self._context.term()

    def _may_send_in_s(self) -> float:
        now_s = time.monotonic()
        earliest_s = self._last_sent_s + self._period_s
        if self._waiting_since_s is not None:
            earliest_s = max(earliest_s, self._waiting_since_s + self._reply_timeout_s)
        return earliest_s - now_s

    def _patience_ms(self) -> int:
        if not self._outbox and self._next is None:
            return IDLE_MS
        return min(IDLE_MS, max(0 if self._outbox else RETRY_MS, math.ceil(1e3 * self._may_send_in_s())))

    def _send(self, request: wire.Request) -> None:
        try:
            data = wire.encode_request(request)
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:  # no server at the moment; unless a newer request replaces this one, try again
            return
        except ValueError as error:
            self._next = None
            self._fail(str(error))
            return
        self._next = None
        self._last_sent_s = self._waiting_since_s = time.monotonic()
        self._open[request.t_capture_s] = self._last_sent_s
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        self.counts["sent"] += 1

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                if len(frames) != 1:
                    raise ValueError(f"answer: got {len(frames)} frames, expected 1")
                self._take(wire.decode_answer(frames[0]))
            except ValueError as error:
                self._fail(str(error))

    def _take(self, answer: wire.Answer) -> None:
        if answer.error is not None:
            self._fail(answer.error)
            return
        sent_s = self._open.pop(answer.t_capture_s, None)
        if sent_s is None:  # an answer to nothing we asked must not move the robot
            self.counts["foreign"] += 1
            return
        if not self._open or answer.t_capture_s > max(self._open):
            self._open.clear()
            self._waiting_since_s = None
        self.counts["answered"] += 1
        self.round_trip_ms.append(1e3 * (time.monotonic() - sent_s))
        self.server_ms.append(answer.server_time_ms)
        self._inbox.append(answer)
        self._arrived.set()

    def _fail(self, reason: str) -> None:
        if reason != self.last_error:
            log.warning("policy server: %s", reason)
        self.last_error = reason
        self.counts["errors"] += 1
        self._waiting_since_s = None
