"""The primitive G1 is the published G1: held against mjlab's model; symmetric; free of external help."""

import numpy as np
import pytest

from wbvla.robots import get_robot

mujoco = pytest.importorskip("mujoco")


@pytest.fixture(scope="module")
def mjlab_model():
    constants = pytest.importorskip("mjlab.asset_zoo.robots.unitree_g1.g1_constants")
    return mujoco.MjSpec.from_file(str(constants.G1_XML)).compile()


def _pose(robot, model, names, q):
    data = mujoco.MjData(model)
    for name, value in zip(names, q):
        data.qpos[model.joint(name).qposadr[0]] = value
    mujoco.mj_forward(model, data)
    return data


def test_g1_equals_mjlabs_in_mass_inertia_limits_and_kinematics(mjlab_model):
    robot = get_robot("g1")
    model = robot.build().compile()
    theirs = [f"{j}_joint" for j in robot.joints]
    for j, name in zip(robot.joints, theirs):
        np.testing.assert_allclose(model.joint(j).range, mjlab_model.joint(name).range, atol=1e-6)
    for body in robot.bodies:
        ours, other = model.body(body.name), mjlab_model.body(body.name)
        np.testing.assert_allclose(ours.mass, other.mass, rtol=1e-6)
        np.testing.assert_allclose(ours.inertia, other.inertia, rtol=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(robot.range_rad[:, 0], robot.range_rad[:, 1])
        a, b = _pose(robot, model, robot.joints, q), _pose(robot, mjlab_model, theirs, q)
        a.qpos[:7] = b.qpos[:7]
        mujoco.mj_forward(model, a)
        for body in robot.bodies:
            np.testing.assert_allclose(a.body(body.name).xpos, b.body(body.name).xpos, atol=2e-4)
            np.testing.assert_allclose(a.body(body.name).xipos, b.body(body.name).xipos, atol=2e-4)


def test_mirror_twice_is_identity_and_mirrors_feet_and_palms():
    robot = get_robot("g1")
    index, sign = robot.mirror()
    q = np.random.default_rng(1).uniform(-0.4, 0.4, len(robot.joints))
    mirrored = q[index] * sign
    np.testing.assert_array_equal(mirrored[index] * sign, q)
    model = robot.build().compile()
    a, b = _pose(robot, model, robot.joints, q), _pose(robot, model, robot.joints, mirrored)
    left_palm, right_palm = (i for i in range(model.ngeom) if "_palm" in model.geom(i).name)
    for left, right in (
        (a.site("left_foot").xpos, b.site("right_foot").xpos),
        (a.geom_xpos[left_palm], b.geom_xpos[right_palm]),
    ):
        np.testing.assert_allclose(left * [1, -1, 1], right, atol=1e-9)


def test_plant_has_no_external_help_and_motors_obey_their_limits():
    robot = get_robot("g1")
    model = robot.build(collisions="full").compile()
    assert model.neq == 0 and model.nmocap == 0 and not model.body_gravcomp.any()
    assert model.nu == len(robot.joints)
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], robot.array("effort"))
    assert [model.actuator(i).name for i in range(model.nu)] == list(robot.joints)
    assert [model.joint(i).name for i in range(1, model.njnt)] == list(robot.joints)


def test_wrong_names_teach():
    with pytest.raises(ValueError, match="expected one of g1"):
        get_robot("x9")
    with pytest.raises(ValueError, match="feet="):
        get_robot("g1").build(feet="skis")
