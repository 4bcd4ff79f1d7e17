"""Laws of the legs' benchmark: figures of known motions, draws that nothing else moves, any policy by its contract."""

import csv
import json
from collections import defaultdict
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("mujoco")

from wbvla.cli import main
from wbvla.lmo.bench import accuracy, draw, follow, metrics, robust, run, stability, stage1, tour
from wbvla.lmo.bench.arms import committed, load_clip
from wbvla.lmo.bench.cell import Row, score, world_steps
from wbvla.lmo.bench.draw import Push, Setting
from wbvla.lmo.bench.interface import read_interface
from wbvla.lmo.bench.model import NOMINAL, Body, Physics
from wbvla.lmo.bench.plant import Plant
from wbvla.lmo.bench.play import Trace
from wbvla.lmo.bench.policy import Measured, open_policy
from wbvla.lmo.bench.run import BenchLmo
from wbvla.lmo.controller import shipped_controller, weights_folder
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception

ROBOT = get_robot("g1")
STEP = 0.02


# Figures of motions that are known beforehand.
def walk(velocity, seconds=10.0, command=None, n=1, height=0.74):
    """A trace of robots that move exactly so: velocity (vx, vy, wz) in the heading frame."""
    steps = round(seconds / STEP)
    trace = Trace.empty(steps, n, 330.0)
    trace.velocity[:], trace.height[:], trace.alive[:] = velocity, height, True
    trace.command[..., :3], trace.command[..., 3] = velocity if command is None else command, 0.74
    trace.pose[:, :, 2] = (np.arange(1, steps + 1) * STEP * velocity[2])[:, None]
    heading = trace.pose[:, 0, 2]
    moved = np.cumsum((velocity[0] + 1j * velocity[1]) * np.exp(1j * heading)) * STEP
    trace.pose[:, :, 0], trace.pose[:, :, 1] = moved.real[:, None], moved.imag[:, None]
    return trace


def test_a_circling_centre_of_mass_sways_by_the_radius_wherever_the_circle_is():
    angle = np.linspace(0, 6 * np.pi, 600, endpoint=False)
    circle = np.stack([3 + 0.02 * np.cos(angle), -1 + 0.02 * np.sin(angle)], axis=1)
    line = np.stack([0.03 * np.sin(angle), 0 * angle], axis=1)
    np.testing.assert_allclose(metrics.sway(np.stack([circle, line], axis=1)), [0.02, 0.03 / np.sqrt(2)], rtol=1e-9)


def test_a_perfect_walk_has_no_tracking_error_and_a_slow_one_the_difference():
    np.testing.assert_allclose(metrics.tracking_errors(walk((0.3, 0.1, -0.2)))[0], 0, atol=1e-5)
    error = metrics.tracking_errors(walk((0.3, 0.0, 0.1), command=(0.5, 0.1, 0.1), height=0.70))[0]
    np.testing.assert_allclose(error, [0.2, 0.1, 0.0, 0.04], atol=1e-5)


def test_tracking_errors_ignore_a_stride_s_sway_and_what_follows_a_change_or_a_fall():
    trace = walk((0.3, 0.0, 0.0), seconds=8.0)
    trace.velocity[..., 1] += 0.2 * np.sin(2 * np.pi * np.arange(400) / 25)[:, None]
    trace.command[200:, :, 0] = -0.3
    trace.velocity[200:, :, 0] = -0.3
    trace.velocity[300:] = 99.0
    trace.alive[300:] = False
    np.testing.assert_allclose(metrics.tracking_errors(trace)[0], 0, atol=1e-2)
    trace.command[::10, :, 2] += 0.01
    assert np.isnan(metrics.tracking_errors(trace)[0]).all()


def test_reach_errors_of_a_known_pose():
    begin = np.array([[2.0, 1.0, np.pi / 2]])
    ideal = np.array([1.5, 0.0, 0.0])
    exact = begin + [[0.0, 1.5, 0.0]]
    errors = accuracy.reach_errors(begin, exact, exact, ideal, np.array([True]))
    assert all(abs(value[0]) < 1e-12 for value in errors.values())
    late = exact + [[0.3, 0.4, 2 * np.pi + 0.1]]
    errors = accuracy.reach_errors(begin, exact, late, ideal, np.array([True]))
    assert errors["position_error_m"][0] == pytest.approx(0.5) == errors["rest_drift_m"][0]
    assert errors["yaw_error_rad"][0] == pytest.approx(0.1)
    assert np.isnan(accuracy.reach_errors(begin, exact, late, ideal, np.array([False]))["yaw_error_rad"][0])


def test_stage1_passes_a_perfect_walk_only():
    good = stage1._straight(walk((0.5, 0.0, 0.0)))
    np.testing.assert_allclose(
        [good[k][0] for k in ("distance_share", "aside_share", "heading_drift_rad")], [1, 0, 0], atol=1e-6
    )
    turned = stage1._turn(walk((0.0, 0.0, -0.5)), -1.0)
    np.testing.assert_allclose([turned["angle_share"][0], turned["place_drift_m"][0]], [1, 0], atol=1e-6)
    assert metrics.interval(32, 32)[1] == 1.0 and metrics.interval(0, 32)[0] == 0.0
    low, high = metrics.interval(31, 32)
    assert 0.84 < low < 31 / 32 < high < 1


def test_wear_counts_landings_and_torque_until_the_fall():
    trace = walk((0.0, 0.0, 0.0), seconds=4.0)
    trace.torque[:], trace.torque[:20] = 0.5, 0.99
    trace.foot_force[50:80, :, 0], trace.foot_force[51, :, 0] = 330, 660
    trace.foot_speed[50:80, :, 0] = 0.1
    trace.torque[100:], trace.alive[100:] = 9.0, False
    wear = metrics.wear(trace)
    assert wear["torque_above_95"][0] == pytest.approx(0.2) and wear["torque_p95"][0] == pytest.approx(0.99)
    assert wear["foot_impact"][0] == pytest.approx(2.0) and wear["foot_slip_m_s"][0] == pytest.approx(0.1)


# What is drawn.
def setting(default=None):
    pose = ROBOT.array("default") if default is None else default
    return Setting(ROBOT, pose, ROBOT.nominal_height_m, load_clip(committed("g1")))


def test_a_push_keeps_its_impulse_at_any_length_and_time():
    for length in (0.05, 0.1, 0.2, 0.013):
        push = Push(1.2345, length, 100.0, 0.0)
        assert sum(push.during(t) for t in range(200)) * STEP == pytest.approx(length)


def test_flags_are_redrawn_reversed_and_never_translate_low():
    rng, everything, reversals = np.random.default_rng(0), [], 0
    for _ in range(20):
        command = draw.flag_commands(rng, setting(), 60.0)
        assert command.shape == (3000, 4)
        change = np.flatnonzero((np.diff(command, axis=0) != 0).any(1)) + 1
        assert np.diff(change).min() >= 100
        reversals += sum((command[c, :3] == -command[c - 1, :3]).all() and command[c, :3].any() for c in change)
        everything.append(command)
    command = np.concatenate(everything)
    translates, height = command[:, :2].any(1), command[:, 3]
    assert 0.65 <= height[translates].min() < 0.66 and 0.45 <= height[~translates].min() < 0.5 and height.max() <= 0.74
    flags = np.unique(np.round(command[:, :3] / draw.CRUISE, 9), axis=0)
    assert set(flags.ravel()) == {-1.0, 0.0, 1.0} and len(flags) == 27 and reversals > 40
    assert (draw.flag_commands(rng, setting(), 10.0, rest_s=2.0)[:100, :3] == 0).all()


def test_arm_motion_stays_within_range_and_speed():
    s, rng = setting(), np.random.default_rng(1)
    low, high = ROBOT.range_rad[s.arms].T
    for motion in (draw.random_arms(rng, s, 1500), draw.replayed_arms(rng, s, 1500, 2.0, 1.5), s.arm_clip):
        assert (motion >= low - 1e-9).all() and (motion <= high + 1e-9).all()
    motion = draw.random_arms(rng, s, 1500)
    assert 0.5 < np.abs(np.diff(motion, axis=0)).max() / STEP <= 3.0 + 1e-9
    assert len(s.arm_clip) == pytest.approx(3000, abs=5)


def test_replay_is_twice_as_fast_and_half_as_wide_again_about_the_mean():
    s = setting()
    still = np.random.default_rng(2)
    motion = draw.replayed_arms(still, s, 4000, 2.0, 1.5)[50:]
    rms = lambda x: np.sqrt((np.diff(x, axis=0) ** 2).mean())  # noqa: E731
    assert 2.4 < rms(motion) / rms(s.arm_clip) < 3.1


@pytest.mark.parametrize("seed", range(5))
def test_standing_poses_stand(seed):
    s = setting()
    q, quat, _ = draw.standing_pose(np.random.default_rng(seed), s)
    assert (q >= ROBOT.range_rad[:, 0]).all() and (q <= ROBOT.range_rad[:, 1]).all()
    assert np.linalg.norm(quat) == pytest.approx(1)
    for start in (0, 6):  # pitch of hip, knee, ankle and roll of hip, ankle cancel: flat soles
        assert abs(q[start] + q[start + 3] + q[start + 4]) < 0.02 and abs(q[start + 1] + q[start + 5]) < 1e-9


# The plant.
def gains():
    return ROBOT.array("kp"), ROBOT.array("kd"), ROBOT.array("effort")


def upright(plant, bodies, height=None):
    qpos = np.zeros((len(bodies), plant.nq))
    qpos[:, 3], qpos[:, 7:] = 1.0, ROBOT.array("default")
    qpos[:, 2] = [plant.standing_height(q) if height is None else height for q in qpos]
    plant.start(bodies, qpos, np.zeros((len(bodies), plant.nv)))


def test_a_push_moves_the_centre_of_mass_by_its_impulse():
    with Plant(ROBOT, Physics(), *gains(), threads=1) as plant:
        upright(plant, [NOMINAL, Body(hands_kg=(2.5, 2.5))], height=5.0)
        target, alive = np.tile(ROBOT.array("default"), (2, 1)), np.ones(2, bool)
        for t in range(10):
            plant.step(target, np.tile([60.0 if t < 5 else 0.0, -30.0 if t < 5 else 0.0, 0.0], (2, 1)), alive)
        com = plant.sensor("com")
        velocity = (com[:, -1] - com[:, -2]) / plant.physics.step_s
        mass = plant.weight_n / 9.81 + np.array([0.0, 5.0])
        np.testing.assert_allclose(velocity[:, 0], 6.0 / mass, rtol=1e-2)
        np.testing.assert_allclose(velocity[:, 1], -3.0 / mass, rtol=1e-2)


def test_bodies_differ_as_drawn_and_the_dead_are_frozen():
    with Plant(ROBOT, Physics(), *gains(), threads=1) as plant:
        body = Body(friction=0.5, torso_kg=2.0, hands_kg=(1.0, 0.0), kp=1.1)
        upright(plant, [NOMINAL, body])
        nominal, m = plant.models
        assert m.body_mass.sum() - nominal.body_mass.sum() == pytest.approx(3.0)
        np.testing.assert_allclose(m.actuator_gainprm[:, 0], 1.1 * nominal.actuator_gainprm[:, 0])
        before = plant.state.copy()
        plant.step(np.tile(ROBOT.array("default"), (2, 1)), np.zeros((2, 3)), np.array([True, False]))
        assert (plant.state[0] != before[0]).any() and (plant.state[1] == before[1]).all()
        assert 0 < plant.qpos[1, 2] < 0.8


def test_physics_settings_are_checked():
    for wrong in (dict(step_s=0.003), dict(model="isaac"), dict(feet="boots"), dict(collisions="some")):
        with pytest.raises(ValueError, match="expected"):
            Physics(**wrong)


def test_mjlabs_g1_is_a_plant_too():
    if find_spec("mjlab") is None:  # importing it takes seconds
        pytest.skip("mjlab is not installed")
    with Plant(ROBOT, Physics(model="mjlab"), *gains(), threads=1) as plant:
        assert plant.weight_n / 9.81 == pytest.approx(33.34, abs=0.01)
        upright(plant, [NOMINAL])
        for _ in range(10):
            plant.step(np.tile(ROBOT.array("default"), (1, 1)), np.zeros((1, 3)), np.ones(1, bool))
        assert 0.7 < plant.qpos[0, 2] < 0.8 and plant.sensor("left_touch").max() > 50


# The policy and its contract.
def shipped_contract():
    return json.loads((weights_folder("g1") / "contract.json").read_text())


def linear_policy(folder, weight, contract, recurrent=False):
    """Write action = observation @ weight (+ a state that adds up the observations) as ONNX, with a contract."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    batch, info = "batch", helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["observation", "w"], ["out" if recurrent else "action"])]
    inputs = [info("observation", TensorProto.FLOAT, [batch, weight.shape[0]])]
    outputs = [info("action", TensorProto.FLOAT, [batch, weight.shape[1]])]
    if recurrent:
        nodes += [
            helper.make_node("Squeeze", ["h", "axis"], ["h2"]),
            helper.make_node("Add", ["out", "h2"], ["action"]),
            helper.make_node("Unsqueeze", ["action", "axis"], ["h_out"]),
        ]
        inputs.append(info("h", TensorProto.FLOAT, [1, batch, weight.shape[1]]))
        outputs.append(info("h_out", TensorProto.FLOAT, [1, batch, weight.shape[1]]))
    constants = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    constants += [numpy_helper.from_array(np.array([0]), "axis")] if recurrent else []
    graph = helper.make_graph(nodes, "legs", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    (folder / "contract.json").write_text(json.dumps(contract))
    del onnx
    return str(folder)


def plain_contract(**changes):
    """A stranger's contract: 29 joints, 12 actions, velocities and height as commanded."""
    joints = [f"{name}_joint" for name in ROBOT.joints]
    contract = {
        "kind": "lmo", "version": 1, "robot": "g1", "rate_hz": 50, "joints": joints, "owned_by_lmo": joints[:12],
        "kp": 100.0, "kd": 2.0, "default_rad": ROBOT.array("default").tolist(), "action_scale_rad": 0.25,
        "nominal_height_m": 0.74, "observation": [{"name": "velocity_command"}, {"name": "q"}, {"name": "last_action"}],
    }  # fmt: skip
    return contract | changes


def some_body(n=3, seed=0):
    rng = np.random.default_rng(seed)
    gravity = np.tile([0.0, 0.0, -1.0], (n, 1))
    return Measured(
        ROBOT.array("default") + rng.normal(size=(n, 29)) * 0.1,
        rng.normal(size=(n, 29)),
        rng.normal(size=(n, 3)),
        gravity,
    )


def test_the_shipped_policy_acts_as_on_the_robot():
    policy, controller = open_policy("", "", ROBOT), shipped_controller()
    policy.reset(1)
    for t in range(40):
        body = some_body(1, seed=t)
        height = 0.74 if t < 20 else 0.6
        target = policy.act(np.array([[0.5, 0.0, -0.5, height]]), body)
        expected = controller.step(
            LocoCommand(1, 0, -1, height), Proprioception(body.q[0], body.dq[0], body.gyro[0], body.gravity[0])
        )
        np.testing.assert_allclose(target[0, :15], expected, atol=2e-5)


def test_a_slower_command_lowers_the_goal_speed_and_rest_keeps_it_for_stopping():
    policy = open_policy("", "", ROBOT)
    policy.reset(1)
    for _ in range(300):
        policy.act(np.array([[0.3, 0.0, 0.0, 0.74]]), some_body(1))
    assert policy.shaper.v_ref[0, 0] == pytest.approx(0.3, abs=1e-3)
    policy.act(np.array([[0.0, 0.0, 0.0, 0.74]]), some_body(1))
    assert 0.25 < policy.shaper.v_ref[0, 0] < 0.3


def test_joint_order_is_the_contracts_own(tmp_path):
    """The same network with its joints in another order gives the same targets."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3 + 29 + 12, 12)) * 0.1
    order = rng.permutation(29)
    straight = plain_contract()
    other = plain_contract(
        joints=[straight["joints"][i] for i in order], default_rad=[straight["default_rad"][i] for i in order]
    )
    mixed = weight.copy()
    mixed[3:32] = weight[3:32][order]
    a = open_policy(linear_policy(tmp_path / "a", weight, straight), "", ROBOT)
    b = open_policy(linear_policy(tmp_path / "b", mixed, other), "", ROBOT)
    for policy in (a, b):
        policy.reset(3)
    for t in range(3):
        command = np.tile([0.3, -0.1, 0.2, 0.74], (3, 1))
        np.testing.assert_allclose(a.act(command, some_body(seed=t)), b.act(command, some_body(seed=t)), atol=1e-6)


def test_terms_scale_offset_clip_mask_and_clock(tmp_path):
    terms = [
        {"name": "height_command", "offset": 0.74, "scale": 5.0},
        {"name": "dq", "joints": ["left_knee_joint"], "clip": 0.1, "scale": 2.0},
        {"name": "q_rad", "joints": ["left_elbow"]},
        {"name": "clock", "offsets": [0.0, 0.5], "at_rest": [9, 9, 9, 9]},
        {"name": "standing"},
        {"name": "constant", "width": 2, "value": [3.0, 4.0]},
        {"name": "gravity", "entries": [2, 0], "offset": [-1.0, 0.0]},
        {"name": "clock", "offsets": [0.0, 0.5], "at_rest": [9, 9, 9, 7], "entries": [3]},
    ]
    contract = plain_contract(observation=terms, owned_by_lmo=["left_knee"] * 1, mask_arms=True, action_clip=100.0)
    width = 1 + 1 + 1 + 4 + 1 + 2 + 2 + 1
    contract["owned_by_lmo"] = plain_contract()["joints"][:width]  # the identity: actions are the observation
    contract["action_scale_rad"] = 1.0
    policy = open_policy(linear_policy(tmp_path, np.eye(width), contract), "", ROBOT)
    policy.reset(2)
    policy.act(np.array([[0, 0, 0, 0.6], [0.3, 0, 0, 0.74]]), some_body(2))
    seen = policy.action
    elbow = ROBOT.array("default")[ROBOT.joints.index("left_elbow")]
    np.testing.assert_allclose(seen[:, 0], [-0.7, 0.0], atol=1e-6)
    assert (np.abs(seen[:, 1]) <= 0.2 + 1e-6).all()
    np.testing.assert_allclose(seen[:, 2], elbow, atol=1e-6)
    np.testing.assert_allclose(seen[:, 3:7], [[9, 9, 9, 9], [0, 0, 1, -1]], atol=1e-6)
    np.testing.assert_allclose(seen[:, 7:10], [[1, 3, 4], [0, 3, 4]], atol=1e-6)
    gravity = some_body(2).gravity
    np.testing.assert_allclose(seen[:, 10:12], np.column_stack([gravity[:, 2] + 1, gravity[:, 0]]), atol=1e-6)
    np.testing.assert_allclose(seen[:, 12], [7, -1], atol=1e-6)


@pytest.mark.parametrize(("name", "width"), [("holosoma_ppo", 100), ("unitree_rl_lab", 480)])
def test_the_contracts_of_public_policies_are_readable(name, width, repo_root):
    interface = read_interface(repo_root / "docs" / "contracts" / f"{name}.json", ROBOT)
    assert interface.width == width and len(interface.owned) == 29 and not interface.follows_height


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"frames": 3, "layout": "frames", "newest": "first"}, "c2 d2 c1 d1 c0 d0"),
        ({"frames": 3, "layout": "frames", "newest": "last"}, "c0 d0 c1 d1 c2 d2"),
        ({"frames": 3, "layout": "terms", "newest": "last"}, "c0 c1 c2 d0 d1 d2"),
        ({"frames": 4, "layout": "terms", "newest": "last", "fill": "zeros"}, "00 c0 c1 c2 00 d0 d1 d2"),
        ({"frames": 4, "layout": "frames", "newest": "first"}, "c2 d2 c1 d1 c0 d0 c0 d0"),
    ],
)
def test_history_is_stacked_as_written(tmp_path, history, expected):
    terms = [{"name": "height_command"}, {"name": "constant"}]
    width = 2 * history["frames"]
    contract = plain_contract(observation=terms, history=history, action_clip=100.0)
    contract["owned_by_lmo"] = contract["joints"][:width]
    policy = open_policy(linear_policy(tmp_path, np.eye(width), contract), "", ROBOT)
    policy.reset(1)
    values = {"00": 0.0}
    for t, height in enumerate((0.7, 0.6, 0.5)):
        policy.act(np.array([[0, 0, 0, height]]), some_body(1))
        values |= {f"c{t}": height, f"d{t}": 0.0}
    np.testing.assert_allclose(policy.action[0], [values[name] for name in expected.split()], atol=1e-6)


def test_recurrent_states_belong_to_their_world(tmp_path):
    rng = np.random.default_rng(0)
    contract = plain_contract(recurrent=[{"input": "h", "output": "h_out", "shape": [1, 1, 12], "batch_axis": 1}])
    weight = rng.normal(size=(44, 12)) * 0.01
    many = open_policy(linear_policy(tmp_path, weight, contract, recurrent=True), "", ROBOT)
    one = open_policy(str(tmp_path), "", ROBOT)
    many.reset(40)
    one.reset(1)
    for t in range(4):
        body = some_body(40, seed=t)
        command = np.tile([0.3, 0, 0, 0.74], (40, 1))
        all_targets = many.act(command, body)
        alone = one.act(command[37:38], Measured(*(x[37:38] for x in (body.q, body.dq, body.gyro, body.gravity))))
        np.testing.assert_array_equal(all_targets[37], alone[0])
    assert np.abs(many.network.memory[0]).max() > 0
    many.reset(40)
    assert np.abs(many.network.memory[0]).max() == 0


WRONG = {
    "robot": ({"robot": "x2"}, "robot: got 'x2'"),
    "rate": ({"rate_hz": 100}, "rate_hz: got 100, expected 50"),
    "kind": ({"kind": "vla"}, "expected 'lmo'"),
    "unknown joint": ({"owned_by_lmo": ["left_toe"]}, r"owned_by_lmo\[0\]: got 'left_toe'"),
    "joint twice": ({"owned_by_lmo": ["left_knee", "left_knee_joint"]}, r"owned_by_lmo\[1\]"),
    "few joints": ({"joints": ["left_knee"]}, "joints: got '1 names', expected all 29"),
    "gains": ({"kp": [1.0, 2.0]}, "kp: got"),
    "text": ({"kd": "soft"}, "kd: got 'soft'"),
    "infinite": ({"action_scale_rad": float("inf")}, "action_scale_rad"),
    "no terms": ({"observation": []}, "observation: got"),
    "unknown term": ({"observation": [{"name": "true_velocity"}]}, r"observation\[0\]: got"),
    "wrong width": ({"observation": [["gyro", 4, 1.0]]}, r"observation\[0\].width: got 4, expected 3"),
    "unknown field": ({"observation": [{"name": "gyro", "noise": 1}]}, "'noise'"),
    "network width": ({"observation": [{"name": "gyro"}]}, "observation: got '3 numbers'"),
    "actions": ({"owned_by_lmo": ["left_knee"], "observation": [{"name": "constant", "width": 44}]}, "owned_by_lmo"),
    "history": ({"history": {"frames": 0}}, "history.frames: got 0"),
    "layout": ({"history": {"frames": 2, "layout": "zigzag"}}, "history.layout"),
    "shaping": ({"shaping": {"speed": 1}}, "shaping: got"),
    "input": ({"input": "obs"}, "input: got 'obs', expected one of observation"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_contract_is_one_clear_line(tmp_path, case):
    changes, expected = WRONG[case]
    folder = linear_policy(tmp_path, np.zeros((44, 12)), plain_contract(**changes))
    with pytest.raises(ValueError, match=expected) as error:
        open_policy(folder, "", ROBOT)
    assert "\n" not in str(error.value)


def test_a_missing_field_is_named(tmp_path):
    contract = plain_contract()
    del contract["kp"]
    with pytest.raises(ValueError, match="kp: got None"):
        open_policy(linear_policy(tmp_path, np.zeros((44, 12)), contract), "", ROBOT)


def test_user_errors_end_with_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "contract.json").write_text(json.dumps(shipped_contract() | {"rate_hz": 25}))
    onnx = weights_folder("g1") / "policy.onnx"
    for arguments, words in (
        (("--policy", onnx, "--contract", tmp_path / "contract.json"), "rate_hz: got 25, expected 50"),
        (("--policy", tmp_path / "none.onnx"), "no policy at"),
        (("--contract", tmp_path), "no contract at"),
        (("--protocol", "follow"), "--file"),
        (("--protocol", "stage2"), "stage2"),
        (("--arms", tmp_path / "none.npz"), "no arm motion at"),
        (("--worlds", "-1"), "--worlds: got -1"),
        (("--physics-ms", "3"), "physics step: got 3 ms"),
        (("--robot", "r2d2"), "expected one of"),
    ):
        assert main(["lmo", "bench", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and printed.out == ""


# Whole rows.
@pytest.fixture
def short_rows(monkeypatch):
    """Two seconds of hard walking of five worlds: jumps, random bodies, noise, delay; by batches and threads."""
    policy = open_policy("", "", ROBOT)
    i = policy.interface
    s = Setting(ROBOT, i.default, i.nominal_m, load_clip(committed("g1")))
    monkeypatch.setattr(robust, "HARD_S", 2.0)
    monkeypatch.setattr(robust, "JUMP_TIMES_S", (0.5,))
    cells = robust.cells()

    def rows(batch, threads=1, worlds=5, seed=0, cell=cells[4]):
        with Plant(ROBOT, Physics(), i.kp, i.kd, i.effort, threads) as plant:
            return score(cell, plant, policy, s, seed, worlds, batch=batch)

    return rows


def same(a, b):
    for name in a.values:
        np.testing.assert_array_equal(a.values[name], b.values[name][: len(a.values[name])], err_msg=name)


def test_a_world_depends_on_its_seed_only(short_rows):
    whole = short_rows(128)
    same(whole, short_rows(128))
    same(whole, short_rows(1))
    same(whole, short_rows(2, threads=2))
    same(short_rows(128, worlds=2), whole)
    assert (short_rows(128, seed=1).values["torque_p95"] != whole.values["torque_p95"]).any()


def test_same_seed_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stage1, "SECONDS", 0.4)
    monkeypatch.setattr(stage1, "cells", lambda cells=stage1.cells: cells()[:3])
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, threads in zip(files, (1, 2)):
        run.run(BenchLmo(worlds=3, threads=threads, json=str(file)))
    assert files[0].read_bytes() == files[1].read_bytes()
    result = json.loads(files[0].read_text())
    assert result["contract"] == shipped_contract() and result["physics"]["step_s"] == 0.005
    assert result["figures"]["trials"] == 9 and result["figures"]["stage1_passed"] is False
    assert {"torque_p95", "foot_impact", "error_vx_m_s", "survival_90"} <= set(result["rows"][0])


def test_interruption_writes_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    from wbvla.lmo.bench import cell

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cell, "score", stop)
    assert run.run(BenchLmo(worlds=1, threads=1, json=str(tmp_path / "x.json"))) == 130
    assert not (tmp_path / "x.json").exists() and "interrupted after 0 of 4 rows" in capsys.readouterr().err


def test_a_policy_of_zeros_does_not_walk(tmp_path):
    zero = linear_policy(tmp_path, np.zeros((44, 12)), plain_contract(kp=40.0))
    policy = open_policy(zero, "", ROBOT)
    s = Setting(ROBOT, policy.interface.default, 0.74, load_clip(committed("g1")))
    cell = accuracy._speed("forward", 0.5)
    with Plant(ROBOT, Physics(), policy.interface.kp, policy.interface.kd, policy.interface.effort, 1) as plant:
        row = score(cell, plant, policy, s, 0, 2)
    assert row.survived == 0 or abs(row.mean("steady_vx_m_s")) < 0.1
    assert row.mean("height_error_m") is None  # it is told no height


PROMISED = {
    "survival_nominal", "survival_randomised", "survival_walk_jump_05", "survival_walk_jump_10", "survival_loaded",
    "survival_handover", "forward_position_error_m", "forward_yaw_error_rad", "lateral_position_error_m",
    "lateral_yaw_error_rad", "turn_position_error_m", "turn_yaw_error_rad", "com_sway_stand_m", "com_sway_stand_push_m",
    "com_sway_squat_m", "com_sway_squat_push_m", "survival_stand_push", "survival_squat_push", "tracking_error_forward",
    "tracking_error_lateral", "tracking_error_yaw", "height_error_m", "tour_completion",
}  # fmt: skip


@pytest.mark.parametrize("with_heights", [True, False])
def test_every_promised_figure_is_there_and_a_skipped_row_is_none(with_heights):
    figures, steps = {}, {}
    for protocol in (accuracy, stability, robust, tour):
        cells = [cell for cell in protocol.cells() if with_heights or not cell.needs_height]
        rows = [Row(cell.name, 2, cell.seconds, defaultdict(lambda: np.ones(2))) for cell in cells]
        assert len({row.name for row in rows}) == len(rows)
        figures |= protocol.figures(rows)
        steps[protocol.__name__.split(".")[-1]] = world_steps(cells, 0)
    assert set(figures) >= PROMISED
    assert {name for name in PROMISED if figures[name] is None} == (
        set() if with_heights else {"height_error_m"} | {name for name in PROMISED if "squat" in name}
    )
    if with_heights:  # docs/lmo_bench.md states these
        assert steps == {"accuracy": 1_172_000, "stability": 249_600, "robust": 6_596_000, "tour": 192_000}


# The tour and the recorded stream.
def test_a_robot_that_obeys_at_cruise_speed_finishes_the_tour():
    guide = tour.TourGuide(setting(), 2)
    pose, alive = np.tile([1.0, -2.0, 0.7], (2, 1)), np.array([True, False])
    for _ in range(3000):
        v = guide.step(pose, alive)
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        pose = pose + STEP * np.column_stack([c * v[:, 0] - s * v[:, 1], s * v[:, 0] + c * v[:, 1], v[:, 2]])
    done = guide.figures()
    np.testing.assert_array_equal(done["tour_completion"], [1.0, 0.0])
    assert done["finished_s"][0] < 45 and np.isnan(done["finished_s"][1])


def head_recording(path, turn, speed=0.4, rate=0.0, seconds=6.0):
    """Write a straight or curved walk as Aria writes it, with the device mounted as `turn` (quaternion, w first)."""
    t = np.arange(0, seconds, 0.01)
    heading = 0.3 + rate * t
    moved = np.cumsum(speed * np.exp(1j * heading)) * 0.01
    rows = []
    for k, time in enumerate(t):
        c, s = np.cos(heading[k] / 2), np.sin(heading[k] / 2)
        w, x, y, z = turn
        q = np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])
        inverse = np.array([[q[0], -q[1], -q[2], -q[3]]])
        omega = follow._turned(inverse, np.array([[0.0, 0.0, rate]]))[0]
        rows.append([int(time * 1e6), moved[k].real, moved[k].imag, 1.6, *q[1:], q[0], *omega])
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([follow.ARIA, *rows])


@pytest.mark.parametrize("mount", [(1, 0, 0, 0), (0.5, 0.5, -0.5, 0.5), (0.6, 0, 0.8, 0)])
def test_a_head_recording_becomes_forward_and_turning_speed_however_it_is_worn(tmp_path, mount):
    head_recording(tmp_path / "walk.csv", np.array(mount, float), speed=0.4, rate=0.2)
    stream = follow.read_stream(tmp_path / "walk.csv")
    middle = stream.command[50:-50]
    np.testing.assert_allclose(middle.mean(0), [0.75 * 0.4, 0.0, 0.2, 0.0], atol=0.01)
    assert stream.stretch == 1.0


def test_a_fast_recording_is_stretched_and_its_path_kept(tmp_path):
    head_recording(tmp_path / "run.csv", np.array([1.0, 0, 0, 0]), speed=2.0)
    stream = follow.read_stream(tmp_path / "run.csv")
    assert stream.stretch == pytest.approx(3.0, rel=0.02) and np.abs(stream.command[:, 0]).max() <= 0.5
    assert follow.integral(stream.command[:, :3])[0] == pytest.approx(0.75 * 2.0 * 6.0, rel=0.03)


def test_plain_streams_and_wrong_files(tmp_path):
    file = tmp_path / "plain.csv"
    file.write_text("t_s,vx_m_s,vy_m_s,wz_rad_s,height_m\n0,0,0,0,0.74\n1,0.4,0,0,0.64\n2,0.4,0,0,0.64\n")
    stream = follow.read_stream(file)
    np.testing.assert_allclose(stream.command[25], [0.2, 0, 0, -0.05], atol=1e-9)
    quarter = follow.integral(np.tile([0.5, 0.0, 0.5], (157, 1)))
    np.testing.assert_allclose(quarter, [1.0, 1.0, np.pi / 2], atol=0.02)
    for text, complaint in (("a,b\n1,2\n", "got columns a, b"), (file.read_text() + "3,x,0,0,0\n", "not numbers")):
        file.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            follow.read_stream(file)


def test_the_real_recording_walks_forward_and_stoops(shared_data):
    stream = follow.read_stream(shared_data / "motion" / "aria_head_trajectory" / "closed_loop_trajectory.csv")
    assert 1.0 < stream.stretch < 4.0 and stream.command[:, 3].min() < -0.2
    assert np.abs(stream.command[:, 0]).sum() > np.abs(stream.command[:, 1]).sum()


@pytest.mark.slow
def test_the_shipped_legs_stand_through_stage1(tmp_path):
    result = run.run(BenchLmo(worlds=8, json=str(tmp_path / "s.json")))
    assert all(row["survived"] == row["worlds"] for row in result["rows"])
    assert result["figures"]["squat_low_error_m"] < 0.03
