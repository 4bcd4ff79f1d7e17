"""A gripper of one degree of freedom for any robot's hands: a finger that closes against the palm.

In: a `Robot`. Out: the same one with two more joints, `left_gripper` and `right_gripper`.
Masses, force and speed lean on Unitree's Dex1-1 gripper (g1_29dof_mode_15_with_dex1_1.urdf, unitree_ros commit d6f13aa,
BSD-3): a base of 0.191 kg, a finger of 0.087 kg that presses with up to 20 N and moves at 0.2 m/s, and an opening of
9 cm. Dex1-1 has two sliding fingers; here the palm is the second. The finger's shape is this project's: its pad is
parallel to the palm around an object of 5 cm, and open it lies behind the palm's face, out of the way of two-handed work.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wbvla.robots.base import Body, Motor, Robot, Shape

BASE_KG, FINGER_KG = 0.191, 0.087
FORCE_N, SPEED_M_S = 20.0, 0.2

# In the hand's frame, from the middle of the palm's face or from the hinge, m. The hinge lies along the hand's lower edge.
SETBACK_M, BELOW_M = 0.03, 0.012  # hinge behind the palm's face and below its edge
GAP_M, PAD_M, WIDTH_M, THICK_M = 0.05, 0.07, 0.04, 0.012  # palm to parallel pad; the pad's length; both links' section
OPEN_RAD, CLOSED_RAD = 2.0, -0.57  # of the left hinge: 0 is the parallel pad; closed, its tip touches the palm
LEVER_M = 0.05  # hinge to the middle of what is held

_MOTOR = Motor(kp=4.0, kd=0.2, effort=FORCE_N * LEVER_M, velocity=SPEED_M_S / LEVER_M, armature=0.002)


def with_gripper(robot: Robot) -> Robot:
    """Return the robot with a gripper on each hand; its name ends with "-gripper", its legs' policy stays the same."""
    palm, quat, turn = robot.palms[0], robot.hand_quat_wxyz, robot.hands[0]
    _, thick, high = robot.palm_half_m
    hinge = tuple(np.array(palm.pos) + turn @ [0.0, SETBACK_M - thick, -high - BELOW_M])
    reach = SETBACK_M + GAP_M + THICK_M  # hinge to the pad's back
    parallel = (1.0, 0.0, 0.0, 0.0)
    base = Body(
        "left_gripper_base_link", palm.body, hinge, quat, BASE_KG,
        (0, 0, 0), parallel, _box_inertia(BASE_KG, (0.05, 0.04, 0.03)), (0, 0, 0), (0, 0),
    )  # fmt: skip
    finger = Body(
        "left_gripper_link", base.name, (0, 0, 0), parallel, FINGER_KG,
        (0, -reach / 2, PAD_M / 4), parallel, _box_inertia(FINGER_KG, (WIDTH_M, reach, PAD_M / 2)),
        (1, 0, 0), (CLOSED_RAD, OPEN_RAD),
    )  # fmt: skip
    half = THICK_M / 2
    shapes = (
        Shape(finger.name, "box", (WIDTH_M / 2, reach / 2, half), (0, -reach / 2, 0), role="finger"),
        Shape(finger.name, "box", (WIDTH_M / 2, half, PAD_M / 2), (0, half - reach, PAD_M / 2), role="finger"),
    )
    joints = ("left_gripper", "right_gripper")
    return replace(
        robot,
        name=f"{robot.name}-gripper",
        legs=robot.name,
        bodies=(*robot.bodies, base, finger, base.mirrored(), finger.mirrored()),
        shapes=(*robot.shapes, *shapes, *(shape.mirrored() for shape in shapes)),
        motors=robot.motors | dict.fromkeys(joints, _MOTOR),
        joints=(*robot.joints, *joints),
        default_rad=robot.default_rad | {"left_gripper": OPEN_RAD, "right_gripper": -OPEN_RAD},
    )


def _box_inertia(kg: float, sides_m) -> tuple[float, float, float]:
    x, y, z = np.square(sides_m)
    return kg / 12 * (y + z), kg / 12 * (x + z), kg / 12 * (x + y)
