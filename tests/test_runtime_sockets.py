"""Laws of server and client over real sockets: newest wins, nothing on the wire ends the server, strangers stay out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from runtime_world import marching_chunk, running, start_marching_server
from wbvla.runtime import wire
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.keys import write_keys
from wbvla.runtime.server import PolicyServer

pytestmark = pytest.mark.alone


class Echo:
    """Answers after `seconds` with the mean brightness as height; remembers what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.asked = seconds, []

    def infer(self, image, state, task):
        self.asked.append(float(state[0]))
        time.sleep(self.seconds)
        if task == "fail":
            raise RuntimeError("no idea")
        return {"chunk": marching_chunk(float(image.mean()))}


def serving(policy, **settings):
    return running(PolicyServer(policy, port=0, **settings))


def request(number: float = 0.0, task: str = "push", brightness: int = 0) -> wire.Request:
    image = np.full((96, 96, 3), brightness, np.uint8)
    return wire.Request(image, np.full(68, number, np.float32), task, number)


@contextmanager
def raw_dealer(address: str):
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = 3000
        dealer.connect(address)
        yield dealer


def test_round_trip_carries_the_observations_time():
    with serving(Echo()) as server, PolicyClient(server.address, period_s=0.0) as client:
        for n in range(20):
            client.offer(request(n, brightness=n))
            answer = client.wait(3)
            assert answer.t_capture_s == n and answer.fps == 20 and answer.error is None
            np.testing.assert_array_equal(answer.chunk, marching_chunk(n))
    assert server.metrics()["answered"] == 20 and client.counts["answered"] == 20


def test_the_server_answers_the_newest_request_of_each_robot():
    policy = Echo(0.15)
    with serving(policy) as server, raw_dealer(server.address) as a, raw_dealer(server.address) as b:
        a.send(wire.encode_request(request(1)))
        time.sleep(0.05)
        for n in (2, 3, 4, 5):
            a.send(wire.encode_request(request(n)))
        b.send(wire.encode_request(request(100)))
        assert [wire.decode_answer(a.recv()).t_capture_s for _ in range(2)] == [1, 5]
        assert wire.decode_answer(b.recv()).t_capture_s == 100
        assert sorted(policy.asked) == [1, 5, 100]
        assert server.metrics()["dropped"] == 3


def test_the_client_sends_the_newest_offer_and_never_blocks():
    policy = Echo(0.1)
    with serving(policy) as server, PolicyClient(server.address, period_s=0.0) as client:
        longest_s = 0.0
        for n in range(300):
            start = time.perf_counter()
            client.offer(request(n))
            client.poll()
            longest_s = max(longest_s, time.perf_counter() - start)
            time.sleep(0.002)
        time.sleep(0.3)
        assert client.counts["sent"] < 20 and policy.asked[-1] == 299
        assert longest_s < 0.05  # a tenth of what one blocking exchange would cost, on a busy machine


def test_foreign_bytes_never_end_the_server():
    rng = np.random.default_rng(0)
    good = wire.encode_request(request(1))
    with serving(Echo()) as server, raw_dealer(server.address) as dealer:
        for _ in range(300):
            data = bytearray(good[: int(rng.integers(1, 400))])
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
            frames = [bytes(data)] * int(rng.integers(1, 4))
            dealer.send_multipart(frames)
            assert wire.decode_answer(dealer.recv()).error
        dealer.send(b"\x80\x04K\x01.")  # a pickled 1
        assert "msgpack" in wire.decode_answer(dealer.recv()).error
        dealer.send(good)
        assert wire.decode_answer(dealer.recv()).t_capture_s == 1
    assert server.metrics()["malformed"] == 301


def test_a_raw_tcp_stranger_and_an_oversize_message_do_not_end_the_server():
    import socket

    with serving(Echo()) as server:
        host, port = server.address.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(2000))
        with raw_dealer(server.address) as big:
            big.rcvtimeo = 300
            big.send(b"\0" * (wire.MAX_REQUEST_BYTES + 1))
            with pytest.raises(zmq.Again):  # the connection is cut before the message is read
                big.recv()
        with PolicyClient(server.address) as client:
            client.offer(request(7))
            assert client.wait(3).t_capture_s == 7


@pytest.mark.parametrize("result", [{}, {"chunk": np.full((20, 20), 0.5)}, {"chunk": np.zeros((3, 4))}, None])
def test_a_policys_fault_reaches_the_robot_as_a_message(result):
    class Faulty:
        def infer(self, image, state, task):
            return result

    with serving(Faulty()) as server, raw_dealer(server.address) as dealer:
        dealer.send(wire.encode_request(request(3)))
        answer = wire.decode_answer(dealer.recv())
        assert answer.error and answer.t_capture_s == 3
    assert server.metrics()["failed"] == 1


def test_errors_and_answers_to_nothing_asked_do_not_reach_the_loop():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger, router.rcvtimeo = 0, 3000
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with PolicyClient(f"tcp://127.0.0.1:{port}", period_s=0.0) as client:
            client.offer(request(1))
            identity, _ = router.recv_multipart()
            for data in (
                wire.encode_answer(wire.Answer(99.0, 1.0, marching_chunk(), 20.0)),
                wire.error_answer(1.0, "sorry"),
                b"junk",
            ):
                router.send_multipart([identity, data])
            assert client.wait(0.3) is None
            router.send_multipart([identity, wire.encode_answer(wire.Answer(1.0, 1.0, marching_chunk(), 20.0))])
            assert client.wait(3).t_capture_s == 1
            assert client.counts["foreign"] == 1 and client.counts["errors"] == 2


def test_a_killed_server_is_survived_and_its_successor_found():
    process, address = start_marching_server()
    try:
        with PolicyClient(address, period_s=0.0, reply_timeout_s=0.2) as client:
            client.offer(request())
            assert client.wait(5) is not None
            process.kill()
            process.wait()
            for n in range(100, 130):
                client.offer(request(n))
                time.sleep(0.01)
            while client.poll():
                pass
            process, _ = start_marching_server(int(address.rsplit(":", 1)[1]))
            client.offer(request(1000))
            answer = client.wait(5)
            assert (answer if answer.t_capture_s == 1000 else client.wait(5)).t_capture_s == 1000
    finally:
        process.kill()
        process.wait()


def test_beyond_loopback_the_server_refuses_to_bind_without_keys():
    for host in ("*", "192.0.2.1", "::", "example.org"):
        with pytest.raises(ValueError, match="keys"):
            PolicyServer(Echo(), host=host, port=0)


def test_a_taken_port_and_a_bad_address_are_one_clear_line():
    with serving(Echo()) as server:
        port = int(server.address.rsplit(":", 1)[1])
        with pytest.raises(ValueError, match="choose another"):
            PolicyServer(Echo(), port=port)
    with pytest.raises(ValueError, match="expected for example"):
        PolicyClient("127.0.0.1:5757")


def test_with_keys_only_the_allow_list_gets_answers(tmp_path):
    ours, theirs = write_keys(tmp_path / "ours"), write_keys(tmp_path / "theirs")
    with pytest.raises(ValueError, match="exists"):
        write_keys(tmp_path / "ours")
    assert (ours / "server.key_secret").stat().st_mode & 0o077 == 0
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "robot.key_secret").write_bytes((theirs / "robot.key_secret").read_bytes())
    (stranger / "server.key").write_bytes((ours / "server.key").read_bytes())
    with serving(Echo(), keys=str(ours)) as server:
        for keys, heard in ((str(ours), True), (str(stranger), False), (None, False)):
            with PolicyClient(server.address, keys=keys, period_s=0.0) as client:
                client.offer(request(1))
                assert (client.wait(4 if heard else 0.5) is not None) == heard
    (ours / "clients" / "robot.key").unlink()
    with pytest.raises(ValueError, match="allowed robot"):
        PolicyServer(Echo(), port=0, keys=str(ours))
    with pytest.raises(ValueError, match="make keys"):
        PolicyServer(Echo(), port=0, keys=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_serve_command_stops_cleanly_on_a_signal(number):
    code = "from wbvla.runtime.serve import Serve, run; run(Serve(policy='zero', port=0))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split(" on ")[1].split()[0]
        with PolicyClient(address, period_s=0.0) as client:
            client.offer(request())
            assert not client.wait(5).chunk[:, 16:19].any()
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
        assert process.returncode == 0 and "answered 1" in out and "Traceback" not in err
    finally:
        process.kill()
        process.wait()


def test_serve_names_what_is_wrong():
    from wbvla.runtime.serve import Serve, run

    for wrong in ({"policy": "nowhere"}, {"threads": 0}, {"port": 99_999}, {"port": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got"):
            run(Serve(**{"policy": "zero"} | wrong))


def test_the_runtime_imports_no_heavy_package():
    code = (
        "import importlib, pkgutil, sys, wbvla.runtime as r\n"
        "[importlib.import_module(m.name) for m in pkgutil.iter_modules(r.__path__, r.__name__ + '.')]\n"
        "print([m for m in ('torch', 'mujoco', 'lerobot', 'transformers', 'av') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
