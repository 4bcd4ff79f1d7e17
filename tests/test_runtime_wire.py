"""Laws of the messages: every good one survives the trip, every other is a ValueError that says why."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from wbvla.runtime import wire
from wbvla.types import FLAGS


def request(rng: np.random.Generator) -> wire.Request:
    h, w = rng.integers(1, 40, 2)
    image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    return wire.Request(image, rng.normal(size=68).astype(np.float32), "push the cart, s'il te plaît", rng.normal())


def answer(rng: np.random.Generator) -> wire.Answer:
    chunk = rng.normal(size=(int(rng.integers(1, 40)), 20)).astype(np.float32)
    chunk[:, FLAGS] = rng.integers(-1, 2, (len(chunk), 3))
    return wire.Answer(float(rng.normal()), float(rng.exponential(50)), chunk, 20.0)


def test_messages_survive_the_trip():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sent, got = (r := request(rng)), wire.decode_request(wire.encode_request(r))
        np.testing.assert_array_equal(got.image, sent.image)
        np.testing.assert_array_equal(got.state, sent.state)
        assert (got.task, got.t_capture_s) == (sent.task, sent.t_capture_s)
        assert got.image.dtype == np.uint8 and got.state.dtype == np.float32
        sent, back = (a := answer(rng)), wire.decode_answer(wire.encode_answer(a))
        np.testing.assert_array_equal(back.chunk, sent.chunk)
        assert (back.t_capture_s, back.server_time_ms, back.fps, back.error) == (
            sent.t_capture_s,
            sent.server_time_ms,
            sent.fps,
            None,
        )
    refusal = wire.decode_answer(wire.error_answer(None, "x" * 10_000))
    assert refusal.t_capture_s is None and refusal.error == "x" * wire.MAX_ERROR_BYTES


def test_damaged_bytes_are_a_value_error_or_a_message():
    rng = np.random.default_rng(1)
    for decode, whole in (
        (wire.decode_request, wire.encode_request(request(rng))),
        (wire.decode_answer, wire.encode_answer(answer(rng))),
    ):
        for _ in range(1500):
            data = bytearray(whole)
            kind = rng.integers(4)
            if kind == 0:
                data = data[: rng.integers(len(data))]
            elif kind == 1:
                for _ in range(rng.integers(1, 8)):
                    data[rng.integers(min(len(data), 200))] = rng.integers(256)
            elif kind == 2:
                data += rng.bytes(int(rng.integers(1, 50)))
            else:
                data = rng.bytes(int(rng.integers(0, 300)))
            try:
                decode(bytes(data))
            except ValueError as error:
                assert "expected" in str(error) and len(str(error)) < 600


def _good() -> dict:
    return msgpack.unpackb(wire.encode_request(request(np.random.default_rng(2))))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"protocol": 2}, "protocol"),
        ({"extra": 1}, "keys"),
        ({"t_capture_s": float("nan")}, "t_capture_s"),
        ({"t_capture_s": "now"}, "t_capture_s"),
        ({"t_capture_s": True}, "t_capture_s"),
        ({"task": b"push"}, "task"),
        ({"task": "x" * 2000}, "task"),
        ({"image_shape": [1, 2]}, "image"),
        ({"image_shape": [-1, 5, 3]}, "image"),
        ({"image_shape": [1 << 40, 1 << 40, 3]}, "image"),
        ({"image_shape": [1.0, 1.0, 3.0]}, "image_shape"),
        ({"image": [1, 2, 3]}, "image"),
        ({"image": b""}, "image"),
        ({"state": b"123"}, "state"),
        ({"state": np.array([np.nan], np.float32).tobytes()}, "state"),
        ({"state": b"\0" * 8000}, "state"),
        ({"state": msgpack.ExtType(5, b"x")}, "state"),
        ({"state": msgpack.Timestamp(1, 1)}, "state"),
    ],
)
def test_a_wrong_field_is_named(change, what):
    with pytest.raises(ValueError, match=what):
        wire.decode_request(msgpack.packb(_good() | change))


def test_missing_fields_foreign_kinds_and_deep_nesting_are_refused():
    for key in _good():
        with pytest.raises(ValueError, match="expected"):
            wire.decode_request(msgpack.packb({k: v for k, v in _good().items() if k != key}))
    for data in (
        b"",
        b"\x81" * 5000,
        b"\x91" * 5000,
        msgpack.packb([1]),
        msgpack.packb({1: 2}),
        b"\xdf\xff\xff\xff\xff",
    ):
        with pytest.raises(ValueError, match="expected"):
            wire.decode_request(data)


def test_oversize_messages_are_refused_before_they_are_read():
    with pytest.raises(ValueError, match="at most"):
        wire.decode_request(b"\0" * (wire.MAX_REQUEST_BYTES + 1))
    with pytest.raises(ValueError, match="at most"):
        wire.decode_answer(b"\0" * (wire.MAX_ANSWER_BYTES + 1))
    big = np.zeros((wire.MAX_SIDE_PX, wire.MAX_SIDE_PX, 3), np.uint8)
    largest = wire.Request(big, np.zeros(wire.MAX_STATE, np.float32), "x" * wire.MAX_TASK_BYTES, 0.0)
    assert len(wire.encode_request(largest)) <= wire.MAX_REQUEST_BYTES
    with pytest.raises(ValueError, match="image"):
        wire.encode_request(wire.Request(np.zeros((1, 2000, 3), np.uint8), np.zeros(4, np.float32), "", 0.0))


def test_a_chunk_no_robot_may_play_is_neither_sent_nor_read():
    bad = np.full((20, 20), 0.5, np.float32)
    with pytest.raises(ValueError, match="ternary"):
        wire.encode_answer(wire.Answer(0.0, 1.0, bad, 20.0))
    fields = msgpack.unpackb(wire.encode_answer(answer(np.random.default_rng(3))))
    for change in ({"chunk": bad.tobytes()}, {"chunk": b""}, {"chunk": b"\0" * 84}, {"fps": 0.0}, {"fps": 1e-6}):
        with pytest.raises(ValueError, match="expected"):
            wire.decode_answer(msgpack.packb(fields | change))
    with pytest.raises(ValueError, match="t_capture_s"):
        wire.decode_answer(msgpack.packb(fields | {"t_capture_s": None}))
