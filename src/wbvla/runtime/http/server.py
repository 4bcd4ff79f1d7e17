"""A policy behind HTTP: `POST /act`, `GET /health`, `GET /metrics`.

In: observations in the dialects of wire.py. Out: {"action": chunk}, or {"error": one line} with a 4xx or 5xx status.
Listens on loopback unless a token is given, which every route but `/health` then demands.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import socket
import threading

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from wbvla.runtime.http.batching import Batcher, Busy, ChunkPolicy
from wbvla.runtime.http.wire import MAX_BODY_BYTES, MAX_STEPS, decode_query
from wbvla.runtime.keys import is_loopback

POLL_S = 0.1  # how long a stop request may wait
BODY_S = 10.0  # a body that takes longer to arrive is not worth a connection
MAX_CONNECTIONS = 128
MIN_TOKEN = 16
STEPS = 10  # of X-VLA's server
HUNG_UP = 499  # nginx's number for a client that left


class HttpServer:
    """Serves one policy.

    Args:
        policy: its `answer` runs in the thread that calls `serve`, one batch at a time.
        host, port: where to listen; port 0 picks a free one (see `address`).
        token: what clients must show, as "Authorization: Bearer TOKEN" or as the password in the address
            (http://robot:TOKEN@host:port); required when `host` is not loopback.
        steps: denoising steps where a request names none.
    Raises:
        ValueError: no token beyond loopback, a short one, too many steps, or the port is taken.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        steps: int = STEPS,
    ) -> None:
        if token is None and not is_loopback(host):
            raise ValueError(
                f"host: got {host!r} without a token; a server beyond loopback needs token=FILE, "
                "or use 127.0.0.1 and an ssh tunnel"
            )
        if token is not None and len(token) < MIN_TOKEN:
            raise ValueError(f"token: got {len(token)} characters, expected at least {MIN_TOKEN}")
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps: got {steps}, expected 1 to {MAX_STEPS}")
        self._policy, self._token, self._steps = policy, token, steps
        self._batcher = Batcher(policy)
        self._refused = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ValueError(f"cannot listen on {host}:{port} ({error}); choose another host or port") from None
        # asyncio does this for sockets that it opens itself; without it every answer waits 40 ms for an acknowledgement
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}"
        settings = uvicorn.Config(
            self._make_app(),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
        )
        self._web = uvicorn.Server(settings)

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set, then close the socket. Nothing that arrives can end it."""
        web = threading.Thread(target=self._web.run, args=([self._socket],), name="http", daemon=True)
        web.start()
        try:
            while not stop.is_set() and web.is_alive():
                self._batcher.work(POLL_S)
        finally:
            self._batcher.close()
            self._web.should_exit = True
            web.join()
            self._socket.close()

    def metrics(self) -> dict[str, float]:
        """Return counts (answered, refused, failed, dropped, batches) and times in ms over the last 1000 answers.

        `latency` is from a checked request to its chunk, `overhead` is that less the policy's own time.
        """
        result: dict[str, float] = {"refused": self._refused, **self._batcher.counts}
        for name, values in (("latency", self._batcher.latency_s), ("overhead", self._batcher.overhead_s)):
            for share in (50, 99):
                result[f"{name}_ms_p{share}"] = 1e3 * float(np.percentile(list(values), share)) if values else 0.0
        return result

    def _make_app(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.post("/act")
        async def act(request: Request) -> Response:
            self._check_token(request)
            query = await run_in_threadpool(decode_query, await _read_body(request))
            steps = query.steps or self._steps
            prepared = await run_in_threadpool(
                self._policy.prepare, query.images, query.state, query.task, query.domain, steps, query.seed
            )
            chunk = await self._wait(request, prepared)
            return JSONResponse({"action": chunk.tolist()})

        @app.get("/health")
        async def health() -> Response:
            return JSONResponse({"status": "ok", "waiting": self._batcher.waiting})

        @app.get("/metrics")
        async def metrics(request: Request) -> Response:
            self._check_token(request)
            return PlainTextResponse("".join(f"wbvla_{name} {value:.6g}\n" for name, value in self.metrics().items()))

        @app.exception_handler(ValueError)
        async def refuse(_: Request, error: ValueError) -> Response:
            return self._error(400, str(error))

        @app.exception_handler(Busy)
        async def busy(_: Request, error: Busy) -> Response:
            return self._error(503, str(error))

        @app.exception_handler(StarletteHTTPException)
        async def other(_: Request, error: StarletteHTTPException) -> Response:
            return self._error(error.status_code, str(error.detail), error.headers)

        return app

    def _error(self, status: int, reason: str, headers=None) -> Response:
        self._refused += 400 <= status < HUNG_UP
        return JSONResponse({"error": reason}, status, headers)

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            return
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # what a client makes of http://robot:TOKEN@host
            try:
                shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                shown = ""
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            raise HTTPException(401, "token: missing or wrong", {"WWW-Authenticate": "Bearer"})

    async def _wait(self, request: Request, prepared) -> np.ndarray:
        """Return the chunk; give the place in line up if the client hangs up."""
        answer = asyncio.wrap_future(self._batcher.submit(prepared))
        gone = asyncio.ensure_future(request.receive())
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answer.done():
            answer.cancel()
            raise HTTPException(HUNG_UP, "nobody reads this")
        error = answer.exception()
        if error is not None and not isinstance(error, Busy):
            raise HTTPException(500, f"the policy failed: {type(error).__name__}: {error}")
        return answer.result()


async def _read_body(request: Request) -> bytes:
    """Return the body; whoever sends too much or too slowly is cut off."""
    too_large = HTTPException(413, f"body: expected at most {MAX_BODY_BYTES} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except ClientDisconnect:
        raise HTTPException(HUNG_UP, "nobody reads this") from None
    except TimeoutError:
        raise HTTPException(408, f"body: took longer than {BODY_S:g} s") from None
    return bytes(body)
