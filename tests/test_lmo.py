"""Laws of the legs: shaping, odometry, symmetry, engine and controller agree, resume continues, export is exact."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from wbvla.lmo.command import CommandShaper, ShapingConfig, feedforward, is_pushed
from wbvla.lmo.latent import WIDTH
from wbvla.lmo.observation import History, layout, mirror_action, mirror_observation
from wbvla.lmo.odometry import LIFT_M, LegKinematics, Odometry, OdometryConfig, base_velocity, pelvis_height, pose_error
from wbvla.recipes.lmo import RECIPES, get_recipe
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception, VelocityCommand

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


def test_velocities_are_reached_and_the_printed_pulse_fades():
    tracked = CommandShaper(1, 0.74, ShapingConfig(kind="velocity"))
    pulse = CommandShaper(1, 0.74, ShapingConfig(kind="paper-literal"))
    seen = []
    for _ in range(200):
        tracked.step(np.array([[0.6, -0.3, 0.0]]), np.array([0.74]))
        pulse.step(np.array([[1.0, 0.0, 0.0]]), np.array([0.74]))
        seen.append(pulse.v_ref[0, 0])
    np.testing.assert_allclose(tracked.v_ref[0], np.array([0.6, -0.3, 0.0]) * [0.5, 0.3, 0.5], atol=1e-4)
    assert seen[0] > 0.4 and abs(seen[-1]) < 1e-3 and (np.diff(seen) <= 0).all()
    with pytest.raises(ValueError, match="shaping kind: got 'ramp', expected one of gate"):
        ShapingConfig(kind="ramp")


def test_a_history_holds_the_newest_first_and_a_fresh_world_repeats_its_first():
    history, fresh = History(2, 3, 1), np.array([True, True])
    assert history.push(np.array([[1.0], [5.0]]), fresh).tolist() == [[1, 1, 1], [5, 5, 5]]
    history.push(np.array([[2.0], [6.0]]), ~fresh)
    assert history.push(np.array([[3.0], [7.0]]), np.array([False, True])).tolist() == [[3, 2, 1], [7, 7, 7]]


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
    steps = np.diff(phases(40, np.array([[1.0, 0, 0]]))) % 1.0
    np.testing.assert_allclose(steps, 1.4 * 0.02)
    always = CommandShaper(1, 0.74, ShapingConfig())
    before = always.phase.copy()
    always.step(rest, height)
    assert always.phase != before


def test_who_walks_as_told_is_not_pushed_and_who_moves_otherwise_is():
    v_ref = np.array([[0.5, 0.3, 0.5], [0, 0, 0], [0.5, 0, 0]])
    odometry = Odometry(3, OdometryConfig())
    odometry.velocity[:] = [0.5, 0.3, 0], [0, 0, 0], [0.1, 0, 0]
    assert is_pushed(odometry, v_ref).tolist() == [False, False, True]
    odometry.velocity[:2] += [0.0, 0.4, 0.0]
    assert is_pushed(odometry, v_ref).all()


def test_a_pushed_robot_takes_quick_steps_whether_it_walks_or_stands():
    flags, height, pushed = np.array([[0, 0, 0], [1, 0, 0]] * 2), np.full(4, 0.74), np.array([False, False, True, True])
    for pushed_hz, quick_hz in ((2.4, 2.4), (0.0, 1.4)):
        shaper, advanced = CommandShaper(4, 0.74, ShapingConfig(rests=True, pushed_hz=pushed_hz)), np.zeros(4)
        for _ in range(60):
            before = shaper.phase
            shaper.step(flags, height, pushed, pushed)
            advanced += (shaper.phase - before) % 1.0
        np.testing.assert_allclose(advanced[1:], 60 * 0.02 * np.array([1.4, quick_hz, quick_hz]))
        assert advanced[0] < 1.0  # it rests
        shaper.step(flags, height)
        for _ in range(40):
            before = shaper.phase
            shaper.step(flags, height)
        np.testing.assert_allclose((shaper.phase - before)[3] % 1.0, 0.02 * 1.4)  # and is quiet again


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
            got = base_velocity(pos[None], vel[None], data.qvel[None, 3:6], gravity[None], 0.01)[0]
            np.testing.assert_allclose(got, expected, atol=1e-3)


def test_the_pose_error_is_the_way_back_and_is_bounded():
    """Along any drawn path: error = pose of the reference seen from the robot."""
    config, rng, dt = OdometryConfig(error_m=9.0, error_rad=9.0), np.random.default_rng(0), 0.02
    robot, reference, error = np.zeros(3), np.zeros(3), np.zeros((1, 3))
    turned = lambda v, a: np.array([np.cos(a) * v[0] - np.sin(a) * v[1], np.sin(a) * v[0] + np.cos(a) * v[1]])  # noqa: E731
    for _ in range(200):
        moved, wanted = rng.uniform(-0.5, 0.5, (2, 3))
        error = pose_error(error, wanted[None], moved[None], moved[None, 2], config)
        for pose, v in ((robot, moved), (reference, wanted)):
            pose[:2] += turned(v, pose[2]) * dt
            pose[2] += v[2] * dt
    expected = turned(reference[:2] - robot[:2], -robot[2])
    np.testing.assert_allclose(error[0], [*expected, reference[2] - robot[2]], atol=5e-3)
    odometry, upright = Odometry(1, OdometryConfig()), np.array([[0.0, 0.0, -1.0]])
    for _ in range(200):  # somebody carries the robot off
        velocity, turning, at_rest = np.array([[0.4, -0.3, 0.0]]), np.array([[0.0, 0.0, 1.0]]), np.zeros((1, 3))
        odometry.step(velocity, turning, upright, at_rest, np.zeros(1))
    assert np.hypot(*odometry.error[0, :2]) == pytest.approx(0.3) and odometry.error[0, 2] == pytest.approx(-0.4)
    odometry.reset(np.array([True]))
    assert not odometry.error.any() and not odometry.velocity.any()


def test_the_missing_height_is_made_good_and_bounded():
    """A robot that sags by what its lift does not cover ends at the reference; one that cannot rise winds up no more
    than LIFT_M."""
    odometry, still, upright = (
        Odometry(2, OdometryConfig(lift_per_s=0.5)),
        np.zeros((2, 3)),
        np.tile([0.0, 0, -1], (2, 1)),
    )
    sag = np.array([0.06, 0.5])
    for _ in range(1000):
        height = odometry.raised(np.full(2, 0.6)) - sag
        odometry.step(still, still, upright, still, 0.6 - height)
    np.testing.assert_allclose(height, [0.6, 0.6 + LIFT_M - 0.5], atol=1e-3)
    feet = np.array([[[0.0, 0.1, -0.70], [0.1, -0.1, -0.65]]])
    np.testing.assert_allclose(pelvis_height(feet, upright[:1]), [0.70])


def test_a_world_climbs_when_its_episode_lasts_and_steps_down_when_it_falls():
    pytest.importorskip("mujoco")
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.lmo.task import LEVEL_DOWN, LEVEL_UP

    engine = CpuEngine(ROBOT, get_recipe("lmo_g1_stage2_tiny"), 4, 0, 1)
    engine.level[:] = 0.5
    engine.episode_steps[:] = 0, 0, engine.max_steps - 1, engine.max_steps - 1
    engine.calm[3] = True  # a world that was left alone stays where it is
    engine.qpos[0, 3:7] = 0.5, 0.5, 0.5, 0.5  # lies on its side
    engine.step(np.zeros((4, ROBOT.n_lmo)))
    np.testing.assert_allclose(engine.level, [0.5 - LEVEL_DOWN, 0.5, 0.5 + LEVEL_UP, 0.5])


def test_a_calm_episode_is_left_alone():
    pytest.importorskip("mujoco")
    from wbvla.lmo.cpu_engine import CpuEngine

    recipe = replace(get_recipe("lmo_g1_stage2_tiny"), calm=1.0, push_m_s=9.0, hand_force_n=99.0, hand_force_share=1.0)
    engine = CpuEngine(ROBOT, recipe, 8, 0, 1)
    engine.level[:] = 1.0
    assert engine.calm.all() and 0 < engine.quiet.sum() < 8, "in some of them the arms move"
    assert (engine.command_left >= 4 * round(recipe.redraw_s[0] / 0.02)).all()
    arms = slice(ROBOT.n_lmo, ROBOT.n_lmo + 14)
    moved = np.zeros(8, bool)
    for _ in range(200):
        held, quiet = engine.held.copy(), engine.quiet.copy()
        engine.step(np.zeros((8, ROBOT.n_lmo)))
        away = (engine._control[:, 0, arms] != held).any(1)
        moved |= away
        assert not away[quiet].any()
        assert not engine.disturbance.shoves().any()
        assert not engine._hand_force().any()
    assert moved.any()


def test_mirroring_an_observation_twice_is_identity():
    index, sign = mirror_observation(ROBOT, 2)
    x = np.random.default_rng(0).normal(size=(3, 2 * sum(w for _, w, _ in layout(ROBOT)))).astype(np.float32)
    np.testing.assert_array_equal((x[:, index] * sign)[:, index] * sign, x)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    pytest.importorskip("rsl_rl")
    from wbvla.lmo.train import TrainLmo, run

    out = tmp_path_factory.mktemp("lmo")
    run(TrainLmo(recipe="lmo_g1_tiny", out=str(out), steps=16 * 16 * 3, evaluate_every=100, threads=1))
    return out


def test_what_was_trained_and_exported_is_its_own_mirror_image(tiny_run):
    """Else half of what was learned on one side is not known on the other."""
    from wbvla.lmo.controller import open_session

    session, rng = open_session(tiny_run / "export" / "policy.onnx"), np.random.default_rng(0)
    (index, sign), (of_action, sign_action) = mirror_observation(ROBOT), mirror_action(ROBOT)
    seen = rng.normal(size=(64, len(index))).astype(np.float32)
    act, mirrored = (session.run(None, {"observation": x})[0] for x in (seen, seen[:, index] * sign))
    np.testing.assert_allclose(mirrored, act[:, of_action] * sign_action, atol=1e-5)
    assert abs(act).max() > 1e-3


def test_train_export_and_resume(tiny_run, capsys):
    from wbvla.lmo.train import TrainLmo, run

    facts = json.loads((tiny_run / "checkpoint.json").read_text())
    assert facts["steps"] == 16 * 16 * 3
    contract = json.loads((tiny_run / "export" / "contract.json").read_text())
    assert contract["joints"] == list(ROBOT.joints) and contract["provenance"]["steps"] == facts["steps"]
    run(TrainLmo(recipe="lmo_g1_tiny", out=str(tiny_run), steps=16 * 16 * 5, evaluate_every=100, threads=1))
    assert "resumed" in capsys.readouterr().out
    assert json.loads((tiny_run / "checkpoint.json").read_text())["steps"] == 16 * 16 * 5


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path):
    pytest.importorskip("rsl_rl")
    import torch
    from safetensors.torch import load_file

    from wbvla.lmo.ppo import Trainer

    def updates(trainer, n):
        rows = [trainer.update() for _ in range(n)]
        trainer.save(tmp_path)
        return rows[-1], load_file(tmp_path / "checkpoint.safetensors")

    config = replace(get_recipe("lmo_g1_tiny"), sensor_lag_share=0.5, torque_noise=0.1)
    row, straight = updates(Trainer(ROBOT, config, 3, 1), 12)
    updates(Trainer(ROBOT, config, 3, 1), 7)
    again = Trainer(ROBOT, config, 3, 1)
    again.load(tmp_path)
    row_again, resumed = updates(again, 5)
    assert row == row_again
    assert straight.keys() == resumed.keys()
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_diverged_world_is_dumped_for_replay_and_the_checkpoint_stays(tiny_run, tmp_path, monkeypatch):
    import mujoco

    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.lmo.train import TrainLmo, run

    shutil.copytree(tiny_run, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    calls, physics = [], CpuEngine._physics

    def poisoned(self):
        calls.append(None)
        if len(calls) == 20:
            self.qvel[5, 8] = 1e200
        physics(self)

    monkeypatch.setattr(CpuEngine, "_physics", poisoned)
    with pytest.raises(ValueError, match=r"world 5 diverged at .* steps: .*diverged.mjb"):
        run(TrainLmo(recipe="lmo_g1_tiny", out=str(tmp_path / "run"), steps=10**6, evaluate_every=100, threads=1))
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before

    model = mujoco.MjModel.from_binary_path(str(tmp_path / "run" / "diverged.mjb"))
    data, dump = mujoco.MjData(model), np.load(tmp_path / "run" / "diverged.npz")
    mujoco.mj_setState(model, data, dump["state"], int(mujoco.mjtState.mjSTATE_FULLPHYSICS))
    for control in dump["control"]:
        data.ctrl, data.qfrc_applied = control[: model.nu], control[model.nu :]
        mujoco.mj_step(model, data)
    assert not np.isfinite(data.qpos).all()


def test_a_run_that_begins_with_another_keeps_its_history(tiny_run, tmp_path):
    from wbvla.lmo.train import TrainLmo, run

    before = json.loads((tiny_run / "checkpoint.json").read_text())
    run(TrainLmo(recipe="lmo_g1_tiny", init=str(tiny_run), out=str(tmp_path), steps=1, evaluate_every=100, threads=1))
    for facts in (
        json.loads((tmp_path / "checkpoint.json").read_text()),
        json.loads((tmp_path / "export" / "contract.json").read_text())["provenance"],
    ):
        assert facts["steps"] == 16 * 16
        assert facts["earlier"] == [{key: before[key] for key in ("robot", "steps", "recipe")}]


def test_what_is_no_run_of_the_legs_is_refused(tmp_path):
    from wbvla.lmo.ppo import Trainer

    trainer = Trainer(ROBOT, get_recipe("lmo_g1_tiny"), 0, 1)
    for use in (trainer.begin_with, trainer.load):
        with pytest.raises(ValueError, match=r"no checkpoint in .*expected the --out folder of"):
            use(tmp_path / "nothing")
    (tmp_path / "checkpoint.json").write_text('{"kind": "vla"}')
    for use in (trainer.begin_with, trainer.load):
        with pytest.raises(ValueError, match=r"its checkpoint is vla, expected the --out folder of"):
            use(tmp_path)


def test_a_run_of_networks_that_were_not_symmetric_is_not_continued(tiny_run, tmp_path):
    from wbvla.lmo.ppo import Trainer

    shutil.copytree(tiny_run, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    assert facts.pop("networks") == "symmetric"
    (tmp_path / "run" / "checkpoint.json").write_text(json.dumps(facts))
    trainer = Trainer(ROBOT, get_recipe("lmo_g1_tiny"), 0, 1)
    with pytest.raises(ValueError, match=r"something else \(networks: .*not symmetric; --init begins"):
        trainer.load(tmp_path / "run")
    trainer.begin_with(tmp_path / "run")


def test_networks_that_observe_more_begin_as_they_were(tmp_path):
    """What an earlier network did not observe it ignores, wherever the new terms lie."""
    pytest.importorskip("rsl_rl")
    from tensordict import TensorDict

    from wbvla.lmo.ppo import Trainer

    wide = get_recipe("lmo_g1_tiny")
    narrow = replace(wide, terms=tuple(name for name in wide.terms if name not in ("v_ref", "pose_error")))
    earlier, later = Trainer(ROBOT, narrow, 0, 1), Trainer(ROBOT, wide, 1, 1)
    earlier.update()
    earlier.save(tmp_path)
    later.begin_with(tmp_path)
    entries = [[(n, i) for n, count, _ in layout(ROBOT, c.terms) for i in range(count)] for c in (narrow, wide)]
    seen = later.obs["actor"]
    as_before = seen[:, [entries[1].index(entry) for entry in entries[0]]]
    for trainer in (earlier, later):
        trainer.alg.actor.eval()
    acts = [t.alg.actor(TensorDict({"actor": o}, [16])) for t, o in ((earlier, as_before), (later, seen))]
    np.testing.assert_allclose(*(a.detach().numpy() for a in acts), atol=1e-6)


def test_legs_can_begin_with_those_of_another_robot(tmp_path):
    """Joints go by their names: what both robots have acts and is seen as before, the rest neither acts nor is seen."""
    pytest.importorskip("rsl_rl")
    from tensordict import TensorDict

    from wbvla.lmo.ppo import Trainer

    other = get_robot("x2")
    earlier, later = Trainer(ROBOT, get_recipe("lmo_g1_tiny"), 0, 1), Trainer(other, get_recipe("lmo_x2_tiny"), 1, 1)
    earlier.update()
    earlier.save(tmp_path)
    later.begin_with(tmp_path)
    for trainer in (earlier, later):
        trainer.alg.actor.eval()
    seen = {"g1": earlier.obs["actor"].clone(), "x2": later.obs["actor"].clone()}
    normaliser = earlier.alg.actor.obs_normalizer
    mean = (normaliser._mean + normaliser._mean[:, normaliser.index] * normaliser.sign) / 2
    seen["g1"][:] = mean  # what the X2 has not measures nothing unusual
    start = {"g1": 0, "x2": 0}
    for name, _, _ in layout(ROBOT):
        entries = {}
        for robot in (ROBOT, other):
            joints = {"q": robot.joints, "dq": robot.joints, "last_action": robot.lmo_joints}
            count = next(count for term, count, _ in layout(robot) if term == name)
            entries[robot.name] = list(joints.get(name, range(count)))
        for i, entry in enumerate(entries["x2"]):
            seen["g1"][:, start["g1"] + entries["g1"].index(entry)] = seen["x2"][:, start["x2"] + i]
        start = {robot: first + len(entries[robot]) for robot, first in start.items()}
    trainers = {"g1": earlier, "x2": later}
    acts = {name: t.alg.actor(TensorDict({"actor": seen[name]}, [16])).detach() for name, t in trainers.items()}
    shared = [ROBOT.lmo_joints.index(joint) for joint in other.lmo_joints]
    np.testing.assert_allclose(acts["g1"][:, shared], acts["x2"], atol=1e-6)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_twin_of_every_recipe_trains_and_its_controller_equals_the_engine(name, tmp_path):
    """The robot's controller and the training engine turn the same states into the same joint targets."""
    pytest.importorskip("rsl_rl")
    from wbvla.lmo.controller import LmoController
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.lmo.train import TrainLmo, run

    robot = get_robot("x2" if "x2" in name else "g1")
    height_m = 0.62  # in the range of every recipe
    run(TrainLmo(recipe=f"{name}_tiny", robot=robot.name, out=str(tmp_path), steps=1, evaluate_every=100, threads=1))
    controller = LmoController(tmp_path / "export")
    engine = CpuEngine(robot, get_recipe(f"{name}_tiny"), 1, 0, 1, training=False)
    engine.delayed[:] = False
    engine.flags[:], engine.height[:] = (1, 0, -1), height_m
    engine.step(np.zeros((1, robot.n_lmo)))  # fill the sensors
    engine.reset(np.ones(1, bool))
    engine.step(np.zeros((1, robot.n_lmo)))
    controller.shaper.step(np.array([[1.0, 0, -1]]), np.array([height_m]))
    engine.age[:] = 1  # neither is fresh: both histories begin empty
    controller.fresh[:] = False
    engine.odometry.reset(np.array([0]))
    for _ in range(30):
        observation, _ = engine.observe()
        now = engine.measured
        rare = [now[k][0] if k in now else None for k in ("quaternion", "accelerometer", "foot_contacts")]
        body = Proprioception(engine.qpos[0, 7:], engine.qvel[0, 6:], engine.qvel[0, 3:6], engine.gravity[0], *rare)
        latent = observation[0, -WIDTH:] if engine.latent is not None else None
        target = controller.step(LocoCommand(1, 0, -1, height_m), body, latent)
        action = controller.session.run(None, {"observation": observation})[0].astype(float)
        np.testing.assert_allclose(controller.action, np.clip(action, -6, 6), atol=2e-5)
        engine.step(action)
        np.testing.assert_allclose(target, engine.targets[0], atol=1e-5)


def test_legs_of_flags_refuse_velocities(tiny_run):
    from wbvla.lmo.controller import LmoController

    body = Proprioception(ROBOT.array("default"), np.zeros(29), np.zeros(3), np.array([0.0, 0.0, -1.0]))
    with pytest.raises(ValueError, match="got velocities, but these legs take flags"):
        LmoController(tiny_run / "export").step(VelocityCommand(0.3), body)


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

    def roll(seed):
        engine = CpuEngine(ROBOT, get_recipe("lmo_g1_tiny"), 4, seed, 1)
        engine.level[:] = 1.0
        rng = np.random.default_rng(0)
        return np.stack([engine.step(rng.normal(size=(4, 15)))[0] for _ in range(20)]), engine.state.copy()

    (a, state_a), (b, state_b), (c, _) = roll(0), roll(0), roll(1)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(state_a, state_b)
    assert not np.array_equal(a, c)


def test_legs_trained_with_other_gains_are_refused(tmp_path):
    from wbvla.lmo.controller import LmoController, weights_folder

    shutil.copytree(weights_folder("g1"), tmp_path / "legs")
    path = tmp_path / "legs" / "contract.json"
    contract = json.loads(path.read_text())
    contract["kp"][13] = 28.5
    path.write_text(json.dumps(contract))
    with pytest.raises(ValueError, match=r"legs policy in .* does not fit: kp\[13\]: got 28.5, expected 250"):
        LmoController(tmp_path / "legs")


def test_a_stiff_joint_moves_less_for_an_action():
    from wbvla.lmo.task import action_scale

    scale = dict(zip(ROBOT.lmo_joints, action_scale(ROBOT, get_recipe("lmo_g1"))))
    torque = scale["waist_roll"] * ROBOT.motors["waist_roll"].kp
    assert scale["left_hip_pitch"] == 0.3 and np.isclose(torque, 0.375 * ROBOT.motors["waist_roll"].effort)


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["g1", "x2"])
def test_shipped_legs_hold_without_assistance(robot):
    """Nine commands x 16 worlds x 10 s: nobody falls; forward and yaw reach most of their goal speed."""
    pytest.importorskip("mujoco")
    from wbvla.lmo.evaluate import EvaluateLmo, run

    figures = run(EvaluateLmo(robot=robot, worlds=16))
    assert figures["survival"] == 1.0
    speeds = figures["commands"]
    assert speeds["forward"]["vx"] > 0.4 and speeds["turn_left"]["wz"] > 0.4 and speeds["turn_right"]["wz"] < -0.4
