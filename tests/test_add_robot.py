"""The proof of docs/add_robot.md: a third humanoid from its maker's file stands, reaches and gets a task."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from wbvla.robots import get_robot
from wbvla.sim.env import TaskEnv

mujoco = pytest.importorskip("mujoco")

ROOT = Path(__file__).parents[1]
FILE = ROOT / "examples" / "h1_2" / "h1_2.py"


@pytest.fixture(scope="module")
def robot():
    spec = importlib.util.spec_from_file_location("h1_2", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.H1_2


def test_it_is_the_published_robot(robot):
    published = mujoco.MjModel.from_xml_path(str(FILE.with_name("h1_2.xml")))
    model = robot.build().compile()
    assert len(robot.joints) == 27 and len(robot.arm_joints) == 14
    assert model.body_subtreemass[1] == pytest.approx(published.body_subtreemass[1], abs=1e-6)
    for joint in robot.joints:
        theirs = "torso_joint" if joint == "waist_yaw" else f"{joint}_joint"
        np.testing.assert_array_equal(model.joint(joint).range, published.joint(theirs).range)
    ours, theirs = mujoco.MjData(model), mujoco.MjData(published)
    rng = np.random.default_rng(0)
    for joint in robot.joints:
        name = "torso_joint" if joint == "waist_yaw" else f"{joint}_joint"
        ours.joint(joint).qpos[0] = theirs.joint(name).qpos[0] = rng.uniform(*model.joint(joint).range)
    for m, d in ((model, ours), (published, theirs)):
        mujoco.mj_kinematics(m, d)
    for side in ("left", "right"):
        for link in ("wrist_yaw_link", "ankle_roll_link"):
            np.testing.assert_allclose(
                ours.body(f"{side}_{link}").xpos,
                theirs.body(f"{side}_{link}").xpos - theirs.body("pelvis").xpos + ours.body("pelvis").xpos,
                atol=1e-9,
            )


def test_a_package_of_its_own_brings_it(tmp_path, monkeypatch):
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[wbvla.robots]\nh1_2 = h1_2:H1_2\n")
    monkeypatch.syspath_prepend(FILE.parent)
    monkeypatch.syspath_prepend(tmp_path)
    assert get_robot("h1_2").name == "h1_2"
    with pytest.raises(ValueError, match="got 'h2', expected one of g1, x2, .*, h1_2"):
        get_robot("h2")
    with pytest.raises(ValueError, match=r"no legs for robot 'h1_2'.*add_robot.md"):
        TaskEnv(robot="h1_2")
    get_robot.cache_clear()
    (package / "entry_points.txt").write_text("[wbvla.robots]\nh1 = h1_2:H1_2\n")
    with pytest.raises(ValueError, match="from the entry point 'h1', expected a Robot of that name"):
        get_robot("h1")


def test_it_stands_on_its_soles_for_a_second_before_a_task(robot):
    from wbvla.sim.plant import TICK_S, Plant
    from wbvla.sim.tasks import get_task

    task = get_task("box-loading")
    plant = Plant(robot, task)
    task.start(plant, np.random.default_rng(0))
    height_m = plant.pelvis_pose()[0][2]
    assert height_m == pytest.approx(robot.nominal_height_m, abs=0.01) and height_m < robot.height_range_m[1]
    for _ in range(round(1.0 / TICK_S)):
        plant.apply(robot.array("default"))
        plant.tick()
    pelvis, _, tilt = plant.pelvis_pose()
    names = {plant.model.geom(int(g)).name for contact in plant.data.contact for g in contact.geom}
    assert tilt < 0.1 and height_m - pelvis[2] < 0.03
    assert {"floor", "left_foot0", "right_foot0"} <= names and not any(
        "palm" in name or "link" in name for name in names
    )
    state = task.state(plant)
    assert not any(task.rules().judge(state).subgoals.values())


def test_its_arms_reach_where_a_task_needs_them(robot):
    pytest.importorskip("mink")
    from wbvla.sim.ik import ArmSolver
    from wbvla.sim.tasks.base import palm_geoms

    solver = ArmSolver(robot)
    for places in ([[0.35, 0.2, 0.15], [0.35, -0.2, 0.15]], [[0.45, 0.15, 0.3], [0.4, -0.25, 0.2]]):
        arms = solver.solve(*np.array(places))
        low, high = robot.range_rad[robot.n_lmo :].T
        assert (arms >= low).all() and (arms <= high).all()
    assert len(palm_geoms(solver.model)) == 2


def test_its_legs_policy_is_refused_not_wrong(robot):
    from wbvla.lmo.odometry import LegKinematics

    with pytest.raises(ValueError, match="hip pitch, roll, yaw"):
        LegKinematics(robot)
