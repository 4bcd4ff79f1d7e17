"""Laws of the legs: shaping, odometry, symmetry, engine and controller agree, resume continues, export is exact."""

import json

import numpy as np
import pytest

from wbvla.lmo.command import CommandShaper, ShapingConfig, feedforward
from wbvla.lmo.observation import layout, mirror_observation
from wbvla.lmo.odometry import LegKinematics, base_velocity
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception

ROBOT = get_robot("g1")


def test_shaping_reaches_the_goal_and_stops_without_changing_sign():
    shaper, goal = CommandShaper(1, 0.74, ShapingConfig()), np.array([0.5, 0.3, 0.5])
    seen = []
    for t in range(400):
        on = t < 200
        shaper.step(np.array([[1.0, -1.0, 1.0]]) * on, np.array([0.6]))
        seen.append(shaper.v_ref[0].copy())
        if t == 199:
            np.testing.assert_allclose(shaper.v_ref[0], goal * [1, -1, 1], rtol=1e-3)
            assert shaper.moving[0]
    seen = np.array(seen) * [1, -1, 1]
    assert (seen >= -1e-12).all() and (np.diff(seen[:200], axis=0) >= -1e-12).all()
    assert np.abs(np.diff(seen, axis=0)).max() < 0.1
    assert not shaper.moving[0] and abs(seen[-1]).max() < 1e-3
    assert abs(shaper.height_ref[0] - 0.6) < 1e-6


def test_the_clock_rests_with_both_feet_down_until_something_happens():
    shaper, rest, height = CommandShaper(1, 0.74, ShapingConfig(rests=True)), np.zeros((1, 3)), np.array([0.74])

    def phases(n, flags=rest, disturbed=False):
        seen = []
        for _ in range(n):
            shaper.step(flags, height, np.array([disturbed]))
            seen.append(shaper.phase[0])
        return np.array(seen)

    phases(100, np.array([[1.0, 0, 0]]))
    held = phases(150)[-50:]
    assert (held == held[0]).all() and (shaper.swing() == 0).all()
    steps = phases(1, disturbed=True).tolist() + phases(30).tolist()
    assert (np.diff(steps) != 0).all(), "it steps on for a while after a push"
    assert (np.diff(phases(150)[-50:]) == 0).all()
    always = CommandShaper(1, 0.74, ShapingConfig())
    before = always.phase.copy()
    always.step(rest, height)
    assert always.phase != before


def test_feedforward_bends_the_knee_to_lower_the_pelvis():
    heights = np.array([0.74, 0.65, 0.55, 0.45])
    knee = feedforward(np.zeros((4, 2)), heights, 0.74, 0.63, 0.3)[:, 3]
    assert knee[0] == pytest.approx(0) and (np.diff(knee) > 0.1).all()


def test_leg_kinematics_equal_mujoco_and_odometry_recovers_the_pelvis_velocity():
    mujoco = pytest.importorskip("mujoco")
    model = ROBOT.build().compile()
    data, legs, rng = mujoco.MjData(model), LegKinematics(ROBOT), np.random.default_rng(0)
    for _ in range(10):
        data.qpos[3:7] = rng.normal(size=4)
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qpos[7:] = rng.uniform(ROBOT.range_rad[:, 0], ROBOT.range_rad[:, 1])
        data.qvel[:] = rng.normal(size=model.nv)
        mujoco.mj_forward(model, data)
        pos, vel = (x[0] for x in legs.feet(data.qpos[None, 7:19], data.qvel[None, 6:18]))
        turn = data.body("pelvis").xmat.reshape(3, 3)
        for i, side in enumerate(("left", "right")):
            in_world = data.site(f"{side}_foot").xpos - data.qpos[:3]
            np.testing.assert_allclose(pos[i], turn.T @ in_world, atol=1e-5)
            jacobian = np.zeros((3, model.nv))
            mujoco.mj_jacSite(model, data, jacobian, None, model.site(f"{side}_foot").id)
            np.testing.assert_allclose(vel[i], turn.T @ jacobian[:, 6:] @ data.qvel[6:], atol=1e-4)
        # The base velocity at which the lower foot stands still.
        gravity = turn.T @ np.array([0, 0, -1.0])
        low = int(np.argmax(pos @ gravity))
        expected = -(vel[low] + np.cross(data.qvel[3:6], pos[low]))
        if abs(np.diff(pos @ gravity)[0]) > 0.1:
            got = base_velocity(pos[None], vel[None], data.qvel[None, 3:6], gravity[None])[0]
            np.testing.assert_allclose(got, expected, atol=1e-3)


def test_mirroring_an_observation_twice_is_identity():
    index, sign = mirror_observation(ROBOT)
    x = np.random.default_rng(0).normal(size=(3, sum(w for _, w, _ in layout(ROBOT)))).astype(np.float32)
    np.testing.assert_array_equal((x[:, index] * sign)[:, index] * sign, x)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    pytest.importorskip("rsl_rl")
    from wbvla.lmo.train import TrainLmo, run

    out = tmp_path_factory.mktemp("lmo")
    run(TrainLmo(recipe="lmo_tiny", out=str(out), steps=16 * 16 * 3, evaluate_every=100, threads=1))
    return out


def test_train_export_and_resume(tiny_run, capsys):
    from wbvla.lmo.train import TrainLmo, run

    facts = json.loads((tiny_run / "checkpoint.json").read_text())
    assert facts["steps"] == 16 * 16 * 3
    contract = json.loads((tiny_run / "export" / "contract.json").read_text())
    assert contract["joints"] == list(ROBOT.joints) and contract["provenance"]["steps"] == facts["steps"]
    run(TrainLmo(recipe="lmo_tiny", out=str(tiny_run), steps=16 * 16 * 5, evaluate_every=100, threads=1))
    assert "resumed" in capsys.readouterr().out
    assert json.loads((tiny_run / "checkpoint.json").read_text())["steps"] == 16 * 16 * 5


def test_a_run_that_begins_with_another_keeps_its_history(tiny_run, tmp_path):
    from wbvla.lmo.train import TrainLmo, run

    before = json.loads((tiny_run / "checkpoint.json").read_text())
    run(TrainLmo(recipe="lmo_tiny", init=str(tiny_run), out=str(tmp_path), steps=1, evaluate_every=100, threads=1))
    for facts in (
        json.loads((tmp_path / "checkpoint.json").read_text()),
        json.loads((tmp_path / "export" / "contract.json").read_text())["provenance"],
    ):
        assert facts["steps"] == 16 * 16
        assert facts["earlier"] == [{"steps": before["steps"], "recipe": before["recipe"]}]


def test_controller_equals_engine(tiny_run):
    """The robot's controller and the training engine turn the same states into the same joint targets."""
    from wbvla.lmo.controller import LmoController
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import lmo_tiny

    controller = LmoController(tiny_run / "export")
    engine = CpuEngine(ROBOT, lmo_tiny(), 1, 0, 1, training=False)
    engine.delayed[:] = False
    engine.flags[:], engine.height[:] = (1, 0, -1), 0.7
    engine.step(np.zeros((1, 15)))  # fill the sensors
    engine.reset(np.ones(1, bool))
    engine.step(np.zeros((1, 15)))
    controller.shaper.step(np.array([[1.0, 0, -1]]), np.array([0.7]))
    engine.age[:] = 1
    engine.velocity[:] = 0
    for _ in range(30):
        observation, _ = engine.observe()
        body = Proprioception(engine.qpos[0, 7:], engine.qvel[0, 6:], engine.qvel[0, 3:6], engine.gravity[0])
        target = controller.step(LocoCommand(1, 0, -1, 0.7), body)
        action = controller.session.run(None, {"observation": observation})[0].astype(float)
        np.testing.assert_allclose(controller.action, np.clip(action, -6, 6), atol=2e-5)
        engine.step(action)
        np.testing.assert_allclose(target, engine.targets[0], atol=1e-5)


def test_foreign_policies_are_refused(tiny_run, tmp_path):
    from wbvla.lmo.controller import LmoController

    with pytest.raises(ValueError, match="no contract at"):
        LmoController(tmp_path)
    contract = json.loads((tiny_run / "export" / "contract.json").read_text())
    contract["joints"] = contract["joints"][::-1]
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    (tmp_path / "policy.onnx").write_bytes(b"not onnx")
    with pytest.raises(ValueError, match="not a readable ONNX"):
        LmoController(tmp_path)
    (tmp_path / "policy.onnx").write_bytes((tiny_run / "export" / "policy.onnx").read_bytes())
    with pytest.raises(ValueError, match=r"joints\[0\]"):
        LmoController(tmp_path)


def test_same_seed_same_run():
    pytest.importorskip("mujoco")
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import lmo_tiny

    def roll(seed):
        engine = CpuEngine(ROBOT, lmo_tiny(), 4, seed, 1)
        engine.level = 1.0
        rng = np.random.default_rng(0)
        return np.stack([engine.step(rng.normal(size=(4, 15)))[0] for _ in range(20)]), engine.state.copy()

    (a, state_a), (b, state_b), (c, _) = roll(0), roll(0), roll(1)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(state_a, state_b)
    assert not np.array_equal(a, c)


@pytest.mark.slow
def test_shipped_legs_hold_without_assistance():
    """Nine commands x 16 worlds x 10 s: nobody falls; forward and yaw reach half of their goal speed."""
    pytest.importorskip("mujoco")
    from wbvla.lmo.evaluate import EvaluateLmo, run

    figures = run(EvaluateLmo(worlds=16))
    assert figures["survival"] == 1.0
    speeds = figures["commands"]
    assert speeds["forward"]["vx"] > 0.25 and speeds["turn_left"]["wz"] > 0.25 and speeds["turn_right"]["wz"] < -0.25
