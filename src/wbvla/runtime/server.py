"""The slow side: a ZeroMQ ROUTER that answers each robot's newest observation with a chunk.

In: requests (wire.py) from any number of robots. Out: answers that carry their observation's time, and metrics.
A robot that sends faster than the policy thinks loses its older requests, never its newest. Binds loopback unless
CURVE keys with an allow-list are given.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from typing import Any, Protocol

import numpy as np
import zmq

from wbvla.runtime import keys as curve
from wbvla.runtime import wire

POLL_MS = 100  # how long a stop request may wait
MAX_CLIENTS = 64
DRAIN = 256  # messages read between two inferences: nobody keeps the server from thinking by talking


class Policy(Protocol):
    """Anything with the policies' inference call."""

    def infer(self, image: np.ndarray, state: np.ndarray, task: str) -> dict[str, Any]:
        """Return {"chunk": (T, 20) float32, optionally "fps"} for image (H, W, 3) uint8, state (S,) and a task."""


class PolicyServer:
    """Serves one policy.

    Args:
        policy: its `infer` runs in the thread that calls `serve`, one request at a time.
        host, port: where to listen; port 0 picks a free one (see `address`).
        keys: folder with CURVE keys and allow-list (keys.py); required when `host` is not loopback.
    Raises:
        ValueError: no keys beyond loopback, unreadable keys, or the port is taken.
    """

    def __init__(self, policy: Policy, host: str = "127.0.0.1", port: int = 5757, keys: str | None = None) -> None:
        if not curve.is_loopback(host) and keys is None:
            raise ValueError(
                f"host: got {host!r} without keys; a server beyond loopback needs keys=FOLDER with CURVE keys and an "
                "allow-list (`python -m wbvla.runtime.keys FOLDER`), or use 127.0.0.1 and an ssh tunnel"
            )
        self._policy = policy
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._authenticator = None
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, 8),
            (zmq.SNDHWM, 8),
            (zmq.MAXMSGSIZE, wire.MAX_REQUEST_BYTES),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 3000),
        ):
            self._socket.setsockopt(option, value)
        try:
            if keys is not None:
                self._authenticator = curve.secure_server(self._socket, keys)
            self._socket.bind(f"tcp://{host}:{port}" if port else f"tcp://{host}:*")
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"cannot listen on {host}:{port} ({error}); choose another host or port") from None
        except ValueError:
            self.close()
            raise
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._waiting: OrderedDict[bytes, tuple[wire.Request, float]] = OrderedDict()
        self._counts = {"answered": 0, "dropped": 0, "malformed": 0, "failed": 0}
        self._latency_ms: deque[float] = deque(maxlen=1000)
        self._overhead_ms: deque[float] = deque(maxlen=1000)

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set, then close the sockets. Nothing that arrives can end it."""
        try:
            while not stop.is_set():
                self._drain(POLL_MS if not self._waiting else 0)
                if self._waiting:
                    identity, (request, received_s) = self._waiting.popitem(last=False)
                    self._answer(identity, request, received_s)
        finally:
            self.close()

    def close(self) -> None:
        """Close the sockets at once; safe to call twice."""
        self._socket.close(0)
        if self._authenticator is not None and self._authenticator.is_alive():
            self._authenticator.stop()
        self._context.term()

    def metrics(self) -> dict[str, float]:
        """Return counts (answered, dropped, malformed, failed) and times in ms over the last 1000 answers.

        `latency` is from reading a request to sending its answer, `overhead` is that less the policy's own time.
        """
        result: dict[str, float] = dict(self._counts)
        for name, values in (("latency", self._latency_ms), ("overhead", self._overhead_ms)):
            for share in (50, 99):
                result[f"{name}_ms_p{share}"] = float(np.percentile(list(values), share)) if values else 0.0
        return result

    def _drain(self, timeout_ms: int) -> None:
        """Read what has arrived; keep the newest request of each robot."""
        if not self._socket.poll(timeout_ms):
            return
        for _ in range(DRAIN):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            identity, received_s = frames[0], time.monotonic()
            try:
                if len(frames) != 2:
                    raise ValueError(f"message: got {len(frames) - 1} frames, expected 1")
                request = wire.decode_request(frames[1])
            except ValueError as error:
                self._counts["malformed"] += 1
                self._send(identity, wire.error_answer(None, str(error)))
                continue
            self._counts["dropped"] += self._waiting.pop(identity, None) is not None
            if len(self._waiting) >= MAX_CLIENTS:
                self._counts["dropped"] += 1
                self._send(identity, wire.error_answer(request.t_capture_s, f"busy with {MAX_CLIENTS} other robots"))
                continue
            self._waiting[identity] = (request, received_s)

    def _answer(self, identity: bytes, request: wire.Request, received_s: float) -> None:
        start_s = time.monotonic()
        try:
            result = self._policy.infer(request.image, request.state, request.task)
            took_s = time.monotonic() - start_s
            answer = wire.Answer(
                request.t_capture_s, 1e3 * took_s, np.asarray(result["chunk"]), float(result.get("fps", 20.0))
            )
            data = wire.encode_answer(answer)
        except Exception as error:  # a policy's fault must reach the robot as a message, and must not end the server
            self._counts["failed"] += 1
            self._send(identity, wire.error_answer(request.t_capture_s, f"{type(error).__name__}: {error}"))
            return
        self._send(identity, data)
        spent_ms = 1e3 * (time.monotonic() - received_s)
        self._counts["answered"] += 1
        self._latency_ms.append(spent_ms)
        self._overhead_ms.append(spent_ms - 1e3 * took_s)

    def _send(self, identity: bytes, data: bytes) -> None:
        """Send without waiting; a robot that does not read its answers loses them."""
        try:
            self._socket.send_multipart([identity, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            self._counts["dropped"] += 1
