"""Laws of chunk playback and limits: what the legs get is what was sent, for as long as it was sent for."""

from __future__ import annotations

import numpy as np
import pytest

from wbvla.robots import get_robot
from wbvla.runtime.chunk import HEIGHT_RAMP_M_S, HOLD_S, ChunkPlayer
from wbvla.runtime.limits import ARM_RATE_RAD_S, Limiter
from wbvla.types import ARM, FLAGS, HEIGHT, LocoCommand

NOMINAL_M = 0.74


def player() -> ChunkPlayer:
    return ChunkPlayer(np.zeros(14), NOMINAL_M)


def random_chunk(rng: np.random.Generator, steps: int) -> np.ndarray:
    chunk = rng.normal(size=(steps, 20)).astype(np.float32)
    chunk[:, FLAGS] = rng.integers(-1, 2, (steps, 3))
    chunk[:, HEIGHT] = rng.uniform(0.5, 0.76, steps)
    return chunk


def test_flags_sent_are_the_flags_applied_and_never_outlive_their_chunk():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p, sent, now = player(), [], float(rng.uniform(-5, 1e5))
        for _ in range(60):
            now += rng.exponential(0.1)
            if rng.random() < 0.4:
                t, fps, steps = now - rng.exponential(0.2), rng.uniform(5, 50), int(rng.integers(1, 25))
                chunk = random_chunk(rng, steps)
                if p.put(chunk, t, fps):
                    sent.append((t, fps, chunk))
            action, mode = p.at(now)
            flags = np.zeros(3)
            if sent:
                t, fps, chunk = max(sent, key=lambda s: s[0])
                index = int((now - t) * fps + 1e-6)
                if index < len(chunk):
                    flags = chunk[index, FLAGS]
            np.testing.assert_array_equal(action.loco.flags, flags)
            assert action.loco.standing or mode == "chunk"


def test_silence_ends_standing_at_the_nominal_height_with_the_arms_held():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        p, steps = player(), int(rng.integers(1, 40))
        chunk = random_chunk(rng, steps)
        p.put(chunk, 10.0, 20.0)
        end = 10.0 + steps / 20
        for late in (1e-4, HOLD_S - 1e-3):
            action, mode = p.at(end + late)
            assert mode == "hold" and action.loco.standing
            assert action.loco.height_m == pytest.approx(chunk[-1, HEIGHT], abs=1e-6)
            np.testing.assert_array_equal(action.arms.positions_rad, chunk[-1, ARM])
        heights = np.array([p.at(end + t)[0].loco.height_m for t in np.arange(0, 6, 0.02)])
        assert np.abs(np.diff(heights)).max() <= HEIGHT_RAMP_M_S * 0.02 + 1e-6
        action, mode = p.at(end + 6)
        assert mode == "stand" and action.loco == LocoCommand(height_m=NOMINAL_M)
        np.testing.assert_array_equal(action.arms.positions_rad, chunk[-1, ARM])


def test_arms_are_interpolated_by_age():
    p = player()
    chunk = np.zeros((20, 20), np.float32)
    chunk[:, ARM] = np.arange(20)[:, None]
    chunk[:, HEIGHT] = NOMINAL_M
    p.put(chunk, 100.0, 20.0)
    for age in np.arange(0.0, 1.0, 0.013):
        action, mode = p.at(100.0 + age)
        assert mode == "chunk"
        np.testing.assert_allclose(action.arms.positions_rad, min(20 * age, 19), atol=1e-4)


def test_the_newest_observation_wins_in_any_order_of_arrival():
    rng = np.random.default_rng(0)
    chunks = [random_chunk(rng, 20) for _ in range(6)]
    for order in (rng.permutation(6) for _ in range(50)):
        p = player()
        taken = [p.put(chunks[i], float(i) / 10) for i in order]
        assert taken == [i == max(order[: k + 1]) for k, i in enumerate(order)]
        assert p.t_observation_s == 0.5
        np.testing.assert_array_equal(p.at(0.5)[0].loco.flags, chunks[5][0, FLAGS])


def test_before_the_first_chunk_and_before_its_time_the_robot_stands():
    p = player()
    assert p.at(0.0)[1] == "stand"
    chunk = np.zeros((20, 20), np.float32)
    chunk[:, FLAGS] = 1
    p.put(chunk, 5.0)
    action, mode = p.at(4.99)
    assert mode == "stand" and action.loco == LocoCommand(height_m=NOMINAL_M)


def test_a_played_chunk_is_a_copy():
    p, chunk = player(), np.zeros((20, 20), np.float32)
    p.put(chunk, 0.0)
    chunk[:, FLAGS] = 1
    assert p.at(0.1)[0].loco.standing


@pytest.mark.parametrize(
    ("chunk", "t", "fps", "what"),
    [
        (np.zeros((0, 20)), 0.0, 20.0, "shape"),
        (np.zeros((20, 19)), 0.0, 20.0, "shape"),
        (np.full((20, 20), np.nan), 0.0, 20.0, "non-finite"),
        (np.full((20, 20), 0.5), 0.0, 20.0, "ternary"),
        (np.zeros((20, 20)), np.inf, 20.0, "t_observation_s"),
        (np.zeros((20, 20)), 0.0, 0.0, "fps"),
        (np.zeros((20, 20)), 0.0, 1e-9, "fps"),
        (np.zeros((200, 20)), 0.0, 20.0, "at most"),
    ],
)
def test_a_bad_chunk_is_refused_with_the_reason(chunk, t, fps, what):
    with pytest.raises(ValueError, match=what):
        player().put(chunk, t, fps)


def test_joint_targets_obey_range_and_rate_and_reach_the_goal():
    robot = get_robot("g1")
    low, high = robot.range_rad.T.copy()
    reach = (robot.array("effort") / robot.array("kp"))[:15]  # beyond it a leg's target adds no torque
    low[:15], high[:15] = low[:15] - reach, high[:15] + reach
    rng = np.random.default_rng(0)
    limiter = Limiter(robot, 0.02)
    limiter.start(robot.array("default"))
    before = limiter.targets_rad.copy()
    for _ in range(300):
        out = limiter.joints(rng.normal(0, 20, 15), rng.normal(0, 4, 14))
        assert (out >= low).all() and (out <= high).all()
        assert np.abs(out - before)[15:].max() <= ARM_RATE_RAD_S * 0.02 + 1e-9
        before = out.copy()
    goal = rng.uniform(low[15:], high[15:])
    for _ in range(200):
        out = limiter.joints(np.zeros(15), goal)
    np.testing.assert_allclose(out[15:], goal)
    with pytest.raises(ValueError, match="finite"):
        limiter.joints(np.full(15, np.nan), goal)


def test_start_up_moves_the_legs_from_where_they_are():
    robot = get_robot("g1")
    start, goal = robot.array("default"), np.zeros(15)
    limiter = Limiter(robot, 0.02)
    limiter.start(start, blend_s=1.0)
    path = np.array([limiter.joints(goal, start[15:])[:15].copy() for _ in range(60)])
    assert np.abs(path[0] - start[:15]).max() <= 0.02 * np.abs(start[:15] - goal).max() + 1e-9
    assert np.abs(np.diff(path, axis=0)).max() <= 0.03
    np.testing.assert_allclose(path[-1], goal)


def test_limits_change_heights_but_never_flags():
    robot = get_robot("g1")
    limiter = Limiter(robot, 0.02)
    for s in (-1, 0, 1):
        for height in (0.0, 0.6, 2.0):
            command = limiter.loco(LocoCommand(s, -s, s, height))
            assert (command.s_x, command.s_y, command.s_psi) == (s, -s, s)
            assert robot.height_range_m[0] <= command.height_m <= robot.height_range_m[1]


def test_the_simulation_limits_arms_at_the_same_rate():
    pytest.importorskip("mujoco")
    from wbvla.sim import body

    assert body.ARM_RATE_RAD_S == ARM_RATE_RAD_S
