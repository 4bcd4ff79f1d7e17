"""Laws of the closed loop: flags sent are flags applied, latency delays, seeds repeat, the clock-only replay."""

import numpy as np
import pytest

from runtime_world import Legs
from wbvla.evaluation.policies import (
    Modular,
    Operator,
    RandomActions,
    Replay,
    Zero,
    load_policy,
    mean_demonstration,
)
from wbvla.robots import get_robot
from wbvla.types import FLAGS, LocoCommand, Observation

pytest.importorskip("mujoco")

from wbvla.evaluation import rollout as rollout_module
from wbvla.evaluation.rollout import TICK_S, measure_latency
from wbvla.runtime.limits import Limiter
from wbvla.runtime.sim_robot import CAMERA_TICKS
from wbvla.sim.env import SETTLE_TICKS, TaskEnv

G1 = get_robot("g1")


class Scripted:
    """Sends other flags in every entry of its chunks and remembers what it was asked."""

    def reset(self, seed):
        self.asked_s = []
        self.rng = np.random.default_rng(seed)

    def infer(self, observation):
        self.asked_s.append(observation.t_capture_s)
        chunk = Zero("g1").infer(observation)["chunk"].copy()
        chunk[:, FLAGS] = self.rng.integers(-1, 2, (len(chunk), 3))
        return {"chunk": chunk}


def rollout(policy, seed, latency_s, legs=None):
    return rollout_module.rollout("cart-pushing", "g1", policy, seed, latency_s, controller=legs or Legs())


def test_flags_sent_are_flags_applied_and_reach_the_legs():
    legs = Legs()
    assert rollout(Scripted(), 3, 0.04, legs).flag_differences == 0
    sent = {(c.s_x, c.s_y, c.s_psi) for c in legs.commands}
    assert len(sent) > 5  # they did vary


def test_a_difference_would_be_noticed(monkeypatch):
    monkeypatch.setattr(Limiter, "loco", lambda self, command: LocoCommand(height_m=command.height_m))
    assert rollout(Scripted(), 3, 0.04).flag_differences > 0


def test_an_answer_acts_one_latency_after_the_question():
    class Walk(Scripted):
        def infer(self, observation):
            answer = super().infer(observation)
            answer["chunk"][:, FLAGS] = (1, 0, 0)
            return answer

    def ticks_before_walking(latency_s):
        legs = Legs()
        rollout(Walk(), 0, latency_s, legs)
        settled = next(i for i, c in enumerate(legs.commands) if c.s_x == 1)
        return settled - SETTLE_TICKS - CAMERA_TICKS

    # the loop looks for answers once a tick, so that none acts in the tick it was asked in
    assert [ticks_before_walking(t) for t in (0.0, 0.02, 0.1, 0.3)] == [1, 1, 5, 15]


def test_a_slow_policy_is_asked_when_it_is_free():
    fast, slow = Scripted(), Scripted()
    rollout(fast, 0, 0.02)
    rollout(slow, 0, 0.3)
    assert len(fast.asked_s) > len(slow.asked_s) > 2
    assert np.allclose(np.diff(fast.asked_s), 0.1, atol=1e-9)
    assert np.allclose(np.diff(slow.asked_s), 0.3, atol=1e-9)


def test_an_episode_depends_on_its_seed_only():
    first = rollout(Scripted(), 5, 0.04)
    rollout(Zero("g1"), 6, 0.04)
    again = rollout(Scripted(), 5, 0.04)
    assert (first.simulated_s, first.failure) == (again.simulated_s, again.failure)


def test_the_operators_actions_last_as_long_as_in_recording():
    class Standing(Operator):
        def __init__(self):
            self.acted = []

        def reset(self, seed):
            pass

        def act(self, privileged):
            self.acted.append(len(watched))
            return rest

    watched, operator = [], Standing()
    env = TaskEnv("cart-pushing", image_size=0, controller=Legs())
    env.reset(3)
    rest, began, recorded = env.body.last, env.ticks, [0]
    episode = rollout_module.rollout(
        "cart-pushing", "g1", operator, 3, controller=Legs(), watch=lambda env: watched.append(env.ticks)
    )
    while len(recorded) <= len(operator.acted):
        env.step(rest.to_vector())
        recorded.append(env.ticks - began)
    assert [*operator.acted, len(watched)] == recorded and recorded[:4] == [0, 2, 5, 7]
    assert watched == list(range(began + 1, began + 1 + len(watched)))
    assert (episode.simulated_s, episode.failure) == (0.02 * len(watched), env.info()["failure"])


def test_latency_is_whole_ticks():
    assert measure_latency(Zero("g1"), 0, "g1") == pytest.approx(0.02)


def demonstrations():
    """Three episodes of 3, 4 and 5 rows: arm joint 0 holds the episode's number, flag s_x votes, s_y disagrees."""
    rows, times, episodes = [], [], []
    for episode, length in enumerate((3, 4, 5)):
        for i in range(length):
            row = np.zeros(20, np.float32)
            row[0], row[16], row[17] = episode, 1 if episode < 2 else -1, episode - 1
            rows.append(row)
            times.append(i / 20)
            episodes.append(episode)
    return np.array(rows), np.array(times), np.array(episodes)


def test_mean_demonstration_averages_values_and_votes_on_flags():
    mean = mean_demonstration(*demonstrations())
    assert mean.shape == (4, 20)  # the median episode
    assert np.allclose(mean[:, 0], 1.0)
    assert (mean[:, 16] == 1).all()
    assert (mean[:, 17] == 0).all()  # -1, 0, 1: a tie is decided for standing


def test_replay_sees_nothing_but_the_clock():
    mean = np.zeros((40, 20), np.float32)
    mean[:, 0] = np.arange(40)
    replay = Replay(mean)
    replay.reset(0)
    rng = np.random.default_rng(0)

    def ask(t_s):
        picture = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        return replay.infer(Observation(picture, rng.normal(size=68), str(t_s), t_s))["chunk"]

    assert np.array_equal(ask(0.5), ask(0.5))
    assert np.array_equal(ask(0.5)[:, 0], np.arange(10, 30))
    assert np.array_equal(ask(1.5)[:, 0], np.minimum(np.arange(30, 50), 39))  # the last action is held


def test_the_modular_baseline_hands_over_when_the_robot_has_arrived():
    class Learned(Scripted):
        image_size = 0

        def infer(self, observation):
            super().infer(observation)
            return {"chunk": Zero("g1").infer(observation)["chunk"]}

    learned, reached, places = Learned(), [], []
    modular = Modular("cart-pushing", "g1", learned)

    def watch(env):
        reached.append(env.info()["subgoals"]["approach"])
        places.append(env.plant.pelvis_pose()[0][:2])

    episode = rollout_module.rollout("cart-pushing", "g1", modular, 100_000, watch=watch)
    arrived = reached.index(True)
    way_m = np.linalg.norm(np.diff(places[::25], axis=0), axis=1)
    assert way_m[: arrived // 25].sum() > 0.15, "the operator walks there"
    assert np.linalg.norm(places[-1] - places[arrived + 50]) < 0.2, "the other one stands"
    assert learned.asked_s and min(learned.asked_s) > TICK_S * (arrived - 10)
    assert episode.subgoals["approach"] and not episode.success and episode.flag_differences == 0


def test_random_actions_follow_from_the_seed_and_stay_within_limits():
    policy, (low, high) = load_policy("random", "cart-pushing", "g1"), G1.range_rad[G1.n_lmo : G1.n_lmo + 14].T
    assert isinstance(policy, RandomActions)

    def answers(seed):
        policy.reset(seed)
        return np.array([policy.infer(None)["chunk"] for _ in range(50)])

    assert np.array_equal(answers(1), answers(1)) and not np.array_equal(answers(1), answers(2))
    actions = answers(1)
    assert (actions[..., :14] >= low - 1e-6).all() and (actions[..., :14] <= high + 1e-6).all()
    assert set(np.unique(actions[..., FLAGS])) == {-1, 0, 1}


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"policy": "nowhere/at/all"}, "expected operator"),
        ({"policy": "replay"}, "--dataset"),
        ({"policy": "blind"}, "--checkpoint"),
        ({"policy": "modular"}, "--checkpoint"),
    ],
)
def test_a_wrong_policy_names_the_fix(arguments, fix):
    with pytest.raises(ValueError, match=fix):
        load_policy(task="cart-pushing", robot="g1", **arguments)
