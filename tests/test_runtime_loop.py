"""Laws of the fast loop: it always decides, it is on time, and whatever goes silent the robot ends standing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime_world import Legs, StillRobot, marching_chunk, start_marching_server
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.clock import SimulatedClock
from wbvla.runtime.loop import SENSOR_LIMIT_S, FastLoop
from wbvla.runtime.wire import Answer
from wbvla.types import FLAGS, HEIGHT, LocoCommand

pytestmark = pytest.mark.alone


class RandomLink:
    """Answers some offers, late, out of order or never, with random flags; remembers every chunk it gave out."""

    def __init__(self, rng: np.random.Generator, clock: SimulatedClock, silent_from_s: float) -> None:
        self.rng, self.clock, self.silent_from_s = rng, clock, silent_from_s
        self.given: list[Answer] = []
        self.asked: list[float] = []

    def offer(self, request) -> None:
        self.asked.append(request.t_capture_s)

    def poll(self):
        if not self.asked or self.clock.now() > self.silent_from_s or self.rng.random() < 0.8:
            return None
        t = self.asked[int(self.rng.integers(max(0, len(self.asked) - 8), len(self.asked)))]
        chunk = marching_chunk()[: int(self.rng.integers(1, 21))]
        chunk[:, FLAGS] = self.rng.integers(-1, 2, (len(chunk), 3))
        self.given.append(Answer(t, 1.0, chunk, 20.0))
        return self.given[-1]


@pytest.mark.parametrize("seed", range(15))
def test_flags_given_are_the_flags_the_legs_get_and_silence_ends_standing(seed):
    clock = SimulatedClock()
    adapter, legs = StillRobot(clock), Legs()
    link = RandomLink(np.random.default_rng(seed), clock, silent_from_s=4.0)
    loop = FastLoop(adapter.robot, adapter, legs, link, "push", clock)
    report = loop.run(12.0)
    assert report.ticks == 600 and report.missed_deadlines == 0 and report.stopped_because is None
    flags = np.array([c.flags for c in legs.commands])
    np.testing.assert_array_equal(loop.log.action[:, FLAGS], flags)
    newest = -1.0
    for answer in link.given:  # every walking tick lies inside the chunk that was newest then
        assert answer.t_capture_s <= newest or (newest := answer.t_capture_s)
    last = max(link.given, key=lambda a: a.t_capture_s)
    end_s = last.t_capture_s + len(last.chunk) / 20
    after = loop.log.t_s > end_s + 1e-6
    after &= loop.log.t_s > 4.0
    assert after.any() and not flags[after].any()
    assert loop.log.modes()[-1] == "stand"
    assert legs.commands[-1] == LocoCommand(height_m=adapter.robot.nominal_height_m)


def test_the_state_sent_carries_the_last_applied_command():
    clock, sent = SimulatedClock(), []

    class Link:
        def offer(self, request):
            sent.append((clock.now(), request))

        def poll(self):
            return Answer(0.1, 1.0, marching_chunk(), 20.0) if clock.now() == pytest.approx(0.2) else None

    adapter = StillRobot(clock)
    loop = FastLoop(adapter.robot, adapter, Legs(), Link(), "push", clock)
    loop.run(0.6)
    for now_s, request in sent:
        assert request.state.shape == (68,) and request.task == "push" and request.t_capture_s <= now_s
        row = loop.log.action[max(0, round(now_s / 0.02) - 1)]
        if now_s > 0:
            np.testing.assert_allclose(request.state[-4:], [*row[FLAGS], row[HEIGHT]], atol=1e-6)


@pytest.mark.parametrize("fault", ["stale", "nan", "legs"])
def test_broken_sensors_or_legs_end_in_a_lasting_damped_stop(fault):
    clock = SimulatedClock()
    adapter, legs = StillRobot(clock), Legs()
    loop = FastLoop(adapter.robot, adapter, legs, None, "push", clock)
    loop.run(0.2)
    if fault == "stale":
        adapter.sensor_delay_s = 2 * SENSOR_LIMIT_S
    elif fault == "nan":
        adapter.q_rad = adapter.q_rad * np.nan
    else:
        legs.pose_rad = np.full(15, np.nan)
    assert loop.tick() == "damped"
    adapter.sensor_delay_s, legs.pose_rad = 0.0, adapter.robot.array("default")[:15]
    adapter.q_rad = adapter.robot.array("default")
    assert loop.tick() == "damped" and loop.stopped_because
    targets_rad, kp = adapter.sent[-1]
    assert not kp.any() and np.isfinite(targets_rad).all()


def test_an_exception_damps_the_robot_before_it_travels_on():
    adapter, legs = StillRobot(), Legs()
    legs.step = lambda command, body: 1 / 0
    with pytest.raises(ZeroDivisionError):
        FastLoop(adapter.robot, adapter, legs, None, "push").run(0.2)
    assert not adapter.sent[-1][1].any()


def test_the_watchdog_takes_a_hung_loop_off_the_motors():
    adapter, legs = StillRobot(), Legs()
    hang = iter([0.0] * 5 + [0.9])
    pose = legs.pose_rad
    legs.step = lambda command, body: time.sleep(next(hang, 0.0)) or pose
    loop = FastLoop(adapter.robot, adapter, legs, None, "push")
    report = loop.run(1.2)
    assert "hung" in report.stopped_because and not adapter.sent[-1][1].any()
    assert report.missed_deadlines >= 1


def test_a_process_that_was_suspended_goes_on_standing():
    code = (
        "from runtime_world import Legs, StillRobot\n"
        "from wbvla.runtime.loop import FastLoop\n"
        "robot = StillRobot()\n"
        "loop = FastLoop(robot.robot, robot, Legs(), None, 'push')\n"
        "print('ready', flush=True)\n"
        "report = loop.run(2.0)\n"
        "print(report.stopped_because, report.lateness_ms_max > 500)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    try:
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=10)[0].strip() == "None True"
    finally:
        process.kill()
        process.wait()


def test_the_loop_keeps_absolute_deadlines_in_real_time():
    adapter = StillRobot()
    loop = FastLoop(adapter.robot, adapter, Legs(), None, "push")
    report = loop.run(1.0)
    assert 45 <= report.ticks <= 50
    ticks = np.round((loop.log.t_s - loop.log.late_s - loop.log.t_s[0])[: loop.log.n] / 0.02, 2)
    np.testing.assert_allclose(ticks - np.round(ticks), 0, atol=0.02)  # lateness never accumulates
    assert report.lateness_ms_p50 < 5 and sum(report.mode_shares.values()) == pytest.approx(1)


def test_a_stop_request_ends_the_run():
    adapter, stop = StillRobot(), threading.Event()
    threading.Timer(0.1, stop.set).start()
    assert FastLoop(adapter.robot, adapter, Legs(), None, "push").run(60.0, stop).ticks < 50


def test_a_server_killed_while_the_robot_walks_leaves_it_standing_and_its_successor_is_followed():
    process, address = start_marching_server()
    try:
        adapter, legs = StillRobot(), Legs()
        with PolicyClient(address, reply_timeout_s=0.3) as client:
            loop = FastLoop(adapter.robot, adapter, legs, client, "push")
            killer = threading.Timer(1.0, process.kill)
            killer.start()
            report = loop.run(3.2)
            modes = loop.log.modes()
            assert modes[:40].count("chunk") > 10 and report.stopped_because is None
            assert modes[-1] == "stand" and legs.commands[-1].standing
            walked = np.flatnonzero(loop.log.action[: loop.log.n, FLAGS].any(1))
            assert loop.log.t_s[walked[-1]] - loop.log.t_s[0] < 1.0 + 1.0 + 0.1  # the last chunk lasts one second
            process.wait()
            process, _ = start_marching_server(int(address.rsplit(":", 1)[1]))
            loop.run(1.5)
            assert loop.log.modes()[-1] == "chunk" and not legs.commands[-1].standing
    finally:
        process.kill()
        process.wait()
