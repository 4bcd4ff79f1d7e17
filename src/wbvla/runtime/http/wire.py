"""What is posted to `/act`: JSON in two dialects.

In: request bodies. Out: a checked `Query`, or a ValueError that says what was got and what was expected.
X-VLA's dialect has `image0` to `image2`, `proprio`, `language_instruction`, `domain_id`, `steps`; arrays are strings
that hold JSON once more, as json_numpy writes them. The named dialect has LeRobot's names:
`observation.images.<camera>`, `observation.state`, `task`, `domain_id`, `steps`. In both an array is a nested list or
json_numpy's, and an image may be an encoded PNG or JPEG: its bytes as a 1-D array, or in base64. X-VLA's server also
opens file paths: nothing here does.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BODY_BYTES = 24 << 20  # three raw views of 1024 x 1024 in base64, twice encoded, fit
MAX_SIDE_PX, MIN_SIDE_PX = 2048, 16
MAX_VIEWS, MAX_STATE, MAX_TASK_BYTES, MAX_STEPS = 16, 1024, 1024, 50

XVLA_IMAGES = ("image0", "image1", "image2")
_NAMED_IMAGE = "observation.images."
_XVLA_KEYS = {*XVLA_IMAGES, "proprio", "language_instruction"}
_NAMED_KEYS = {"observation.state", "task"}
_SHARED_KEYS = {"domain_id", "steps", "seed"}


@dataclass(frozen=True)
class Query:
    """One observation and what is asked of it.

    Attributes:
        images: (H, W, 3) uint8 RGB by camera name, or by place (0, 1, 2) in the robot's order of cameras.
        state: (S,) float32 in the dataset's units.
        task: what the robot is told.
        domain: id of the robot; None = not given.
        steps: denoising steps; None = the server's.
        seed: of the noise; None = another noise every time.
    """

    images: dict[str | int, np.ndarray]
    state: np.ndarray
    task: str
    domain: int | None
    steps: int | None = None
    seed: int | None = None


def decode_query(body: bytes) -> Query:
    """Read a request's body. Raises ValueError on anything that is not one of the two dialects."""
    fields = _parse(body, "body")
    if not isinstance(fields, dict):
        raise ValueError(f"body: got {type(fields).__name__}, expected a JSON object")
    named = any(key in _NAMED_KEYS or key.startswith(_NAMED_IMAGE) for key in fields)
    wanted = _NAMED_KEYS if named else _XVLA_KEYS
    unknown = [k for k in fields if k not in wanted | _SHARED_KEYS and not (named and k.startswith(_NAMED_IMAGE))]
    if unknown:
        images = f"{_NAMED_IMAGE}<camera>" if named else ""
        known = ", ".join(filter(None, [*sorted(wanted | _SHARED_KEYS), images]))
        raise ValueError(f"body: got the unknown key {unknown[0]!r:.80}, expected {known}")
    if len(fields) > MAX_VIEWS + len(_NAMED_KEYS | _SHARED_KEYS):
        raise ValueError(f"body: got {len(fields)} keys, expected at most {MAX_VIEWS} images")
    if named:
        images = {k.removeprefix(_NAMED_IMAGE): _image(k, v) for k, v in fields.items() if k.startswith(_NAMED_IMAGE)}
        state, task = "observation.state", "task"
    else:
        images = {place: _image(k, fields[k]) for place, k in enumerate(XVLA_IMAGES) if k in fields}
        state, task = "proprio", "language_instruction"
    if not images:
        raise ValueError("images: got none, expected image0 or observation.images.<camera>")
    for key in (state, task):
        if key not in fields:
            raise ValueError(f"{key}: missing from the body")
    return Query(
        images=images,
        state=_state(state, fields[state]),
        task=_text(task, fields[task]),
        domain=_whole("domain_id", fields.get("domain_id"), 0, 2**31),
        steps=_whole("steps", fields.get("steps"), 1, MAX_STEPS),
        seed=_whole("seed", fields.get("seed"), 0, 2**31),
    )


def encode_array(array: np.ndarray) -> str:
    """Return the string that `json_numpy.dumps` returns."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return json.dumps({"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)})


def encode_query(query: Query) -> bytes:
    """Return the body that asks a query: of X-VLA's dialect if images are given by place, else of the named one."""
    by_place = all(isinstance(name, int) for name in query.images)
    names = {name: XVLA_IMAGES[name] if by_place else f"{_NAMED_IMAGE}{name}" for name in query.images}
    fields: dict[str, Any] = {names[name]: encode_array(image) for name, image in query.images.items()}
    fields["proprio" if by_place else "observation.state"] = encode_array(query.state)
    fields["language_instruction" if by_place else "task"] = query.task
    optional = {"domain_id": query.domain, "steps": query.steps, "seed": query.seed}
    return json.dumps(fields | {k: v for k, v in optional.items() if v is not None}).encode()


def decode_chunk(body: bytes) -> np.ndarray:
    """Read an answer's chunk (T, A) float32. Raises ValueError unless it is finite numbers."""
    fields = _parse(body, "answer")
    try:
        chunk = np.asarray(fields["action"], np.float32)
    except (KeyError, TypeError, ValueError):
        raise ValueError("answer: got no chunk, expected {'action': [[...], ...]}") from None
    if chunk.ndim != 2 or not chunk.size or not np.isfinite(chunk).all():
        raise ValueError(f"answer: got a chunk of shape {chunk.shape}, expected (T, A) finite numbers")
    return chunk


def _parse(text: bytes | str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{name}: got text that is not JSON") from None


def _array(name: str, value: Any) -> np.ndarray:
    """Read an array from a nested list, json_numpy's object, or a string that holds one of them."""
    if isinstance(value, str):
        value = _parse(value, name)
    if isinstance(value, str):
        raise ValueError(f"{name}: got a text, expected an array; file paths are refused")
    if isinstance(value, dict):
        return _json_numpy(name, value)
    if not isinstance(value, list):
        raise ValueError(f"{name}: got {type(value).__name__}, expected an array")
    try:
        return np.array(value)  # of ragged lists and huge integers it raises, of texts it makes an array of texts
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: got a ragged list, expected rows of equal length") from None


def _json_numpy(name: str, value: dict[str, Any]) -> np.ndarray:
    dtype, shape, data = value.get("dtype"), value.get("shape"), value.get("__numpy__")
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(data, str)) or len(value) != 3:
        raise ValueError(f"{name}: got an object, expected json_numpy's __numpy__, dtype and shape")
    if not re.fullmatch(r"[<>|=]?(u[1248]|i[1248]|f[248]|b1)", dtype):
        raise ValueError(f"{name}: got dtype {dtype!r:.40}, expected whole or floating-point numbers")
    raw = _base64(name, data)
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * np.dtype(dtype).itemsize != len(raw):
        raise ValueError(f"{name}: got {len(raw)} bytes of {dtype}, expected those of shape {shape!r:.80}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name}: got text that is neither JSON nor base64; file paths are refused") from None


def _image(name: str, value: Any) -> np.ndarray:
    """Read an image (H, W, 3) uint8 RGB."""
    if isinstance(value, str) and not value.lstrip().startswith(("{", "[", '"')):
        return _decode_picture(name, _base64(name, value))
    image = _array(name, value)
    if image.dtype.kind == "i" and image.size and 0 <= image.min() and image.max() <= 255:
        image = image.astype(np.uint8)  # a list does not say how wide its numbers are
    if image.ndim == 1 and image.dtype == np.uint8:
        return _decode_picture(name, image.tobytes())
    return _checked_image(name, image)


def _decode_picture(name: str, data: bytes) -> np.ndarray:
    """Decode PNG or JPEG to RGB; X-VLA's server swaps red and blue here, which no client can want."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        # looked at before anything is unpacked: a small file can hold a huge picture
        pixels = np.asarray(picture.convert("RGB")) if max(picture.size) <= MAX_SIDE_PX else None
    except Exception:  # whatever Pillow makes of what strangers send
        raise ValueError(f"{name}: got bytes that are no usable PNG or JPEG; file paths are refused") from None
    if pixels is None:
        raise ValueError(f"{name}: got {picture.size}, expected at most {MAX_SIDE_PX} pixels a side")
    return _checked_image(name, pixels)


def _checked_image(name: str, image: np.ndarray) -> np.ndarray:
    sides = image.shape[:2]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(sides) < MIN_SIDE_PX:
        raise ValueError(
            f"{name}: got {image.dtype} {image.shape}, expected uint8 (H, W, 3) of {MIN_SIDE_PX} px or more"
        )
    if max(sides) > MAX_SIDE_PX:
        raise ValueError(f"{name}: got {image.shape}, expected at most {MAX_SIDE_PX} pixels a side")
    return image


def _state(name: str, value: Any) -> np.ndarray:
    state = _array(name, value)
    if state.dtype.kind not in "iuf" or state.ndim != 1 or state.size > MAX_STATE:
        raise ValueError(f"{name}: got {state.dtype} {state.shape}, expected a vector of at most {MAX_STATE} numbers")
    with np.errstate(over="ignore"):
        state = state.astype(np.float32)
    if not np.isfinite(state).all():
        raise ValueError(f"{name}: got numbers that are not finite")
    return state


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value.encode(errors="surrogatepass")) > MAX_TASK_BYTES:
        raise ValueError(f"{name}: got {type(value).__name__}, expected a text of at most {MAX_TASK_BYTES} bytes")
    return value


def _whole(name: str, value: Any, least: int, most: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}: got {value!r:.40}, expected a whole number from {least} to {most}")
    return value
