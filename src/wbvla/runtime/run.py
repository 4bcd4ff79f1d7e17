"""`wbvla run`: the robot's process: the fast loop on a robot, asking a policy server.

In: a server's address, a task and a seed. Out: a report of decisions, timing and the task's verdict; a video.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wbvla.runtime.client import PolicyClient
    from wbvla.runtime.http.link import HttpLink
    from wbvla.runtime.sim_robot import SimRobot

PATIENCE_S = 20.0  # for the server's first answer, which may include loading and compiling
VIDEO_FPS = 10


@dataclass(frozen=True)
class RunRobot:
    """Settings of the robot process.

    Attributes:
        server: address of `wbvla serve`: tcp://HOST:PORT, or with --http there http://HOST:PORT.
        task: name of the simulated task.
        robot: name of the robot.
        seconds: longest run; it ends earlier when the task is done.
        seed: of the episode; see sim/seeds.py for the ranges.
        image_size: side of the head camera's picture in pixels; use what the policy was trained with.
        realtime: wall time; otherwise simulated time, in which every answer takes `latency_s`.
        latency_s: age of an answer on arrival in simulated time.
        keys: folder with robot.key_secret and server.key, when the server demands them.
        json: write the report to this file.
        video: write a video of the run to this file (mp4).
    """

    server: str = "tcp://127.0.0.1:5757"
    task: str = "cart-pushing"
    robot: str = "g1"
    seconds: float = 30.0
    seed: int = 100_000
    image_size: int = 96
    realtime: bool = True
    latency_s: float = 0.1
    keys: str | None = None
    json: str | None = None
    video: str | None = None


def run(cfg: RunRobot) -> dict:
    """Run one episode and return its report. Raises ValueError when no server answers or a setting is wrong."""
    from wbvla.lmo.controller import shipped_controller
    from wbvla.runtime.clock import SimulatedClock, WallClock
    from wbvla.runtime.signals import stop_on_signals
    from wbvla.runtime.sim_robot import SimRobot

    if not cfg.seconds > 0:
        raise ValueError(f"seconds: got {cfg.seconds}, expected more than 0")
    clock = WallClock() if cfg.realtime else SimulatedClock()
    period_s = 0.1 if cfg.realtime else 0.0
    with connect(cfg, period_s) as client:
        adapter = SimRobot(cfg.task, cfg.robot, shipped_controller(cfg.robot), clock, cfg.seed, cfg.image_size)
        try:
            report = run_episode(cfg, adapter, client, clock, stop_on_signals(adapter.done))
        finally:
            adapter.close()
    if cfg.json:
        _write_json(Path(cfg.json), report)
    print(describe(report), flush=True)
    if cfg.video:
        write_video(Path(cfg.video), adapter)
    return report


def connect(cfg: RunRobot, period_s: float) -> PolicyClient | HttpLink:
    """Return the link to the server, over ZeroMQ or HTTP. Raises ValueError: a useless address or keys."""
    if not cfg.server.startswith(("http://", "https://")):
        from wbvla.runtime.client import PolicyClient

        return PolicyClient(cfg.server, cfg.keys, period_s)
    from wbvla.runtime.http.link import HttpLink
    from wbvla.xvla.config import robot_facts

    if cfg.keys is not None:
        raise ValueError("keys: only go with tcp://; a token goes into the address, http://robot:TOKEN@HOST:PORT")
    return HttpLink(cfg.server, robot_facts(cfg.robot, ())["id"], period_s)


def run_episode(
    cfg: RunRobot,
    adapter: SimRobot,
    client: PolicyClient | HttpLink,
    clock,
    signals: AbstractContextManager | None = None,
) -> dict:
    """Drive one robot through one episode, until `adapter.done` or `cfg.seconds`; return the report.

    `signals` is entered when the robot starts to move; waiting for the server before that is ended by Ctrl-C as usual.
    """
    from wbvla.runtime.lockstep import LockstepLink, ask
    from wbvla.runtime.loop import FastLoop

    greet(adapter, client)
    lockstep = LockstepLink(lambda request: ask(client, request, PATIENCE_S), clock, cfg.latency_s)
    link = client if cfg.realtime else lockstep
    loop = FastLoop(adapter.robot, adapter, adapter.controller, link, adapter.task_text, clock)
    with signals or nullcontext():
        timing = loop.run(cfg.seconds, adapter.done)
    verdict, (height_m, tilt_rad) = adapter.env.info(), adapter.pelvis()
    return {
        "task": cfg.task,
        "robot": cfg.robot,
        "seed": cfg.seed,
        "realtime": cfg.realtime,
        "success": bool(verdict["success"]),
        "fallen": bool(verdict["fallen"]),
        "failure": verdict["failure"],
        "subgoals": {name: bool(value) for name, value in verdict["subgoals"].items()},
        "pelvis_height_m": height_m,
        "tilt_deg": float(np.degrees(tilt_rad)),
        "loop": timing.to_dict(),
        "client": dict(client.counts),
        "round_trip_ms_p50": _percentile(client.round_trip_ms, 50),
        "round_trip_ms_p99": _percentile(client.round_trip_ms, 99),
        "server_ms_p50": _percentile(client.server_ms, 50),
    }


def greet(adapter: SimRobot, client: PolicyClient | HttpLink) -> None:
    """Show the server the first picture and wait for its answer, so that nobody starts without a policy."""
    from wbvla.runtime.lockstep import ask
    from wbvla.runtime.wire import Request
    from wbvla.types import LocoCommand

    until_s = time.monotonic() + PATIENCE_S
    while (frame := adapter.camera()) is None:
        if time.monotonic() > until_s:
            raise ValueError(f"camera: no picture in {PATIENCE_S:.0f} s; is software or GPU rendering installed?")
        time.sleep(0.01)
    body, _ = adapter.read()
    state = body.to_state(LocoCommand(height_m=adapter.robot.nominal_height_m))
    ask(client, Request(frame[0], state, adapter.task_text, frame[1]), PATIENCE_S)


def describe(report: dict) -> str:
    """Return the report as a few lines for people."""
    loop = report["loop"]
    shares = "  ".join(f"{mode} {share:.1%}" for mode, share in loop["mode_shares"].items())
    subgoals = "  ".join(f"{name} {'yes' if done else 'no'}" for name, done in report["subgoals"].items())
    verdict = "success" if report["success"] else "fallen" if report["fallen"] else "no success"
    policy = f"  policy p50 {report['server_ms_p50']:.1f} ms" if report["server_ms_p50"] else ""  # HTTP does not tell
    lines = [
        f"{report['task']} on {report['robot']}, seed {report['seed']}: {verdict}  ({subgoals})",
        f"decisions   {shares}",
        f"lateness    p50 {loop['lateness_ms_p50']:.3f} ms  p99 {loop['lateness_ms_p99']:.3f} ms  "
        f"max {loop['lateness_ms_max']:.3f} ms  missed {loop['missed_deadlines']} of {loop['ticks']}",
        f"work        p50 {loop['work_ms_p50']:.3f} ms  p99 {loop['work_ms_p99']:.3f} ms  "
        f"max {loop['work_ms_max']:.3f} ms",
        f"server      {report['client']['answered']} answers  round trip p50 {report['round_trip_ms_p50']:.1f} ms  "
        f"p99 {report['round_trip_ms_p99']:.1f} ms{policy}",
        f"at the end  pelvis {report['pelvis_height_m']:.2f} m  tilt {report['tilt_deg']:.0f} deg",
    ]
    if loop["stopped_because"]:
        lines.append(f"stopped     {loop['stopped_because']}")
    return "\n".join(lines)


def write_video(path: Path, adapter: SimRobot) -> None:
    """Draw the remembered poses, head camera inset, and write them as H.264."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    plant = adapter.env.plant
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=VIDEO_FPS)
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        for qpos in adapter.video_qpos:
            picture = plant.render_from("side", 480, 360, qpos)
            picture[8:152, -152:-8] = plant.render(144, qpos)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    plant.close()


def _percentile(values, share: float) -> float:
    return float(np.percentile(list(values), share)) if values else 0.0


def _write_json(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, path)
