"""Laws of the drives' network: it learns real physics, survives saving, refuses what does not fit, moves the robot."""

import json
from dataclasses import replace

import numpy as np
import pytest

from wbvla.cli import main
from wbvla.lmo.actuator import ActuatorNet, ActuatorState, joint_types
from wbvla.lmo.actuator_fit import SIGNALS, ActuatorLog, fit_actuator, read_log, score
from wbvla.robots import get_robot

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("torch")

ROBOT = get_robot("g1")
RATE_HZ, PHYSICS_S, LAG_S, LIMIT_NM = 250, 0.001, 0.015, 12.0
JOINTS = ("left_knee", "right_knee", "waist")
KP, KD = {"knee": 40.0, "waist": 60.0}, {"knee": 1.5, "waist": 2.0}
ARM = """<mujoco><option timestep="0.001" gravity="0 0 -9.81"/><worldbody>
{}</worldbody></mujoco>"""
LINK = """<body pos="{x} 0 1"><joint name="{name}" axis="0 1 0" armature="0.02"/>
<geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.02" mass="1"/></body>
"""


def record(seconds, seed=0):
    """Log three hanging links whose drives are a PD, cut at 12 N m, behind a first-order lag of 15 ms."""
    model = mujoco.MjModel.from_xml_string(
        ARM.format("".join(LINK.format(name=name, x=i) for i, name in enumerate(JOINTS)))
    )
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    kp, kd = (np.array([gains[kind] for kind in joint_types(JOINTS)]) for gains in (KP, KD))
    target, torque, speed = np.zeros(3), np.zeros(3), np.ones(3)
    goal, rows = np.zeros(3), []
    for step in range(round(seconds / PHYSICS_S)):
        new = rng.random(3) < PHYSICS_S / 0.3
        goal[new], speed[new] = rng.uniform(-0.8, 0.8, new.sum()), rng.uniform(0.5, 20.0, new.sum())
        if step % 20 == 0:
            target = target + np.clip(goal - target, -0.02 * speed, 0.02 * speed)
        wanted = np.clip(kp * (target - data.qpos) - kd * data.qvel, -LIMIT_NM, LIMIT_NM)
        torque = torque + PHYSICS_S / LAG_S * (wanted - torque)
        if step % round(1 / PHYSICS_S / RATE_HZ) == 0:
            rows.append((data.qpos.copy(), data.qvel.copy(), target.copy(), torque.copy()))
        data.qfrc_applied[:] = torque
        mujoco.mj_step(model, data)
    return ActuatorLog(*map(np.array, zip(*rows)), rate_hz=float(RATE_HZ), joints=JOINTS)


@pytest.fixture(scope="module")
def log():
    return record(60.0)


@pytest.fixture(scope="module")
def net(log):
    return fit_actuator(log.part(0.0, 0.8), rate_hz=RATE_HZ)


def test_a_lagging_saturating_pd_is_learned(net, log):
    held_out = log.part(0.8, 1.0)
    assert (np.abs(held_out.torque_nm).max(0) > 0.9 * LIMIT_NM).all(), "the log reaches the limit"
    for joint, row in score(net, held_out).items():
        assert row["r2"] > 0.98, (joint, row)
        assert row["rmse_nm"] < 0.15 * row["std_nm"]
    kp, kd = (np.array([gains[kind] for kind in joint_types(JOINTS)]) for gains in (KP, KD))
    pd = kp * (held_out.target_rad - held_out.q_rad) - kd * held_out.dq_rad_s
    pd_error = np.sqrt(((np.clip(pd, -LIMIT_NM, LIMIT_NM) - held_out.torque_nm) ** 2).mean(0))
    network_error = np.array([row["rmse_nm"] for row in score(net, held_out).values()])
    assert (network_error < 0.5 * pd_error).all(), "without its lag the very PD is a worse model"


def test_left_and_right_share_a_network(net):
    weight, _ = net.layers[0]
    assert len(weight) == 2 and joint_types(JOINTS) == ["knee", "knee", "waist"]
    rng = np.random.default_rng(0)
    error, velocity = rng.normal(size=(2, 5, 1, net.history))
    torque = net.torque(np.repeat(error, 3, 1), np.repeat(velocity, 3, 1))
    np.testing.assert_array_equal(torque[:, 0], torque[:, 1])
    assert not np.allclose(torque[:, 0], torque[:, 2])


def test_saving_and_loading_change_no_bit(net, tmp_path):
    net.save(tmp_path / "net", {"robot": "test"})
    loaded = ActuatorNet.load(tmp_path / "net", JOINTS)
    error, velocity = np.random.default_rng(1).normal(size=(2, 7, 3, net.history))
    np.testing.assert_array_equal(loaded.torque(error, velocity), net.torque(error, velocity))
    assert (loaded.rate_hz, loaded.history, loaded.joints) == (net.rate_hz, net.history, net.joints)


def test_sampling_one_step_at_a_time_equals_the_whole_log(net, log):
    """What the engine does step by step is what was fitted on windows of the log."""
    part = log.part(0.8, 0.85)
    state = ActuatorState(net, 1)
    error = part.target_rad - part.q_rad
    stepped = np.concatenate([state.step(e[None], v[None]) for e, v in zip(error, part.dq_rad_s)])
    rmse = np.sqrt(((stepped - part.torque_nm)[net.history - 1 :] ** 2).mean(0))
    np.testing.assert_allclose(rmse, [row["rmse_nm"] for row in score(net, part).values()], rtol=1e-4)


def test_a_reset_forgets_the_past_of_its_worlds_only(net):
    rng, state = np.random.default_rng(2), ActuatorState(net, 2)
    for _ in range(20):
        state.step(*rng.normal(size=(2, 2, 3)))
    state.reset(np.array([True, False]))
    error, velocity = rng.normal(size=(2, 2, 3))
    seen = state.step(error, velocity)
    first = ActuatorState(net, 1).step(error[:1], velocity[:1])
    np.testing.assert_allclose(seen[0], first[0], rtol=1e-5)
    assert np.ptp(state.error[0], axis=-1).max() == 0 and np.ptp(state.error[1], axis=-1).min() > 0


def arrays(log, **change):
    return {name: getattr(log, name) for name in SIGNALS} | {"rate_hz": log.rate_hz} | change


def test_unfit_logs_are_refused_in_one_line(log, tmp_path):
    bad = log.q_rad.copy()
    bad[5, 1] = np.inf
    still = log.torque_nm.copy()
    still[:, 2] = 1.0
    cases = [
        ({"q_rad": bad}, "got a q_rad of right_knee that is none in row 5"),
        ({"q_rad": log.q_rad * 57.3}, "are these degrees"),
        ({"torque_nm": still}, "got the same torque of waist in every row"),
        ({"torque_nm": log.torque_nm[:-1]}, r"expected \(T, 3\) each"),
        ({"rate_hz": 20_000.0}, "expected at least 10 s; record longer"),
        ({"rate_hz": np.array([{}])}, "expected an .npz with q_rad"),
    ]
    for change, message in cases:
        np.savez(tmp_path / "log.npz", **arrays(log, **change))
        with pytest.raises(ValueError, match=message) as error:
            read_log(tmp_path / "log.npz", JOINTS)
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "log.npz", q_rad=log.q_rad)
    with pytest.raises(ValueError, match="expected an .npz with q_rad, dq_rad_s"):
        read_log(tmp_path / "log.npz", JOINTS)
    with pytest.raises(ValueError, match="check the path"):
        read_log(tmp_path / "none.npz", JOINTS)
    np.savez(tmp_path / "log.npz", **arrays(log))
    for name in SIGNALS:
        np.testing.assert_array_equal(getattr(read_log(tmp_path / "log.npz", JOINTS), name), getattr(log, name))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rate_hz": 130}, "multiple of 50"), ({"rate_hz": 400}, "at most that"), ({"history": 0}, "at least 1 sample")],
)
def test_unfit_rates_are_refused(log, options, message):
    with pytest.raises(ValueError, match=message):
        fit_actuator(log, **options)


def test_foreign_networks_are_refused_in_one_line(net, tmp_path):
    with pytest.raises(ValueError, match="no contract at"):
        ActuatorNet.load(tmp_path / "none", JOINTS)
    net.save(tmp_path, {})
    with pytest.raises(ValueError, match=r"got a network of 3 joints .* expected 29"):
        ActuatorNet.load(tmp_path, ROBOT.joints)
    contract = json.loads((tmp_path / "actuator.json").read_text())
    (tmp_path / "actuator.json").write_text(json.dumps(contract | {"history": 3}))
    with pytest.raises(ValueError, match="does not fit actuator.json"):
        ActuatorNet.load(tmp_path, JOINTS)
    (tmp_path / "actuator.json").write_text(json.dumps(contract))
    (tmp_path / "actuator.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="copy the folder again"):
        ActuatorNet.load(tmp_path, JOINTS)


def linear_net(robot, rate_hz):
    """Return a network that is the robot's own PD: one linear layer of the newest sample."""
    kinds = list(dict.fromkeys(joint_types(robot.joints)))
    first = [joint_types(robot.joints).index(kind) for kind in kinds]
    weight = np.zeros((len(kinds), 4, 1), np.float32)
    weight[:, 0, 0], weight[:, 2, 0] = robot.array("kp")[first], -robot.array("kd")[first]
    return ActuatorNet(robot.joints, rate_hz, 2, ((weight, np.zeros((len(kinds), 1, 1), np.float32)),))


@pytest.mark.parametrize(("rate_hz", "tolerance"), [(1000, 0.01), (250, 0.03)])
def test_the_engine_with_the_pd_as_a_network_moves_as_with_the_pd(tmp_path, rate_hz, tolerance):
    """Torque motors, fed by a network that computes the PD, differ from position motors by integration error only."""
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe

    linear_net(ROBOT, float(rate_hz)).save(tmp_path, {})
    config = replace(get_recipe("lmo_g1_tiny"), physics_s=1 / rate_hz, substeps=rate_hz // 50)
    a = CpuEngine(ROBOT, config, 2, 0, 1, training=False)
    b = CpuEngine(ROBOT, replace(config, actuator=str(tmp_path), physics_s=0.01, substeps=2), 2, 0, 1, training=False)
    assert (b.model.actuator_gainprm[:, 0] == 1).all() and (b.model.actuator_biasprm == 0).all()
    assert b.model.opt.timestep == 1 / rate_hz
    rng = np.random.default_rng(0)
    for _ in range(15):
        action = rng.normal(size=(2, 15)) * 0.3
        a.step(action)
        b.step(action)
    np.testing.assert_allclose(b.qpos, a.qpos, atol=tolerance)
    assert np.abs(a.qpos[:, 7:22] - ROBOT.array("default")[:15]).max() > 0.1, "something moved"


def test_the_engine_stays_finite_at_the_default_rate_in_training(tmp_path):
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe

    linear_net(ROBOT, 250.0).save(tmp_path, {})
    engine = CpuEngine(ROBOT, replace(get_recipe("lmo_g1_tiny"), actuator=str(tmp_path)), 4, 0, 1)
    assert engine.config.substeps == 5
    engine.level[:], rng = 1.0, np.random.default_rng(0)
    for _ in range(100):
        engine.step(rng.normal(size=(4, 15)))
        assert np.isfinite(engine.state).all() and np.abs(engine.qvel[:, 6:]).max() < 100


def test_a_resumed_run_with_clips_and_network_equals_a_straight_one_bit_for_bit(tmp_path):
    pytest.importorskip("rsl_rl")
    from safetensors.torch import load_file

    from wbvla.lmo.bench.arms import committed
    from wbvla.lmo.ppo import Trainer, recipe_of
    from wbvla.recipes.lmo import get_recipe

    linear_net(ROBOT, 250.0).save(tmp_path / "net", {})
    config = replace(get_recipe("lmo_g1_tiny"), arms=(str(committed("g1")),), actuator=str(tmp_path / "net"))

    def updates(trainer, n):
        for _ in range(n):
            trainer.env.level[:] = 0.5
            trainer.update()
        trainer.save(tmp_path)
        return load_file(tmp_path / "checkpoint.safetensors")

    straight = updates(Trainer(ROBOT, config, 3, 1), 4)
    assert {"worlds.arms.playing", "worlds.actuator.error"} <= straight.keys()
    updates(Trainer(ROBOT, config, 3, 1), 2)
    again = Trainer(ROBOT, recipe_of(tmp_path, "lmo_g1_tiny"), 3, 1)
    again.load(tmp_path)
    resumed = updates(again, 2)
    for name, tensor in straight.items():
        assert tensor.equal(resumed[name]), name
    with pytest.raises(ValueError, match="recipe.actuator: got '.*net', expected ''"):
        Trainer(ROBOT, replace(config, actuator=""), 3, 1).load(tmp_path)


def test_the_verb_fits_a_robots_log(tmp_path, log, monkeypatch, capsys):
    from wbvla.lmo import actuator_fit

    monkeypatch.setattr(actuator_fit, "STEPS", 20)  # the verb's wiring is the subject, not the fit
    columns = {name: np.tile(getattr(log, name)[:, :1], len(ROBOT.joints)) for name in SIGNALS}
    np.savez(tmp_path / "log.npz", **columns, rate_hz=RATE_HZ)
    assert main(["lmo", "actuator", "--log", str(tmp_path / "log.npz"), "--out", str(tmp_path / "net")]) == 0
    assert "held-out R2" in capsys.readouterr().out
    facts = json.loads((tmp_path / "net" / "actuator.json").read_text())
    assert list(facts["held_out"]) == list(ROBOT.joints) and facts["log"] == "log.npz"
    assert ActuatorNet.load(tmp_path / "net", ROBOT.joints).rate_hz == 250
    assert main(["lmo", "actuator", "--log", str(tmp_path / "none.npz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
