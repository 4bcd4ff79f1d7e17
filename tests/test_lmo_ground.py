"""Laws of uneven ground, of the latent stand-in, and of the rows and sensors that only some recipes use."""

from dataclasses import replace

import numpy as np
import pytest

from wbvla.lmo.latent import NOISE, PERIOD_S, WIDTH, LatentIntent
from wbvla.recipes.lmo import get_recipe
from wbvla.robots import get_robot

pytest.importorskip("mujoco")

from wbvla.lmo.cpu_engine import CpuEngine

ROBOT = get_robot("g1")


def rough_engine(worlds=4, roughness_m=0.05):
    config = replace(get_recipe("lmo_g1_tiny"), roughness_m=roughness_m, variants=worlds, harness=False)
    return CpuEngine(ROBOT, config, worlds, 0, 1)


def test_the_ground_is_where_mujoco_has_it():
    """Away from the cells' diagonals a ray from above hits the height that the engine believes in."""
    import mujoco

    engine, rng, worst = rough_engine(), np.random.default_rng(0), 0.0
    for _ in range(50):
        xy = rng.uniform(-10, 10, (engine.n, 2))
        believed = engine.ground(xy)
        for i, model in enumerate(engine.models):
            data, hit = mujoco.MjData(model), np.zeros(1, np.int32)
            mujoco.mj_kinematics(model, data)
            only_world = np.array([0, 0, 0, 0, 0, 0], np.uint8)
            only_world[model.geom("floor").group[0]] = 1
            above = mujoco.mj_ray(model, data, np.array([*xy[i], 3.0]), np.array([0, 0, -1.0]), only_world, 1, -1, hit)
            worst = max(worst, abs(3.0 - above - believed[i]))
    assert not engine.ground(np.zeros((4, 2)))[0]  # the first variant is flat
    assert 0.01 < engine.ground(rng.uniform(-10, 10, (4, 2)))[-1] < 0.05
    assert worst < 0.02  # the triangles of a cell lie between its corners


def test_soles_rest_on_the_relief():
    engine = rough_engine()
    engine.set_harness(1.0)  # somebody holds the robots
    engine.flags[:], engine.command_left[:], engine.episode_steps[:] = 0.0, 1000, 0
    for _ in range(40):
        engine.step(np.zeros((engine.n, ROBOT.n_lmo)))
    standing = engine.age == 40
    assert standing.any()
    lowest = engine._corner_heights()[standing].min((1, 2))
    assert (np.abs(lowest) < 0.02).all()
    assert (np.abs(engine.height_above_ground[standing] - engine.qpos[standing, 2]) < 0.05).all()


def test_a_mirrored_intent_swaps_the_halves_of_its_code():
    latent, rng = LatentIntent(ROBOT, 3, np.random.default_rng(0)), np.random.default_rng(1)
    index, sign = (x[ROBOT.n_lmo : ROBOT.n_lmo + 14] for x in ROBOT.mirror())
    arms, v_ref, height = rng.normal(size=(3, 14)), rng.normal(size=(3, 3)), rng.normal(size=3)
    other_arms = latent.default + (arms - latent.default)[:, index - ROBOT.n_lmo] * sign
    z, other = latent.encode(arms, v_ref, height), latent.encode(other_arms, v_ref * [1, -1, -1], height)
    np.testing.assert_allclose(other, np.roll(z, WIDTH // 2, axis=1), atol=1e-9)


def test_a_latent_action_arrives_within_two_periods_without_jumps():
    latent, z = LatentIntent(ROBOT, 1, np.random.default_rng(0)), np.full((1, WIDTH), 1.0)
    latent.reset(np.array([True]))
    seen = np.stack([latent.step(z, noise=0.0)[0, 0] for _ in range(round(3 * PERIOD_S / 0.02) + 1)])
    assert (np.diff(seen) >= 0).all() and np.diff(seen).max() <= 0.02 / PERIOD_S + 1e-9 and seen[-1] == 1.0
    noisy = np.stack([latent.step(z)[0] for _ in range(200)])
    assert 0.4 * NOISE < noisy.std() < 1.2 * NOISE


def test_a_robot_at_rest_feels_gravity_both_soles_and_its_support():
    engine = CpuEngine(ROBOT, get_recipe("lmo_tutorial_003_tiny"), 1, 0, 1, training=False)
    assert sum(width for width in [12 + 3, 12 + 3, 4, 3, 3, 4, 256]) == engine.observe()[0].shape[1]
    for _ in range(15):
        engine.step(np.zeros((1, ROBOT.n_lmo)))
        engine.observe()
    np.testing.assert_allclose(engine.measured["accelerometer"][0], [0, 0, 9.81], atol=1.5)
    assert engine.measured["foot_contacts"].tolist() == [[1, 1, 1, 1]]
    inside = engine.rows["com_stability"] / dict(engine.config.rewards)["com_stability"]
    assert 0.02 < inside < 0.12  # a sole is 17 cm long
