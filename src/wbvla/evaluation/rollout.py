"""One closed-loop episode in simulated time.

In: a task, a robot, a policy, a seed, the policy's latency. Out: an `Episode`: verdict, subgoals, times, flag check.
A policy drives the very loop that runs a robot (runtime.loop) on a simulated clock: ten times a second it gets the
newest (camera-delayed) picture, and its answer can be played one latency later, by age. A slow policy is judged as slow
as it is; only the machine's jitter differs from wall time. The operator acts in the environment directly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wbvla.evaluation.policies import CHUNK_FPS, Modular, Operator, Policy
from wbvla.runtime.wire import Answer, Request
from wbvla.types import FLAGS, Observation, state_names

TICK_S = 0.02


@dataclass(frozen=True)
class Episode:
    """What happened.

    Attributes:
        success, fallen, failure: the task's verdict; failure is "", "fall", "drop" or "timeout".
        subgoals: reached or not, by name.
        simulated_s, wall_s: from the first observation to the verdict, and what computing it took.
        flag_differences: 50 Hz ticks in which the flags sent were not the flags applied; a law says 0.
    """

    seed: int
    success: bool
    fallen: bool
    failure: str
    subgoals: dict[str, bool]
    simulated_s: float
    wall_s: float
    flag_differences: int


def rollout(
    task: str,
    robot: str,
    policy: Policy | Operator,
    seed: int,
    latency_s: float = 0.0,
    image_size: int = 0,
    controller: Any = None,
    watch: Callable[[Any], None] | None = None,
    unseen: tuple[str, ...] = (),
) -> Episode:
    """Run one episode to its end.

    Args:
        task, robot: names.
        policy: answers observations with chunks, or the operator.
        seed: of the episode.
        latency_s: from asking the policy to having its answer; multiples of 20 ms act, one at the least.
        image_size: side of the head picture in pixels; 0 for policies that do not look.
        controller: the legs; None uses the shipped ones.
        watch: called with the environment (sim.env.TaskEnv) after every tick.
        unseen: the task's axes of variation that are drawn from their unseen ranges.
    """
    from wbvla.lmo.controller import shipped_controller

    controller = controller or shipped_controller(robot)
    policy.reset(seed)
    if isinstance(policy, Operator):
        return _operated(task, robot, policy, seed, controller, watch, unseen)
    from wbvla.runtime.clock import SimulatedClock
    from wbvla.runtime.lockstep import LockstepLink
    from wbvla.runtime.loop import FastLoop
    from wbvla.runtime.sim_robot import SimRobot

    started, clock = time.perf_counter(), SimulatedClock()
    watchers = [w for w in (watch, policy.watch if isinstance(policy, Modular) else None) if w is not None]
    adapter = SimRobot(
        task, robot, controller, clock, seed, image_size, lambda env: [w(env) for w in watchers], unseen
    )  # fmt: skip
    try:
        adapter.camera()  # on a robot, the first picture goes into greeting the server
        link = LockstepLink(lambda request: answer(policy, request), clock, latency_s)
        loop = FastLoop(adapter.robot, adapter, controller, link, adapter.task_text, clock)
        report = loop.run(adapter.env.task.time_limit_s + 1.0, adapter.done)
        return conclude(adapter.env.info(), seed, report.ticks, started, report.flag_differences)
    finally:
        adapter.close()


def answer(policy: Policy, request: Request) -> Answer:
    """Let a policy of this process answer a request of the loop."""
    observation = Observation(request.image, request.state, request.task, request.t_capture_s)
    return Answer(request.t_capture_s, 0.0, policy.infer(observation)["chunk"], CHUNK_FPS)


def conclude(verdict: dict[str, Any], seed: int, ticks: int, started: float, flag_differences: int) -> Episode:
    """Make an Episode of the environment's (or `wbvla run`'s) verdict."""
    return Episode(
        seed=seed,
        success=bool(verdict["success"]),
        fallen=bool(verdict["fallen"]),
        failure=verdict["failure"] or ("" if verdict["success"] else "timeout"),
        subgoals={k: bool(v) for k, v in verdict["subgoals"].items()},
        simulated_s=round(ticks * TICK_S, 3),
        wall_s=time.perf_counter() - started,
        flag_differences=flag_differences,
    )


def _operated(task: str, robot: str, operator: Operator, seed: int, controller, watch, unseen) -> Episode:
    """Let the operator act 20 times a second, each action lasting 2 or 3 ticks in turn, as in recording."""
    from wbvla.sim.env import SETTLE_TICKS, TaskEnv

    started, differences = time.perf_counter(), 0

    def after_tick(env) -> None:
        nonlocal differences
        differences += int(not np.array_equal(env.applied[FLAGS], action.loco.flags))
        if watch is not None:
            watch(env)

    env = TaskEnv(task, robot, image_size=0, controller=controller, unseen=unseen)
    try:
        env.reset(seed)
        while not env.info()["done"]:
            action = operator.act(env.privileged())
            env.step(action.to_vector(), after_tick)
        return conclude(env.info(), seed, env.ticks - SETTLE_TICKS, started, differences)
    finally:
        env.close()


def measure_latency(policy: Policy | Operator, image_size: int, robot: str, samples: int = 15) -> float:
    """Return the policy's median inference time on this machine, rounded up to whole 20 ms ticks.

    Rounding makes an evaluation repeatable: small differences in speed between two runs do not change the outcome.
    """
    from wbvla.robots import get_robot

    if isinstance(policy, Operator):
        return 0.0
    policy.reset(0)
    n_state = len(state_names(get_robot(robot).joints))
    picture = np.zeros((image_size, image_size, 3), np.uint8)
    observation = Observation(picture, np.zeros(n_state, np.float32), "measure", 0.0)
    seconds = []
    for _ in range(samples + 3):
        started = time.perf_counter()
        policy.infer(observation)
        seconds.append(time.perf_counter() - started)
    return round(math.ceil(float(np.median(seconds[3:])) / TICK_S) * TICK_S, 3)
