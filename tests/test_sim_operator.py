"""Laws of the cart's rules and of the operators: verdicts on constructed states, dwell, smooth arms, reach."""

from dataclasses import replace
from itertools import groupby, pairwise

import mujoco
import numpy as np
import pytest

from wbvla.robots import get_robot
from wbvla.sim.env import TaskEnv
from wbvla.sim.ik import ArmSolver
from wbvla.sim.operator import get_operator
from wbvla.sim.operator.motion import DWELL_S, PERIOD_S, TernaryFlag
from wbvla.sim.operator.sloppy import SloppyOperator
from wbvla.sim.seeds import seeds_for
from wbvla.sim.tasks import TASKS, get_task
from wbvla.sim.tasks.base import box_gap, palm_geoms
from wbvla.sim.tasks.cart_pushing import CartState
from wbvla.types import ARM, FLAGS, ArmTarget, LocoCommand, WholeBodyAction

DWELL = round(DWELL_S / PERIOD_S)
UP, HANDS_DOWN = np.full((2, 3), 0.9), np.full((2, 3), 0.7)
TORSO = {"torso_m": np.array([-1.2, 0.0, 0.79]), "torso_rotation": np.eye(3)}
HANDS = {"palm_m": UP, "palm_gap_m": np.full(2, 0.5)}
CART = {"cart_m": np.zeros(2), "cart_yaw_rad": 0.0, "cart_m_s": 0.0, "handle_m": 0.9}
START = CartState(0.0, np.array([-1.2, 0.0, 0.74]), 0.0, 0.0, **TORSO, **CART, **HANDS)
HOLDING = replace(START, pelvis_m=np.array([-0.4, 0, 0.74]), palm_gap_m=np.array([0.0, 0.015]))
DOWN = replace(HOLDING, pelvis_m=np.array([0.0, 0.0, 0.34]))


def at(ahead_m, beside_m=0.0, **other):
    """The cart somewhere else, the robot behind it."""
    return replace(HOLDING, cart_m=np.array([ahead_m, beside_m]), pelvis_m=np.array([ahead_m - 0.4, 0, 0.74]), **other)


PUSHED = [(HOLDING, 15), *((at(0.1 * i), 1) for i in range(21))]
FREE = {"palm_gap_m": np.full(2, 0.1), "palm_m": HANDS_DOWN}
GONE = at(2.0, **FREE)


def judge(*pieces):
    """Verdict after (state, ticks) pieces."""
    rules = get_task("cart-pushing").rules()
    return [rules.judge(state) for state, ticks in pieces for _ in range(ticks)][-1]


@pytest.mark.parametrize(
    "pieces, reached, failure",
    [
        ([(START, 50)], 0, ""),
        ([(HOLDING, 14)], 1, ""),
        ([(replace(HOLDING, yaw_rad=1.0), 50)], 0, ""),
        ([(HOLDING, 15)], 2, ""),
        ([(HOLDING, 10), (START, 1), (HOLDING, 10)], 1, ""),
        ([(replace(HOLDING, palm_gap_m=np.array([0.0, 0.03])), 50)], 1, ""),
        (PUSHED, 3, ""),
        ([*PUSHED[:-1], (at(1.99), 50)], 2, ""),
        ([*PUSHED[:-1], (at(2.1, 0.81), 50)], 2, ""),
        ([(HOLDING, 15), *((at(0.1 * i, palm_gap_m=np.array([0.0, 0.06])), 1) for i in range(21))], 2, ""),
        ([(HOLDING, 15), (at(1.3, palm_gap_m=np.ones(2)), 1), (at(2.1), 1)], 2, ""),
        ([*PUSHED, (GONE, 24)], 3, ""),
        ([*PUSHED, (GONE, 25)], 4, ""),
        ([*PUSHED, (GONE, 20), (at(2.0), 1), (GONE, 20)], 3, ""),
        ([*PUSHED, (at(2.0, palm_gap_m=np.full(2, 0.1)), 50)], 3, ""),
        ([*PUSHED, (replace(GONE, torso_m=np.array([-1.2, 0.0, 0.59])), 50)], 3, ""),  # arms stay, the trunk bows
        ([*PUSHED, (replace(GONE, cart_m_s=0.03), 50)], 3, ""),
        ([*PUSHED, (replace(GONE, palm_gap_m=np.array([0.1, 0.02])), 50)], 3, ""),
        ([*PUSHED, (replace(GONE, tilt_rad=1.1), 1), (GONE, 50)], 3, "fall"),
        ([(HOLDING, 15), (DOWN, 1), *PUSHED, (GONE, 25)], 2, "fall"),
        ([(HOLDING, 15), (replace(HOLDING, t_s=30.0), 1)], 2, "timeout"),
    ],
)
def test_rules(pieces, reached, failure):
    verdict = judge(*pieces)
    assert tuple(verdict.subgoals) == get_task("cart-pushing").subgoals
    assert list(verdict.subgoals.values()) == [i < reached for i in range(4)]
    success = reached == 4
    assert (verdict.success, verdict.failure, verdict.fallen) == (success, failure, failure == "fall")
    assert verdict.done == (success or failure != "")


def test_box_gap_of_known_places():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><freejoint/><geom name="a" type="box" size=".06 .012 .045" mass="1"/></body>'
        '<geom name="b" type="box" size=".012 .3 .08"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    for x, gap in ((0.172, 0.1), (0.072, 0.0), (0.0, 0.0), (-0.092, 0.02)):
        data.qpos[0] = x
        mujoco.mj_kinematics(model, data)
        assert box_gap(model, data, model.geom("a").id, model.geom("b").id) == pytest.approx(gap, abs=1e-9)


def runs(values):
    return [(value, len(list(group))) for value, group in groupby(values)]


def assert_dwells(values):
    pieces = runs(values)
    assert all(n >= DWELL for _, n in pieces[1:-1])
    assert all(a * b == 0 for (a, _), (b, _) in pairwise(pieces)), "a reversal must pass through 0"


def test_flag_dwells_under_any_error():
    rng = np.random.default_rng(0)
    flag = TernaryFlag(0.16, 0.05)
    errors = np.concatenate([rng.normal(0, 0.3, 2000), np.cumsum(rng.normal(0, 0.05, 2000))])
    assert_dwells([flag.update(float(e)) for e in errors])


def test_flag_has_hysteresis():
    flag = TernaryFlag(0.16, 0.05)
    assert [flag.update(0.10) for _ in range(20)] == [0] * 20
    assert flag.update(0.2) == 1
    assert [flag.update(0.10) for _ in range(20)] == [1] * 20
    assert flag.update(0.04) == 0


def wandering(rng, steps):
    """States of a robot that is shoved about."""
    state = START
    for _ in range(steps):
        state = replace(
            state,
            t_s=state.t_s + PERIOD_S,
            pelvis_m=state.pelvis_m + [*rng.normal(0.0, 0.06, 2), 0.0],
            yaw_rad=float(state.yaw_rad + rng.normal(0, 0.15)),
        )
        yield state


def test_operator_speaks_flags_with_dwell_and_smooth_arms():
    rng = np.random.default_rng(1)
    robot = get_robot("g1")
    operator = get_operator(get_task("cart-pushing"), robot, rng)
    actions = np.array([operator.act(state).to_vector() for state in wandering(rng, 600)])
    for flag in range(16, 19):
        assert_dwells(actions[:, flag].tolist())
    assert np.abs(np.diff(actions[:, :14], axis=0)).max() <= 1.5 * PERIOD_S + 1e-6
    low, high = robot.range_rad[15:29].T.astype(np.float32)
    assert (actions[:, :14] >= low).all() and (actions[:, :14] <= high).all()


def test_arm_solver_reaches_with_both_palms_and_mirrors():
    robot = get_robot("g1")
    left = np.array([0.34, 0.15, 0.16])
    solver = ArmSolver(robot)
    arms = solver.solve(left, left * [1, -1, 1])
    index, sign = robot.mirror()
    assert np.allclose(arms, arms[index[15:29] - 15] * sign[15:29], atol=1e-3)
    with pytest.raises(ValueError, match="nearer"):
        solver.solve(left + [1.0, 0, 0], left * [1, -1, 1])


@pytest.mark.parametrize("name", ["g1", "x2"])
def test_both_hands_reach_with_their_fingers_ahead_and_thumbs_up(name):
    """Whatever the axes of a robot's palm are: the X2's fingers lie along -z of it."""
    robot = get_robot(name)
    solver = ArmSolver(robot)
    data = mujoco.MjData(solver.model)
    data.qpos[[solver.model.joint(joint).qposadr[0] for joint in robot.arm_joints]] = solver.solve(
        np.array([0.3, 0.15, 0.1]), np.array([0.3, -0.15, 0.1])
    )
    mujoco.mj_kinematics(solver.model, data)
    for geom, hand in zip(palm_geoms(solver.model), robot.hands):
        turn = data.geom_xmat[geom].reshape(3, 3) @ hand
        assert turn[0, 0] > 0.9 and turn[2, 2] > 0.9
    assert robot.palm_half_m[1] == min(robot.palm_half_m)


def shipped(robot="g1"):
    from wbvla.lmo.controller import shipped_controller

    try:
        return shipped_controller(robot)
    except ValueError as error:
        pytest.skip(str(error))


class Straight:
    """An operator that always walks ahead; notes what it sees."""

    def reset(self, rng):
        self.seen_s = []

    def act(self, state):
        self.seen_s.append(state.t_s)
        return WholeBodyAction(ArmTarget(np.zeros(14)), LocoCommand(1, 0, 0, 0.7))


def test_a_sloppy_operator_sees_late_trembles_and_first_goes_aside():
    lags, aside = set(), set()
    for seed in range(20):
        straight = Straight()
        sloppy = SloppyOperator(straight, get_robot("g1"), 1.0, np.random.default_rng(seed))
        times = np.arange(200) * PERIOD_S
        actions = np.array([sloppy.act(replace(START, t_s=t)).to_vector() for t in times])
        lags.add(round(float(times[-1] - straight.seen_s[-1]), 2))
        assert 0.02 < actions[81:, ARM].std() < 0.045
        aside.add(int(np.sign(actions[:80, FLAGS][:, 1].sum())))
        assert (actions[81:, FLAGS] == [1, 0, 0]).all(), "after four seconds at most it does its work"
    assert lags == {0.0, 0.05, 0.1, 0.15, 0.2} and aside == {-1, 1}


def test_flags_of_a_sloppy_operator_dwell_where_the_detour_ends():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        operator = get_operator(get_task("cart-pushing"), get_robot("g1"), rng, sloppiness=1.0)
        flags = np.array([operator.act(state).to_vector()[FLAGS] for state in wandering(rng, 200)])
        for flag in flags.T:
            assert_dwells(flag.tolist())


@pytest.mark.slow
def test_a_sloppy_operator_still_pushes_the_cart():
    assert demonstrate("cart-pushing", seeds_for("validation", 1)[0], sloppiness=1.0)[0]["success"]


def test_the_hands_go_level_with_a_handle_of_any_height():
    """The arms obey at once here; on the way the operator corrects by eye what its palms miss."""
    robot, axis = get_robot("g1"), get_task("cart-pushing").axes["handle_m"]
    operator = get_operator(get_task("cart-pushing"), robot, np.random.default_rng(0))
    model = robot.build().compile()
    data, palms = mujoco.MjData(model), palm_geoms(model)
    for height_m in (axis.at(0.0), axis.at(1.0), axis.at(0.0, unseen=True), axis.at(1.0, unseen=True)):
        operator.reset(np.random.default_rng(0))
        arms = robot.array("default")[15:29]
        for _ in range(80):
            data.qpos[:7], data.qpos[22:36] = [*START.pelvis_m, 1, 0, 0, 0], arms
            mujoco.mj_kinematics(model, data)
            torso = {"torso_m": data.body("torso_link").xpos.copy(), "palm_m": data.geom_xpos[palms].copy()}
            arms = operator.act(replace(START, handle_m=height_m, **torso)).arms.positions_rad
        np.testing.assert_allclose(data.geom_xpos[palms][:, 2], height_m, atol=0.02)


def in_view(plant, points_m):
    """Which points (N, 3) the head camera has in its picture now; what may stand before them does not count."""
    mujoco.mj_camlight(plant.model, plant.data)
    camera = plant.data.cam("head")
    right, up, back = ((points_m - camera.xpos) @ camera.xmat.reshape(3, 3)).T
    edge = -back * np.tan(np.radians(plant.model.cam("head").fovy[0] / 2))
    return (back < 0) & (np.abs(right) < edge) & (np.abs(up) < edge)


def demonstrate(task, seed, sloppiness=0.0, robot="g1"):
    """One episode of the operator on the shipped legs.

    Returns:
        verdict, actions as applied, deepest penetration in m, and (n, 4): subgoals reached by the end of each step,
        whether object or handle, left palm and right palm are in view.
    """
    env = TaskEnv(task, robot, image_size=0, controller=shipped(robot))
    operator = get_operator(env.task, env.robot, np.random.default_rng(0), sloppiness)
    env.reset(seed)
    operator.reset(np.random.default_rng(seed))
    actions, deepest, views = [], 0.0, []
    while not env.info()["done"]:
        actions.append(operator.act(env.privileged()).to_vector())
        for _ in range(2 + len(actions) % 2):
            env.tick(actions[-1])
            deepest = max([deepest, *(-c.dist for c in env.plant.data.contact)])
        state = env.privileged()
        thing = [*state.cart_m, state.handle_m] if task == "cart-pushing" else state.object_m
        views.append([sum(env.info()["subgoals"].values()), *in_view(env.plant, np.vstack([thing, state.palm_m]))])
    return env.info(), np.array(actions), deepest, np.array(views)


@pytest.mark.parametrize(
    # share of the time in which a hand is seen while it handles; how deep the robot squats, m
    ("robot", "seen", "squat_m"),
    [("g1", 1.0, 0.1), pytest.param("x2", 0.98, 0.05, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("task", TASKS)
def test_operator_succeeds_on_its_shipped_legs_as_a_human_could(task, robot, seen, squat_m):
    # 95 of 100 succeed on the G1, 90 on the X2, not each
    runs = (demonstrate(task, seed, robot=robot) for seed in seeds_for("validation", 2))
    info, actions, deepest, views = next(run for run in runs if run[0]["success"])
    assert all(info["subgoals"].values())
    assert deepest < 0.005
    approached, grasped = views[:, 0] >= 1, views[:, 0] >= 2
    handled = grasped & (views[:, 0] < len(info["subgoals"]) - 1)
    assert views[approached, 1].all(), "object or handle is seen from the approach on"
    assert handled.any() and views[handled, 2:].mean() >= seen, "hands are seen from the grasp until it is put down"
    for flag in range(16, 19):
        assert_dwells(actions[:, flag].tolist())
    assert np.abs(np.diff(actions[:, :14], axis=0)).max() <= 1.5 * PERIOD_S + 1e-6
    assert task == "cart-pushing" or np.ptp(actions[:, 19]) > squat_m, "it squats"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_operator_hardly_ever_fails_and_nothing_sinks_into_anything(task):
    runs = [demonstrate(task, seed) for seed in seeds_for("validation", 10, offset=1)]
    assert sum(info["success"] for info, *_ in runs) >= 8
    assert max(deepest for _, _, deepest, _ in runs) < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["zero", "walk-only", "reach-only"])
@pytest.mark.parametrize("task", TASKS)
def test_half_a_body_does_not_do(task, policy):
    from wbvla.evaluation.policies import load_policy
    from wbvla.evaluation.rollout import rollout

    half = load_policy(policy, task, "g1")
    assert not any(rollout(task, "g1", half, s, 0.02, controller=shipped()).success for s in seeds_for("validation", 2))
