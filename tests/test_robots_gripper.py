"""Laws of the gripper: it goes where it is told, holds by friction alone, and is masked where there is none."""

import numpy as np
import pytest

from sim_world import StandStill
from wbvla.robots import get_robot
from wbvla.robots.gripper import FORCE_N, LEVER_M
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction, state_names

pytest.importorskip("mujoco")

import mujoco

from wbvla.sim.tasks.base import palm_geoms

ROBOTS = ("g1", "x2")
CUBE_M, CUBE_KG = 0.05, 0.3
CORNERS = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)


def with_command(robot, grippers):
    """Return joint targets (J,): the default pose with the arms away from the hips, and grippers (2,)."""
    targets = robot.array("default")
    for joint, roll in (("left_shoulder_roll", 0.6), ("right_shoulder_roll", -0.6)):
        targets[robot.joints.index(joint)] = roll
    arms = robot.arm_target(targets[robot.n_lmo :])
    targets[robot.n_lmo :] = robot.upper_rad(ArmTarget(arms.positions_rad, grippers))
    return targets


@pytest.mark.parametrize("name", ROBOTS)
def test_only_two_joints_and_their_weight_are_added(name):
    plain, robot = get_robot(name), get_robot(f"{name}-gripper")
    assert robot.joints == (*plain.joints, "left_gripper", "right_gripper")
    assert (plain.gripper_joints, robot.gripper_joints) == ((), ("left_gripper", "right_gripper"))
    assert (plain.masked_actions, robot.masked_actions) == ((14, 15), ())
    assert len(state_names(robot.joints)) == len(state_names(plain.joints)) + 4
    before, after = (r.build(collisions="full").compile() for r in (plain, robot))
    assert after.nu == before.nu + 2 and after.neq == after.ntendon == after.nmocap == 0
    assert after.body_subtreemass[1] - before.body_subtreemass[1] == pytest.approx(2 * 0.278, abs=1e-6)
    assert (after.geom_friction[after.geom_contype > 0] <= [1.0, 0.05, 0.01]).all()
    index, sign = robot.mirror()
    np.testing.assert_array_equal(robot.array("default")[index] * sign, robot.array("default"))


@pytest.mark.parametrize("name", ROBOTS)
def test_commands_survive_the_way_through_the_joints(name):
    robot, rng = get_robot(f"{name}-gripper"), np.random.default_rng(0)
    low, high = robot.range_rad[robot.n_lmo : robot.n_lmo + 14].T
    for grippers in ((0, 0), (1, 1), rng.random(2)):
        arms = ArmTarget(rng.uniform(low, high), grippers)
        back = robot.arm_target(robot.upper_rad(arms))
        np.testing.assert_allclose(back.grippers, arms.grippers, atol=1e-6)
        np.testing.assert_array_equal(back.positions_rad, arms.positions_rad)
    opened = robot.upper_rad(ArmTarget(np.zeros(14), np.zeros(2)))[14:]
    np.testing.assert_array_equal(opened, robot.array("default")[-2:])


@pytest.mark.parametrize("name", ROBOTS)
def test_an_open_gripper_leaves_the_palms_face_free(name):
    robot = get_robot(f"{name}-gripper")
    model = robot.build(collisions="full").compile()
    data = mujoco.MjData(model)
    for joint, value in zip(robot.joints, robot.array("default")):
        data.qpos[model.joint(joint).qposadr[0]] = value
    mujoco.mj_kinematics(model, data)
    names = [model.geom(i).name for i in range(model.ngeom)]
    for side, inward, palm in zip(("left", "right"), (-1, 1), palm_geoms(model)):
        for finger in (i for i, n in enumerate(names) if n.startswith(side) and "_finger" in n):
            corners = (
                data.geom_xpos[finger] + (CORNERS * model.geom_size[finger]) @ data.geom_xmat[finger].reshape(3, 3).T
            )
            inside = inward * ((corners - data.geom_xpos[palm]) @ data.geom_xmat[palm].reshape(3, 3))[:, 1]
            assert inside.max() < model.geom_size[palm, 1] + 1e-3


@pytest.mark.parametrize("name", ROBOTS)
def test_it_opens_and_closes_to_the_command_and_is_felt(name):
    from wbvla.sim.body import WholeBodySim
    from wbvla.sim.plant import Plant
    from wbvla.sim.tasks import get_task

    robot = get_robot(f"{name}-gripper")
    plant = Plant(robot, get_task("cart-pushing"))
    plant.reset(-1.2, 0.0, 0.0)
    body = WholeBodySim(plant, StandStill(robot.name))
    rest = robot.arm_target(with_command(robot, np.zeros(2))[robot.n_lmo :]).positions_rad
    for grippers in ((1.0, 0.0), (0.5, 1.0)):
        for _ in range(50):
            body.tick(ArmTarget(rest, grippers), LocoCommand())
        np.testing.assert_allclose(body.applied[14:16], grippers, atol=1e-5)
        q = plant.proprioception().q_rad
        np.testing.assert_allclose(q[-2:], with_command(robot, grippers)[-2:], atol=0.06)
        np.testing.assert_allclose(robot.arm_target(q[robot.n_lmo :]).grippers, grippers, atol=0.03)


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("side", [0, 1])
def test_it_holds_a_cube_by_friction(name, side):
    """The pelvis is fixed to the world; the cube weighs nothing until the finger has closed."""
    robot = get_robot(f"{name}-gripper")
    spec = robot.build(collisions="full", timestep_s=0.0025)
    spec.delete(spec.joint("root"))
    cube = spec.worldbody.add_body(name="cube", pos=[2, 0, 0])
    cube.add_freejoint(name="cube")
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_M / 2] * 3, mass=CUBE_KG, contype=3, conaffinity=3)
    model = spec.compile()
    data = mujoco.MjData(model)
    ctrl = [model.actuator(joint).id for joint in robot.joints]
    opened, closed = (with_command(robot, np.eye(2)[side] * share) for share in (0, 1))
    for joint, value in zip(robot.joints, opened):
        data.qpos[model.joint(joint).qposadr[0]] = value
    palm, free = palm_geoms(model)[side], data.joint("cube")
    weight = data.xfrc_applied[model.body("cube").id]
    weight[2] = -CUBE_KG * model.opt.gravity[2]
    to_cube = np.array([0.0, (-1, 1)[side] * (model.geom_size[palm, 1] + CUBE_M / 2 + 1e-3), 0.0])

    def offset():
        """Where the cube is in the palm's frame."""
        return data.geom_xmat[palm].reshape(3, 3).T @ (data.body("cube").xpos - data.geom_xpos[palm])

    def run(steps, targets):
        begin = data.ctrl[ctrl].copy()
        for step in range(steps):
            data.ctrl[ctrl] = begin + min(1.0, 2 * step / steps) * (targets - begin)
            mujoco.mj_step(model, data)

    data.ctrl[ctrl] = opened
    run(400, opened)  # the arms sag to where they stay
    turn = data.geom_xmat[palm].reshape(3, 3)
    free.qpos[:3], free.qvel[:] = data.geom_xpos[palm] + turn @ to_cube, 0.0
    mujoco.mju_mat2Quat(free.qpos[3:], data.geom_xmat[palm])
    run(800, closed)
    weight[2] = 0.0
    run(800, closed)
    before = offset()
    run(1200, closed)  # 3 s
    assert np.linalg.norm(offset() - before) < 0.003 and np.linalg.norm(before - to_cube) < 0.01
    torque = data.actuator_force[ctrl[-2 + side]]
    assert 0.5 * FORCE_N < abs(torque) / LEVER_M <= FORCE_N + 1e-9
    run(400, opened)
    assert np.linalg.norm(offset()) > 0.2, "an open gripper lets go"


def test_legs_of_the_robot_carry_its_grippers():
    """Standing, then a short walk, with the legs that are shipped for the robot without grippers."""
    from wbvla.lmo.controller import shipped_controller
    from wbvla.sim.env import TaskEnv

    env = TaskEnv("cart-pushing", "g1-gripper", image_size=0, controller=shipped_controller("g1-gripper"))
    observation = env.reset(3, distance_m=1.5, lateral_m=0.0, yaw_rad=0.0)
    assert observation.state.shape == (72,)
    robot = env.robot
    arms = robot.arm_target(with_command(robot, np.ones(2))[robot.n_lmo :])
    start, *_ = env.plant.pelvis_pose()
    for ticks, s_x in ((100, 0), (100, 1)):
        for _ in range(ticks):
            env.tick(WholeBodyAction(arms, LocoCommand(s_x=s_x)))
        pelvis, _, tilt = env.plant.pelvis_pose()
        assert tilt < 0.25 and abs(pelvis[2] - 0.74) < 0.06
        moved = np.linalg.norm((pelvis - start)[:2])
        assert moved < 0.1 if s_x == 0 else 0.4 < moved < 1.2
    np.testing.assert_allclose(env.applied[14:16], 1.0)


def test_where_there_is_none_the_action_stays_masked():
    from wbvla.sim.env import TaskEnv

    env = TaskEnv("cart-pushing", "g1", image_size=0, controller=StandStill())
    env.reset(0)
    action = env.applied
    action[14:16] = 1.0
    env.step(action)
    assert (env.applied[14:16] == 0.0).all()


def test_recordings_and_models_know_which_robot_has_one(tmp_path):
    from wbvla.data.recorder import provenance_of
    from wbvla.vla.train import Finetune, _recipe

    for name, masked in (("g1", (14, 15)), ("g1-gripper", ())):
        robot = get_robot(name)
        assert provenance_of(robot, 20, 96, "", {})["domain"]["masked_actions"] == list(masked)
        config = _recipe(Finetune(dataset="", out="", robot=name))
        assert (config.masked_actions, config.state_dim) == (masked, len(state_names(robot.joints)))


def test_wrong_robots_teach():
    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe

    with pytest.raises(ValueError, match="expected one of g1, x2, g1-gripper, x2-gripper"):
        get_robot("h9-gripper")
    with pytest.raises(ValueError, match="use --robot g1"):
        CpuEngine(get_robot("g1-gripper"), get_recipe("lmo_g1"), 2, 0, 1)
