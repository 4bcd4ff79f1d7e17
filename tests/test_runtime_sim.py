"""The whole runtime on the simulated humanoid: real physics, real legs, real sockets, a server that gets killed."""

from __future__ import annotations

import json
import signal
import threading

import numpy as np
import pytest

from runtime_world import marching_chunk, running, start_marching_server

pytest.importorskip("mujoco")

from wbvla.lmo.controller import shipped_controller, weights_folder
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.clock import SimulatedClock, WallClock
from wbvla.runtime.http.server import HttpServer
from wbvla.runtime.loop import FastLoop
from wbvla.runtime.run import RunRobot, run, run_episode
from wbvla.runtime.serve import ZeroPolicy
from wbvla.runtime.server import PolicyServer
from wbvla.runtime.sim_robot import SimRobot
from wbvla.runtime.wire import Answer

pytestmark = pytest.mark.alone

SEED = 100_000  # validation


@pytest.fixture(scope="module")
def legs():
    try:
        weights_folder("g1")
    except ValueError as error:
        pytest.skip(str(error))
    return shipped_controller("g1")


class March:
    """A link that answers each offer at once with one second of walking; remembers the frames it was shown."""

    def __init__(self, height_m: float) -> None:
        self.chunk, self.waiting, self.shown = marching_chunk(height_m), None, []

    def offer(self, request) -> None:
        self.shown.append(request)
        self.waiting = Answer(request.t_capture_s, 0.0, self.chunk, 20.0)

    def poll(self):
        answer, self.waiting = self.waiting, None
        return answer


def test_the_loop_and_the_environment_are_the_same_world(legs):
    from wbvla.sim.env import TaskEnv

    clock = SimulatedClock()
    robot = SimRobot("cart-pushing", "g1", legs, clock, SEED, image_size=32)
    loop = FastLoop(robot.robot, robot, legs, March(0.75), robot.task_text, clock)
    loop.run(1.2)
    ours = robot.env.plant.data.qpos.copy()
    robot.close()
    env = TaskEnv(image_size=0, controller=legs)
    env.reset(SEED)
    for action in loop.log.action[: loop.log.n]:
        env.tick(action)
    np.testing.assert_allclose(ours, env.plant.data.qpos, atol=2e-3)


def test_pictures_come_late_with_the_time_they_were_taken(legs):
    clock = SimulatedClock()
    robot = SimRobot("cart-pushing", "g1", legs, clock, SEED, image_size=32)
    link = March(0.75)
    loop = FastLoop(robot.robot, robot, legs, link, robot.task_text, clock)
    arrivals, offer = [], link.offer
    link.offer = lambda request: (arrivals.append(clock.now()), offer(request))
    loop.run(1.0)
    robot.close()
    ages = np.array(arrivals) - [r.t_capture_s for r in link.shown]
    assert len(link.shown) == 10 and link.shown[0].image.shape == (32, 32, 3)
    assert (ages[1:] > 0.02).all() and (ages[1:] < 0.1).all()
    assert np.abs(link.shown[-1].image.astype(int) - link.shown[0].image).max() > 10


def test_gains_of_zero_let_the_robot_sink(legs):
    clock = SimulatedClock()
    robot = SimRobot("cart-pushing", "g1", legs, clock, SEED, image_size=0)
    kd = robot.robot.array("kd")
    for _ in range(100):
        robot.send(robot.robot.array("default"), np.zeros(29), kd)
    height_m, _ = robot.pelvis()
    robot.close()
    assert height_m < 0.6 and robot.done.is_set()


@pytest.mark.parametrize(("kind", "realtime"), [(PolicyServer, False), (PolicyServer, True), (HttpServer, True)])
def test_run_through_the_sockets_reports_what_happened(legs, tmp_path, kind, realtime):
    files = {"json": str(tmp_path / "run.json"), "video": str(tmp_path / "run.mp4")}
    with running(kind(ZeroPolicy("g1"), port=0)) as server:
        report = run(RunRobot(server=server.address, seconds=1.5, realtime=realtime, image_size=32, **files))
    assert json.loads((tmp_path / "run.json").read_text()) == report
    assert (tmp_path / "run.mp4").stat().st_size > 1000
    assert not report["success"] and not report["fallen"] and report["pelvis_height_m"] > 0.6
    shares = report["loop"]["mode_shares"]
    assert shares["chunk"] > 0.5 and shares["damped"] == 0 and sum(shares.values()) == pytest.approx(1)


def test_without_a_server_the_robot_does_not_start(legs, monkeypatch):
    import wbvla.runtime.run as module

    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    with pytest.raises(ValueError, match="127.0.0.1:9 .*wbvla serve"):
        run(RunRobot(server="tcp://127.0.0.1:9", image_size=32, realtime=False))


def test_ctrl_c_while_waiting_for_the_server_is_obeyed_at_once(legs, monkeypatch):
    monkeypatch.setattr("wbvla.runtime.lockstep.ask", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(RunRobot(server="tcp://127.0.0.1:9", image_size=32, realtime=False))


@pytest.mark.slow
def test_a_server_killed_while_the_robot_walks_leaves_the_humanoid_standing(legs):
    process, address = start_marching_server()
    cfg = RunRobot(server=address, seconds=13.0, seed=SEED, image_size=32)
    try:
        clock = WallClock()
        with PolicyClient(address) as client:
            robot = SimRobot(cfg.task, cfg.robot, legs, clock, cfg.seed, cfg.image_size)
            threading.Timer(2.0, process.kill).start()
            report = run_episode(cfg, robot, client, clock)
            robot.close()
    finally:
        process.kill()
        process.wait()
    assert report["pelvis_height_m"] > 0.5 and report["tilt_deg"] < 15
    assert report["loop"]["mode_shares"]["chunk"] > 0.05 and report["loop"]["mode_shares"]["stand"] > 0.5
