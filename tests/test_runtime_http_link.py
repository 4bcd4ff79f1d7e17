"""Laws of the fast loop behind an HTTP server: a dead or late one ends standing, a useless one never starts it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from http_world import March, Slow, start_http_server
from runtime_world import Legs, StillRobot, running
from wbvla.runtime.http.link import HttpLink
from wbvla.runtime.http.server import HttpServer
from wbvla.runtime.lockstep import ask
from wbvla.runtime.loop import FastLoop
from wbvla.runtime.run import RunRobot, connect
from wbvla.runtime.wire import Request
from wbvla.types import FLAGS

pytestmark = pytest.mark.alone


def test_a_server_killed_while_the_robot_walks_leaves_it_standing_and_its_successor_is_followed():
    process, address = start_http_server("March()")
    try:
        adapter, legs = StillRobot(), Legs()
        with HttpLink(address, 30, reply_timeout_s=0.3) as link:
            loop = FastLoop(adapter.robot, adapter, legs, link, "push")
            threading.Timer(1.0, process.kill).start()
            report = loop.run(3.2)
            modes = loop.log.modes()
            assert modes[:40].count("chunk") > 10 and report.stopped_because is None
            assert modes[-1] == "stand" and legs.commands[-1].standing and link.counts["failed"] >= 2
            walked = np.flatnonzero(loop.log.action[: loop.log.n, FLAGS].any(1))
            assert loop.log.t_s[walked[-1]] - loop.log.t_s[0] < 1.0 + 1.0 + 0.1  # the last chunk lasts one second
            process.wait()
            process, _ = start_http_server("March()", int(address.rsplit(":", 1)[1]))
            loop.run(1.5)
            assert loop.log.modes()[-1] == "chunk" and not legs.commands[-1].standing
    finally:
        process.kill()
        process.wait()


def test_an_answer_older_than_its_chunk_moves_nothing():
    """The policy thinks for longer than its chunk lasts: what it says is about a moment that is gone."""
    adapter, legs = StillRobot(), Legs()
    with running(HttpServer(March(1.2), port=0)) as server, HttpLink(server.address, 30, reply_timeout_s=5.0) as link:
        loop = FastLoop(adapter.robot, adapter, legs, link, "push")
        report = loop.run(3.0)
    assert report.chunks_taken >= 1 and all(command.standing for command in legs.commands)
    assert report.mode_shares["chunk"] == 0 and report.stopped_because is None


def request() -> Request:
    return Request(np.zeros((32, 32, 3), np.uint8), np.zeros(68, np.float32), "push", 7.5)


def test_requests_are_answered_with_their_time_and_useless_chunks_are_named():
    with running(HttpServer(March(), port=0)) as server:
        with connect(RunRobot(server.address), 0.0) as link:  # the G1's domain: March asserts that it is 30
            answer = ask(link, request(), 5.0)
            assert (answer.t_capture_s, answer.chunk.shape, answer.fps) == (7.5, (20, 20), 20.0)
            assert link.counts["answered"] == 1 and len(link.round_trip_ms) == 1
        with (
            connect(RunRobot(server.address, robot="x2"), 0.0) as link,
            pytest.raises(ValueError, match="refused.*500"),
        ):
            ask(link, request(), 5.0)
    with (
        running(HttpServer(Slow(), port=0)) as server,
        connect(RunRobot(server.address), 0.0) as link,
        pytest.raises(ValueError, match=r"got shape \(20, 1\), expected \(T, 20\)"),
    ):
        ask(link, request(), 5.0)


def test_no_server_and_wrong_settings_are_one_clear_error_without_the_token():
    with (
        HttpLink("http://robot:secret@127.0.0.1:9", 30) as link,
        pytest.raises(ValueError, match="no answer") as caught,
    ):
        ask(link, request(), 0.5)
    assert "http://127.0.0.1:9" in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="keys: only go with tcp://"):
        connect(RunRobot("http://127.0.0.1:9", keys="keys"), 0.1)
