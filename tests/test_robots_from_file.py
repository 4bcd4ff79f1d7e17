"""Laws of reading a robot's file: what was written is read back, in our order, whatever the file calls things."""

from dataclasses import astuple

import numpy as np
import pytest

from wbvla.robots import get_robot

pytest.importorskip("mujoco")

from wbvla.robots.from_file import bodies_from_file

URDF = """<robot name="two">
  <link name="base"><inertial><origin xyz="0 0 0.1"/><mass value="2"/>
    <inertia ixx="0.1" iyy="0.2" izz="0.25" ixy="0.01" ixz="0" iyz="0"/></inertial></link>
  <link name="shin"><inertial><mass value="1"/>
    <inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/></inertial>
    <visual><geometry><mesh filename="nowhere.stl"/></geometry></visual></link>
  <joint name="bend" type="revolute"><parent link="base"/><child link="shin"/><origin xyz="0 0.1 0" rpy="0.3 0 0"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="1.5" effort="1" velocity="1"/></joint>
</robot>"""


@pytest.mark.parametrize("name", ["g1", "x2"])
def test_our_own_robots_survive_the_round_trip_through_a_file(name, tmp_path):
    robot = get_robot(name)
    path = tmp_path / "robot.xml"
    path.write_text(robot.build().to_xml())
    rows = bodies_from_file(path, {joint: joint for joint in robot.joints}, {"torso_link": "torso_link"})
    moved = lambda bodies: [body.name for body in bodies if any(body.axis)]  # noqa: E731
    assert moved(rows) == moved(robot.bodies)  # welded links may come in another order
    read = {row.name: row for row in rows}
    for expected in robot.bodies:
        row = read.pop(expected.name)
        assert row.parent == expected.parent
        for got, wanted in zip(astuple(row)[2:], astuple(expected)[2:]):
            sign = np.sign(np.dot(got, wanted)) if np.size(wanted) == 4 else 1.0  # q and -q are one rotation
            np.testing.assert_allclose(sign * np.array(got), wanted, atol=2e-5, err_msg=row.name)
    assert not read


def test_a_urdf_needs_no_meshes_and_its_joints_get_our_names(tmp_path):
    (tmp_path / "two.urdf").write_text(URDF)
    pelvis, knee = bodies_from_file(tmp_path / "two.urdf", {"left_knee": "bend"})
    assert (pelvis.name, knee.name, knee.parent) == ("pelvis", "left_knee_link", "pelvis")
    assert (pelvis.mass, knee.mass, knee.range_rad) == (2.0, 1.0, (-1.0, 1.5))
    np.testing.assert_allclose(knee.quat_wxyz, [np.cos(0.15), np.sin(0.15), 0, 0], atol=1e-9)
    np.testing.assert_allclose(
        sorted(pelvis.inertia), np.linalg.eigvalsh([[0.1, 0.01, 0], [0.01, 0.2, 0], [0, 0, 0.25]])
    )
    welded = bodies_from_file(tmp_path / "two.urdf", {}, {"left_foot_link": "shin"})[1]
    assert (welded.name, welded.axis) == ("left_foot_link", (0.0, 0.0, 0.0))


def test_what_a_file_lacks_is_named(tmp_path):
    path = tmp_path / "two.urdf"
    path.write_text(URDF)
    with pytest.raises(ValueError, match="nothing named 'knee'; it has .*bend"):
        bodies_from_file(path, {"left_knee": "knee"})
    path.write_text(URDF.replace('<mass value="1"/>', '<mass value="0"/>'))
    with pytest.raises(ValueError, match="an inertia a link"):
        bodies_from_file(path, {"left_knee": "bend"})
    path.write_text("no robot")
    with pytest.raises(ValueError, match="cannot be used"):
        bodies_from_file(path, {})
