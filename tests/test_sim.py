"""Laws of the simulated world: reproducible, honest contact, true times, nothing privileged in the observation."""

import itertools
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from sim_world import StandStill
from wbvla.robots import get_robot
from wbvla.sim.body import ARM_RATE_RAD_S, WholeBodySim
from wbvla.sim.env import TaskEnv
from wbvla.sim.plant import TICK_S, Plant
from wbvla.sim.seeds import SPLITS, seeds_for
from wbvla.sim.tasks import get_task
from wbvla.types import ARM, FLAGS, ArmTarget, LocoCommand


@pytest.fixture(scope="module")
def blind_env():
    return TaskEnv(image_size=0, controller=StandStill())


@pytest.fixture(scope="module")
def env():
    env = TaskEnv(image_size=64, controller=StandStill())
    try:
        env.reset(0)
    except ValueError as error:
        pytest.skip(str(error))
    return env


def rollout(env, seed, steps=6):
    observations = [env.reset(seed)]
    action = env.applied
    action[ARM.start] += 0.3
    for _ in range(steps):
        observations.append(env.step(action)[0])
    return observations


def test_splits_do_not_overlap_and_end():
    for a, b in itertools.combinations(SPLITS.values(), 2):
        assert not set(a) & set(b)
    assert seeds_for("test", 2, offset=3) == [200_003, 200_004]
    with pytest.raises(ValueError, match="1000 seeds"):
        seeds_for("validation", 10, offset=995)
    with pytest.raises(ValueError, match="expected one of"):
        seeds_for("exam", 1)


def test_same_seed_same_episode_bit_for_bit(env):
    first, other, again = rollout(env, 7), rollout(env, 8), rollout(env, 7)
    for a, b in zip(first, again):
        assert np.array_equal(a.state, b.state) and np.array_equal(a.image, b.image)
        assert a.t_capture_s == b.t_capture_s
    assert not np.array_equal(first[0].image, other[0].image)


def test_a_new_environment_repeats_the_episode(env):
    first = rollout(env, 11)[-1]
    second = rollout(TaskEnv(image_size=64, controller=StandStill()), 11)[-1]
    assert np.array_equal(first.state, second.state) and np.array_equal(first.image, second.image)


def test_twenty_actions_are_one_second(blind_env):
    blind_env.reset(0)
    start = blind_env.t_s
    for _ in range(20):
        blind_env.step(blind_env.applied)
    assert blind_env.t_s - start == pytest.approx(1.0)
    assert blind_env.plant.data.time == pytest.approx(blind_env.t_s)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_picture_is_as_old_as_it_says(env, seed):
    env.reset(seed)
    seen = {}
    for _ in range(12):
        env.tick(env.body.last)
        seen[round(env.t_s, 4)] = env.plant.render(64)
    observation = env.observe()
    assert 0.03 - TICK_S / 2 <= env.t_s - observation.t_capture_s <= 0.07 + TICK_S / 2
    assert np.array_equal(observation.image, seen[round(observation.t_capture_s, 4)])


def test_only_contact_can_move_the_cart(blind_env):
    model = blind_env.plant.model
    assert model.neq == 0 and model.nmocap == 0 and model.ntendon == 0
    assert (model.body_gravcomp == 0).all()
    assert (model.actuator_trntype == 0).all() and model.nu == 29
    moved = {model.joint(int(i)).name for i in model.actuator_trnid[:, 0]}
    assert not moved & {"cart_x", "cart_y", "cart_yaw"}
    assert (model.geom_friction[model.geom_contype > 0] <= [1.0, 0.05, 0.01]).all()
    assert (model.dof_damping[model.joint("cart_x").dofadr[0] :] == 0).all()


@pytest.mark.parametrize("kg, rolling_N", [(50.0, 10.0), (80.0, 22.0)])
def test_the_cart_weighs_and_resists_as_drawn(blind_env, kg, rolling_N):
    blind_env.reset(0, cart_kg=kg, rolling_N=rolling_N, load_height_m=0.3)
    model, cart = blind_env.plant.model, blind_env.plant.model.body("cart").id
    assert model.body_subtreemass[cart] == pytest.approx(kg)
    assert model.dof_M0[model.joint("cart_x").dofadr[0]] == pytest.approx(kg)
    assert abs(push_cart(blind_env.plant, rolling_N - 1.0, 50)[0]) < 0.005
    moved = push_cart(blind_env.plant, rolling_N + 10.0, 50)[0]
    assert moved == pytest.approx(0.5 * 10.0 / kg, rel=0.1), "half a t squared, t = 1 s"


def push_cart(plant, force_n, ticks):
    plant.reset(-3.0, 0.0, 0.0)
    for _ in range(ticks):
        plant.data.qfrc_applied[plant.model.joint("cart_x").dofadr[0]] = force_n
        plant.tick()
    plant.data.qfrc_applied[:] = 0
    return [float(plant.data.joint(f"cart_{a}").qpos[0]) for a in ("x", "y", "yaw")]


def test_a_cart_at_rest_stays(blind_env):
    assert np.abs(push_cart(blind_env.plant, 0.0, 250)).max() < 1e-9


def test_moving_the_cart_away_changes_nothing_in_the_state(blind_env):
    near = rollout(blind_env, 3)
    placed = blind_env.plant.model.body("cart").pos
    placed[:] = [40.0, 5.0, 0.0]
    try:
        far = rollout(blind_env, 3)
    finally:
        placed[:] = 0.0
    for a, b in zip(near, far):
        assert np.array_equal(a.state, b.state)
    assert near[0].state.shape == (68,)


def test_start_poses_cover_their_ranges_only(blind_env):
    poses = []
    for seed in range(60):
        blind_env.task.start(blind_env.plant, np.random.default_rng(seed))
        pelvis, yaw, tilt = blind_env.plant.pelvis_pose()
        poses.append([-pelvis[0], pelvis[1], np.degrees(yaw)])
        assert tilt < 1e-6 and 0.7 < pelvis[2] < 0.85
    low, high = np.min(poses, 0), np.max(poses, 0)
    assert (low >= [1.0, -0.5, -45.0]).all() and (high <= [1.5, 0.5, 45.0]).all()
    assert (low < [1.1, -0.4, -35.0]).all() and (high > [1.4, 0.4, 35.0]).all()


def test_flags_sent_are_flags_applied_and_arms_are_limited(blind_env):
    blind_env.reset(0)
    action = blind_env.applied
    before = action[ARM].copy()
    action[FLAGS] = [1, 0, -1]
    action[ARM] = 9.0
    blind_env.tick(action)
    applied = blind_env.applied
    assert applied[FLAGS].tolist() == [1, 0, -1]
    assert np.abs(applied[ARM] - before).max() <= ARM_RATE_RAD_S * TICK_S + 1e-6
    for _ in range(200):
        blind_env.body.tick(ArmTarget(np.full(14, 9.0)), LocoCommand())
    assert (blind_env.applied[ARM] <= get_robot("g1").range_rad[15:29, 1] + 1e-6).all()


def test_the_legs_act_one_tick_late():
    class Counter(StandStill):
        calls = 0

        def step(self, command, body):
            self.calls += 1
            return self.target + 0.001 * self.calls

    plant = Plant(get_robot("g1"), get_task("cart-pushing"))
    plant.reset(-1.2, 0.0, 0.0)
    body = WholeBodySim(plant, Counter(), control_delay_steps=1)
    rest = ArmTarget(get_robot("g1").array("default")[15:29])
    got = []
    for _ in range(4):
        body.tick(rest, LocoCommand())
        got.append(round(float(plant.data.ctrl[0] - StandStill().target[0]), 6))
    assert got == [0.0, 0.001, 0.002, 0.003]
    assert plant.data.time == pytest.approx(4 * TICK_S)


def test_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match="cart-pushing"):
        get_task("dishes")


def test_gymnasium_sees_the_same_episode(env):
    import gymnasium

    import wbvla.sim.gym  # noqa: F401

    wrapped = gymnasium.make("wbvla/CartPushing-v0", image_size=64, controller=StandStill())
    observation, info = wrapped.reset(seed=5)
    direct = env.reset(5)
    assert np.array_equal(observation["image"], direct.image) and np.array_equal(observation["state"], direct.state)
    assert wrapped.observation_space.contains(observation)
    observation, reward, ended, cut, info = wrapped.step(env.applied)
    assert reward == 0.0 and not ended and not cut and not any(info["subgoals"].values())
    assert wrapped.render().shape == (360, 480, 3)


def test_without_a_display_an_environment_left_open_draws_and_ends_in_silence(env):
    script = "import wbvla, mujoco\nfrom wbvla.sim.env import TaskEnv\nenv = TaskEnv()\nenv.reset(1)"
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_documents_gymnasium_script_runs(repo_root, tmp_path):
    (text,) = re.findall(r"^```python gym\n(.*?)^```", (repo_root / "docs/world.md").read_text(), re.M | re.S)
    check = '    print(observation["image"].shape, observations["image"].shape)\n'
    check += '    print(np.array_equal(env.reset(seed=200_001)[0]["image"], observations["image"][1]))\n'
    (tmp_path / "script.py").write_text("import numpy as np\n" + text + check)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if "software OpenGL" in done.stderr:
        pytest.skip("no OpenGL")
    assert done.stdout == "(96, 96, 3) (2, 96, 96, 3)\nTrue\n", done.stderr[-2000:]
