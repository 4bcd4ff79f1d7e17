"""The messages between robot and policy server: msgpack maps with a fixed schema and size limits.

In: `Request` and `Answer` values. Out: bytes, and back. Whatever arrives that does not follow the schema becomes a
ValueError that says what was got and what was expected; nothing on the wire can name code to run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from wbvla.runtime.chunk import check_chunk, check_rate
from wbvla.types import ACTION_DIM

PROTOCOL = 1
MAX_SIDE_PX = 1024
MAX_STATE = 1024
MAX_TASK_BYTES = 1024
MAX_CHUNK = 512
MAX_ERROR_BYTES = 512
MAX_REQUEST_BYTES = MAX_SIDE_PX**2 * 3 + 4 * MAX_STATE + MAX_TASK_BYTES + 1024
MAX_ANSWER_BYTES = MAX_CHUNK * ACTION_DIM * 4 + MAX_ERROR_BYTES + 1024

_REQUEST_KEYS = {"protocol", "t_capture_s", "task", "image", "image_shape", "state"}
_ANSWER_KEYS = {"protocol", "t_capture_s", "server_time_ms", "chunk", "fps"}


@dataclass(frozen=True)
class Request:
    """What the server needs for one inference: image (H, W, 3) uint8, state (S,) float32, task, capture time.

    `t_capture_s` is the client's own monotonic clock; the server only echoes it.
    """

    image: np.ndarray
    state: np.ndarray
    task: str
    t_capture_s: float


@dataclass(frozen=True)
class Answer:
    """A chunk (T, 20) float32 at `fps` for the observation captured at `t_capture_s`, or an `error`.

    `t_capture_s` is None only in an error about a message that could not be read.
    """

    t_capture_s: float | None
    server_time_ms: float
    chunk: np.ndarray
    fps: float
    error: str | None = None


def encode_request(request: Request) -> bytes:
    """Return the request's bytes. Raises ValueError if it would be refused by the server."""
    image, state = np.ascontiguousarray(request.image), np.ascontiguousarray(request.state)
    if image.dtype != np.uint8 or state.dtype != np.float32:
        raise ValueError(f"request: got image {image.dtype}, state {state.dtype}, expected uint8 and float32")
    _check_image(image.shape, image.nbytes)
    return msgpack.packb(
        {
            "protocol": PROTOCOL,
            "t_capture_s": _number("t_capture_s", request.t_capture_s),
            "task": _text("task", request.task, MAX_TASK_BYTES),
            "image": image.tobytes(),
            "image_shape": list(image.shape),
            "state": _finite_floats("state", state.tobytes(), MAX_STATE).tobytes(),
        }
    )


def decode_request(data: bytes) -> Request:
    """Read a request. Raises ValueError on anything that is not exactly one."""
    fields = _unpack(data, MAX_REQUEST_BYTES, _REQUEST_KEYS, optional=set())
    pixels = _typed("image", fields["image"], bytes)
    shape = _typed("image_shape", fields["image_shape"], list)
    if not all(type(n) is int for n in shape):
        raise ValueError(f"image_shape: got {shape!r:.80}, expected three whole numbers")
    _check_image(tuple(shape), len(pixels))
    return Request(
        image=np.frombuffer(pixels, np.uint8).reshape(shape),
        state=_finite_floats("state", fields["state"], MAX_STATE),
        task=_text("task", fields["task"], MAX_TASK_BYTES),
        t_capture_s=_number("t_capture_s", fields["t_capture_s"]),
    )


def encode_answer(answer: Answer) -> bytes:
    """Return the answer's bytes. Raises ValueError for a chunk that no robot may play."""
    fields: dict[str, Any] = {
        "protocol": PROTOCOL,
        "t_capture_s": answer.t_capture_s,
        "server_time_ms": _number("server_time_ms", answer.server_time_ms),
        "chunk": b"",
        "fps": _number("fps", answer.fps),
    }
    if answer.error is not None:
        fields["error"] = answer.error.encode()[:MAX_ERROR_BYTES].decode(errors="ignore")
    else:
        chunk = check_chunk(answer.chunk)
        if len(chunk) > MAX_CHUNK:
            raise ValueError(f"chunk: got {len(chunk)} entries, expected at most {MAX_CHUNK}")
        check_rate(len(chunk), answer.fps)
        fields["chunk"] = chunk.tobytes()
    return msgpack.packb(fields)


def error_answer(t_capture_s: float | None, error: str) -> bytes:
    """Return the bytes of an answer that carries only an error."""
    return encode_answer(Answer(t_capture_s, 0.0, np.zeros((0, ACTION_DIM), np.float32), 1.0, error))


def decode_answer(data: bytes) -> Answer:
    """Read an answer. Raises ValueError on anything that is not exactly one."""
    fields = _unpack(data, MAX_ANSWER_BYTES, _ANSWER_KEYS, optional={"error"})
    error = fields.get("error")
    t_capture_s = fields["t_capture_s"]
    if t_capture_s is not None or error is None:
        t_capture_s = _number("t_capture_s", t_capture_s)
    values = _finite_floats("chunk", fields["chunk"], MAX_CHUNK * ACTION_DIM)
    if values.size % ACTION_DIM:
        raise ValueError(f"chunk: got {values.size} numbers, expected a multiple of {ACTION_DIM}")
    chunk = values.reshape(-1, ACTION_DIM)
    fps = check_rate(len(chunk), _number("fps", fields["fps"]))
    if error is None:
        chunk = check_chunk(chunk)
    else:
        error = _text("error", error, MAX_ERROR_BYTES)
    return Answer(t_capture_s, _number("server_time_ms", fields["server_time_ms"]), chunk, fps, error)


def _unpack(data: bytes, limit: int, keys: set[str], optional: set[str]) -> dict[str, Any]:
    """Unpack one msgpack map with exactly these keys and this protocol."""
    if len(data) > limit:
        raise ValueError(f"message: got {len(data)} bytes, expected at most {limit}")
    try:
        fields = msgpack.unpackb(data, raw=False, strict_map_key=True, max_map_len=16, max_array_len=16, max_ext_len=64)
    except (ValueError, msgpack.UnpackException, OverflowError) as error:
        raise ValueError(f"message: got bytes that are not msgpack ({type(error).__name__}), expected a map") from None
    if not isinstance(fields, dict):
        raise ValueError(f"message: got {type(fields).__name__}, expected a map")
    if fields.get("protocol") != PROTOCOL:
        raise ValueError(f"protocol: got {fields.get('protocol')!r:.40}, expected {PROTOCOL}; update both sides")
    if not keys <= fields.keys() or not fields.keys() <= keys | optional:
        raise ValueError(f"message: got keys {sorted(fields)!r:.200}, expected {sorted(keys)}")
    return fields


def _typed(name: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{name}: got {type(value).__name__}, expected {kind.__name__}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r:.40}, expected a finite number")
    return float(value)


def _text(name: str, value: Any, limit: int) -> str:
    if len(_typed(name, value, str).encode(errors="surrogatepass")) > limit:
        raise ValueError(f"{name}: got {len(value)} characters, expected at most {limit} bytes")
    return value


def _finite_floats(name: str, value: Any, limit: int) -> np.ndarray:
    """Read little-endian float32 bytes as an array (N,), N <= limit."""
    if len(_typed(name, value, bytes)) % 4 or len(value) > 4 * limit:
        raise ValueError(f"{name}: got {len(value)} bytes, expected at most {limit} float32 numbers")
    numbers = np.frombuffer(value, "<f4")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name}: got non-finite numbers, expected finite float32")
    return numbers.astype(np.float32, copy=False)


def _check_image(shape: tuple[int, ...], n_bytes: int) -> None:
    fits = len(shape) == 3 and shape[2] == 3 and all(1 <= n <= MAX_SIDE_PX for n in shape[:2])
    if not fits or n_bytes != math.prod(shape):
        raise ValueError(
            f"image: got shape {list(shape)} with {n_bytes} bytes, expected (H, W, 3) uint8 up to {MAX_SIDE_PX} px"
        )
