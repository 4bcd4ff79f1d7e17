"""The legs' code serves any robot of the description: what test_lmo.py says of the G1, for the X2."""

import json

import numpy as np
import pytest

from wbvla.lmo.observation import layout, mirror_action, mirror_observation
from wbvla.lmo.odometry import LegKinematics
from wbvla.robots import get_robot

X2 = get_robot("x2")


def test_leg_kinematics_equal_mujoco():
    mujoco = pytest.importorskip("mujoco")
    model = X2.build().compile()
    data, legs, rng = mujoco.MjData(model), LegKinematics(X2), np.random.default_rng(0)
    for _ in range(5):
        data.qpos[7:] = rng.uniform(*X2.range_rad.T)
        data.qvel[6:] = rng.normal(size=model.nv - 6)
        mujoco.mj_forward(model, data)
        pos, vel = (x[0] for x in legs.feet(data.qpos[None, 7:19], data.qvel[None, 6:18]))
        for i, side in enumerate(("left", "right")):
            np.testing.assert_allclose(pos[i], data.site(f"{side}_foot").xpos - data.qpos[:3], atol=1e-5)
            np.testing.assert_allclose(vel[i], data.sensor(f"{side}_foot_vel").data, atol=1e-4)


def test_mirroring_twice_is_identity():
    index, sign = mirror_observation(X2)
    x = np.random.default_rng(0).normal(size=(3, sum(width for _, width, _ in layout(X2)))).astype(np.float32)
    assert len(index) == x.shape[1] == 88
    np.testing.assert_array_equal((x[:, index] * sign)[:, index] * sign, x)
    index, sign = mirror_action(X2)
    assert sorted(index) == list(range(13)) and sign[12] == -1


def test_engine_is_symmetric_and_knows_the_robots_joints():
    """Mirrored actions give mirrored observations, the critic's too, and the same reward, as far as the trunk's inertia
    is even."""
    pytest.importorskip("mujoco")
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe

    engine = CpuEngine(X2, get_recipe("lmo_x2_tiny"), 2, 0, 1, training=False)
    assert [X2.joints[i] for i in engine.hips] == [f"{s}_hip_{k}" for s in ("left", "right") for k in ("roll", "yaw")]
    assert [X2.joints[i] for i in engine.waist] == ["waist_yaw"]
    engine.set_harness(1.0)
    engine.shaper.phase[:] = 0.0, 0.5
    engine.flags[:] = (1, 1, -1), (1, -1, 1)
    engine.disturbance.shove[:], engine.disturbance.shove_left[:] = ((90, 50, 9), (90, -50, -9)), 5
    (index, sign), (of_obs, sign_obs), rng = mirror_action(X2), mirror_observation(X2), np.random.default_rng(0)
    of_critic, sign_critic = engine.mirror_critic((of_obs, sign_obs))
    for _ in range(10):
        observation, critic = engine.observe()
        np.testing.assert_allclose(observation[0], observation[1][of_obs] * sign_obs, atol=0.1)
        assert len(of_critic) == critic.shape[1] and (abs(critic[0, -3:]) > 0.3).all()
        np.testing.assert_allclose(critic[0], critic[1][of_critic] * sign_critic, atol=0.15)
        action = 0.3 * rng.normal(size=13)
        reward, fallen, _ = engine.step(np.stack([action, action[index] * sign]))
        assert not fallen.any() and reward[0] == pytest.approx(reward[1], abs=0.05)


def test_train_export_and_score(tmp_path):
    pytest.importorskip("rsl_rl")
    from wbvla.lmo.evaluate import EvaluateLmo
    from wbvla.lmo.evaluate import run as evaluate
    from wbvla.lmo.train import TrainLmo, run

    how = dict(recipe="lmo_x2_tiny", robot="x2", steps=16 * 16 * 2, evaluate_every=100, threads=1)
    run(TrainLmo(out=str(tmp_path), **how))
    contract = json.loads((tmp_path / "export" / "contract.json").read_text())
    assert contract["joints"] == list(X2.joints) and len(contract["owned_by_lmo"]) == 13
    assert (contract["leg_m"], contract["nominal_height_m"], contract["height_range_m"]) == (0.6, 0.64, [0.45, 0.65])
    figures = evaluate(EvaluateLmo(policy=str(tmp_path / "export"), robot="x2", worlds=1, seconds=0.2))
    assert figures["survival"] == 1.0


def test_a_recipe_of_another_robot_is_refused():
    pytest.importorskip("rsl_rl")
    from wbvla.lmo.ppo import Trainer
    from wbvla.recipes.lmo import get_recipe

    with pytest.raises(ValueError, match="its recipe is lmo_x2"):
        Trainer(X2, get_recipe("lmo_g1_tiny"), 0, 1)


def test_the_benchmark_asks_for_what_the_robot_can_do():
    pytest.importorskip("mujoco")
    from wbvla.lmo.bench import accuracy, draw, robust, stability, stage1, tour
    from wbvla.lmo.bench.arms import committed, load_clip
    from wbvla.lmo.bench.model import Body, Physics
    from wbvla.lmo.bench.plant import Plant

    setting = draw.Setting(X2, X2.array("default"), X2.nominal_height_m, load_clip(committed("x2")))
    for cell in [c for protocol in (accuracy, robust, stability, stage1, tour) for c in protocol.cells()]:
        if cell.height_m <= X2.height_range_m[1]:
            plan = cell.draw(np.random.default_rng(0), setting)
            assert plan.q.shape == (27,) and plan.arms.shape[1] == 14
            assert plan.command[:, 3].min() >= 0.45 and plan.command[:, 3].max() <= 0.65
    with Plant(X2, Physics(), *(X2.array(k) for k in ("kp", "kd", "effort")), 1) as plant:
        q, quat, qvel = draw.standing_pose(np.random.default_rng(1), setting)
        qpos = np.concatenate([[0, 0, 0], quat, q])
        qpos[2] = plant.standing_height(qpos)
        plant.start([Body(hands_kg=(2.5, 2.5))], qpos[None], qvel[None])
        extra = plant.models[0].body_subtreemass[1] - plant.model.body_subtreemass[1]
        assert extra == pytest.approx(5.0) and 0.4 < qpos[2] < 0.66
        assert not plant.step(q[None], np.zeros((1, 3)), np.ones(1, bool)).any()
