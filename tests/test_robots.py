"""The primitive robots are the published ones, held against mjlab's G1 and the X2's numbers; symmetric; unassisted."""

import numpy as np
import pytest

from wbvla.robots import get_robot

mujoco = pytest.importorskip("mujoco")


ROBOTS = ("g1", "x2")

# AgiBot's X2 Ultra v1.3.0: left range (rad), torque (N m), speed (rad/s); and link masses (kg).
X2_JOINTS = {
    "hip_pitch": (-2.704, 2.556, 120, 11.936), "hip_roll": (-0.235, 2.906, 120, 11.936),
    "hip_yaw": (-1.8588, 3.6041, 120, 11.936), "knee": (0, 2.4073, 120, 11.936),
    "ankle_pitch": (-0.803, 0.453, 36, 13.088), "ankle_roll": (-0.2967, 0.2967, 24, 15.077),
    "waist_yaw": (-3.43, 2.2078, 120, 11.936), "shoulder_pitch": (-3.08, 2.04, 36, 13.088),
    "shoulder_roll": (-0.061, 3.0456, 36, 13.088), "shoulder_yaw": (-2.556, 2.556, 24, 15.077),
    "elbow": (-2.3556, 0, 24, 15.077), "wrist_yaw": (-2.556, 2.556, 24, 15.077),
    "wrist_pitch": (-0.5236, 0.5236, 4.8, 4.188), "wrist_roll": (-1.5097, 0.724, 4.8, 4.188),
}  # fmt: skip
X2_KG = {
    "pelvis": 3.523,
    "waist_yaw_link": 1.669,
    "torso_link": 10.144,
    "left_knee_link": 1.568,
    "right_elbow_link": 0.688,
}


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


def test_x2_has_the_published_masses_limits_and_lengths():
    robot = get_robot("x2")
    model = robot.build().compile()
    assert len(robot.joints) == 27 and robot.n_lmo == 13 and len(robot.arm_joints) == 14
    assert model.body_subtreemass[1] == pytest.approx(41.97, abs=0.1)
    for name, mass in X2_KG.items():
        assert model.body(name).mass[0] == pytest.approx(mass, abs=1e-3)
    for joint in robot.joints:
        low, high, torque, speed = X2_JOINTS[joint.removeprefix("left_").removeprefix("right_")]
        if joint.startswith("right") and ("roll" in joint or "yaw" in joint):
            low, high = -high, -low
        np.testing.assert_allclose(model.joint(joint).range, (low, high), atol=1e-9)
        assert (robot.motors[joint].effort, robot.motors[joint].velocity) == (torque, speed)
    straight = _pose(robot, model, (), ())
    assert _lowest(model, straight) == pytest.approx(-0.675, abs=1e-3)
    assert model.body("head_pitch_link").id and not any("head" in j or "waist_pitch" in j for j in robot.joints)


@pytest.mark.parametrize("name", ROBOTS)
def test_default_pose_stands_on_flat_soles_at_the_nominal_height(name):
    """Motors alone hold the pose upright for a moment; then only a policy can balance it."""
    robot = get_robot(name)
    spec = robot.build()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], contype=1, conaffinity=2)
    model = spec.compile()
    data = _pose(robot, model, robot.joints, robot.array("default"))
    height = -_lowest(model, data)
    assert robot.nominal_height_m == pytest.approx(height, abs=1e-3 if name == "x2" else 0.02)
    assert robot.height_range_m[0] < robot.nominal_height_m < robot.height_range_m[1]
    assert height - 0.01 < robot.height_range_m[1] < height + 0.015  # where episodes begin
    corners = data.geom_xpos[_feet(model)]
    assert np.ptp(corners[:, 2]) < 2e-3
    assert (corners.min(0) < data.subtree_com[1])[:2].all() and (data.subtree_com[1] < corners.max(0))[:2].all()
    data.qpos[2], data.ctrl[:] = height, robot.array("default")
    for _ in range(80):  # 0.4 s
        mujoco.mj_step(model, data)
    assert data.body("pelvis").xmat[8] > 0.998 and 0 < height - data.qpos[2] < 0.03  # PD gains give in
    pressed = {model.geom(g).name for c in data.contact for g in c.geom} - {"floor"}
    assert pressed == {model.geom(g).name for g in _feet(model)}


@pytest.mark.parametrize("name", ROBOTS)
def test_joints_are_in_the_order_that_the_legs_count_on(name):
    robot = get_robot(name)
    leg = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
    assert robot.joints[:12] == tuple(f"{side}_{joint}" for side in ("left", "right") for joint in leg)
    assert robot.joints[12] == "waist_yaw" and all(j.startswith("waist") for j in robot.joints[12 : robot.n_lmo])
    assert robot.arm_joints[0] == "left_shoulder_pitch" and robot.arm_joints[7] == "right_shoulder_pitch"


@pytest.mark.parametrize("name", ROBOTS)
def test_lengths_of_the_legs_are_the_models(name):
    robot = get_robot(name)
    model = robot.build().compile()
    data = _pose(robot, model, robot.joints, robot.array("default"))
    hip, knee, ankle = (data.body(f"left_{link}_link").xpos for link in ("hip_pitch", "knee", "ankle_pitch"))
    legs = np.linalg.norm((knee - hip)[[0, 2]]) + np.linalg.norm(ankle - knee)
    assert robot.leg_m == pytest.approx(legs, abs=0.01)
    least, most = robot.foot_gap_m
    gap = data.site("left_foot").xpos[1] - data.site("right_foot").xpos[1]
    assert least + 0.04 < gap < most - 0.08


def _feet(model):
    return [g for g in range(model.ngeom) if "_foot" in model.geom(g).name]


def _lowest(model, data):
    """Height of the lowest point of the feet relative to the pelvis, m."""
    return (data.geom_xpos[_feet(model), 2] - model.geom_size[_feet(model), 0]).min() - data.qpos[2]


@pytest.mark.parametrize("name", ROBOTS)
def test_mirror_twice_is_identity_and_mirrors_feet_and_palms(name):
    robot = get_robot(name)
    index, sign = robot.mirror()
    low, high = robot.range_rad.T
    sided = ["waist" not in joint for joint in robot.joints]
    np.testing.assert_array_equal(np.sort(robot.range_rad[index] * sign[:, None])[sided], robot.range_rad[sided])
    q = np.random.default_rng(1).uniform(np.maximum(low, -0.4), np.minimum(high, 0.4))
    mirrored = q[index] * sign
    np.testing.assert_array_equal(mirrored[index] * sign, q)
    model = robot.build().compile()
    a, b = _pose(robot, model, robot.joints, q), _pose(robot, model, robot.joints, mirrored)
    np.testing.assert_allclose(
        a.subtree_com[1] * [1, -1, 1], b.subtree_com[1], atol=2e-3
    )  # the trunk is not quite even
    left_palm, right_palm = (i for i in range(model.ngeom) if "_palm" in model.geom(i).name)
    for left, right in (
        (a.site("left_foot").xpos, b.site("right_foot").xpos),
        (a.geom_xpos[left_palm], b.geom_xpos[right_palm]),
    ):
        np.testing.assert_allclose(left * [1, -1, 1], right, atol=1e-9)


@pytest.mark.parametrize("name", ROBOTS)
def test_plant_has_no_external_help_and_motors_obey_their_limits(name):
    robot = get_robot(name)
    model = robot.build(collisions="full").compile()
    assert model.neq == 0 and model.nmocap == 0 and not model.body_gravcomp.any()
    assert model.nu == len(robot.joints)
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], robot.array("effort"))
    assert [model.actuator(i).name for i in range(model.nu)] == list(robot.joints)
    assert [model.joint(i).name for i in range(1, model.njnt)] == list(robot.joints)


@pytest.mark.parametrize("name", ROBOTS)
def test_no_limb_passes_through_another_or_the_trunk(name):
    robot = get_robot(name)
    model, rng, touching = robot.build(collisions="full").compile(), np.random.default_rng(0), set()
    parts = {"hip": "leg", "knee": "leg", "ankle": "leg", "wrist": "hand", "torso": "trunk", "pelvis": "trunk"}
    for _ in range(200):
        data = _pose(robot, model, robot.joints, rng.uniform(*robot.range_rad.T))
        for contact in data.contact:
            links = sorted(model.body(int(model.geom_bodyid[geom])).name for geom in contact.geom)
            touching.add(tuple(next((part for word, part in parts.items() if word in link), "") for link in links))
    assert {frozenset(pair) for pair in touching} >= {
        frozenset({"leg"}), frozenset({"hand", "leg"}), frozenset({"hand", "trunk"}), frozenset({"leg", "trunk"})
    }  # fmt: skip


def test_wrong_names_teach():
    with pytest.raises(ValueError, match="expected one of g1, x2, g1-gripper, x2-gripper"):
        get_robot("x9")
    with pytest.raises(ValueError, match="feet="):
        get_robot("g1").build(feet="skis")
