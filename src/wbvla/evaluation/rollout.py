"""One closed-loop episode in simulated time.

In: an environment, a policy, a seed, the policy's latency. Out: an `Episode`: verdict, subgoals, times, flag check.
Time is the environment's: every 20 ms the chunk player is asked what to do, every 0.1 s the policy gets the newest
(camera-delayed) observation, and its answer can be played one latency later, by age: the same code and the same
rules as on the robot, so that a slow policy is judged as slow as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wbvla.evaluation.policies import Operator, Policy
from wbvla.runtime.chunk import ChunkPlayer
from wbvla.types import FLAGS

QUERY_S = 0.1
TICK_S = 0.02
EPSILON_S = 1e-6  # simulated times are sums of ticks


@dataclass(frozen=True)
class Episode:
    """What happened.

    Attributes:
        success, fallen, failure: the task's verdict; failure is "", "fall" or "timeout".
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
    env: Any,
    policy: Policy | Operator,
    seed: int,
    latency_s: float = 0.0,
    film: Callable[[Any], None] | None = None,
) -> Episode:
    """Run one episode to its end.

    Args:
        env: a wbvla.sim.env.TaskEnv.
        policy: answers observations with chunks, or the operator.
        seed: of the episode.
        latency_s: from asking the policy to having its answer; multiples of 20 ms act.
        film: called with the environment after every tick.
    """
    started = time.perf_counter()
    env.reset(seed)
    policy.reset(seed)
    first_s, differences = env.t_s, 0
    source = _operator_actions if isinstance(policy, Operator) else _policy_actions
    for action in source(env, policy, latency_s):
        env.tick(action)
        differences += int(not np.array_equal(env.applied[FLAGS], action.loco.flags))
        if film is not None:
            film(env)
        info = env.info()
        if info["done"]:
            break
    return Episode(
        seed=seed,
        success=bool(info["success"]),
        fallen=bool(info["fallen"]),
        failure=info["failure"],
        subgoals={k: bool(v) for k, v in info["subgoals"].items()},
        simulated_s=round(env.t_s - first_s, 3),
        wall_s=time.perf_counter() - started,
        flag_differences=differences,
    )


def _policy_actions(env: Any, policy: Policy, latency_s: float):
    """Yield the action of every tick: ask, wait for the answer, play the newest one by age."""
    n = env.robot.n_lmo
    player = ChunkPlayer(env.robot.array("default")[n : n + 14], env.robot.nominal_height_m)
    pending: tuple[float, np.ndarray, float] | None = None
    start_s, next_query_s = env.t_s, 0.0
    while True:
        now_s = env.t_s - start_s  # times count from the episode's first state, as in the recordings
        if pending is not None and now_s >= pending[0] - EPSILON_S:
            player.put(pending[1], pending[2])
            pending = None
        if pending is None and now_s >= next_query_s - EPSILON_S:
            observation = env.observe()
            observation = replace(observation, t_capture_s=observation.t_capture_s - start_s)
            chunk = policy.infer(observation)["chunk"]
            next_query_s = now_s + QUERY_S
            if latency_s <= EPSILON_S:
                player.put(chunk, observation.t_capture_s)
            else:
                pending = (now_s + latency_s, chunk, observation.t_capture_s)
        yield player.at(now_s)[0]


def _operator_actions(env: Any, policy: Operator, latency_s: float):
    """Yield the operator's action of every tick: it acts 20 times a second, each action lasting 2 or 3 ticks."""
    steps = 0
    while True:
        action = policy.act(env.privileged())
        for _ in range(3 if steps % 2 else 2):
            yield action
        steps += 1


def measure_latency(env: Any, policy: Policy | Operator, seed: int, samples: int = 15) -> float:
    """Return the policy's median inference time on this machine, rounded up to whole 20 ms ticks.

    Rounding makes an evaluation repeatable: small differences in speed between two runs do not change the outcome.
    """
    if isinstance(policy, Operator):
        return 0.0
    env.reset(seed)
    policy.reset(seed)
    observation = env.observe()
    seconds = []
    for _ in range(samples + 3):
        started = time.perf_counter()
        policy.infer(observation)
        seconds.append(time.perf_counter() - started)
    return round(math.ceil(float(np.median(seconds[3:])) / TICK_S) * TICK_S, 3)
