"""A third humanoid from its maker's file: Unitree H1-2, 27 degrees of freedom, 7-joint arms (docs/add_robot.md).

In: h1_2.xml beside this file. Out: `H1_2`, a wbvla.robots.base.Robot.
Links, inertias, limits and torques are the file's; speeds are those of the maker's URDF, soles those of its foot mesh.
Gains, rotor inertias, palms, capsules and the camera's place are this example's. Its hips turn in the order yaw, pitch,
roll: simulation, arms' inverse kinematics and tasks take it as it is, the legs' policy does not.
"""

import math
from pathlib import Path

from wbvla.robots.base import Camera, Motor, Robot, Shape
from wbvla.robots.from_file import bodies_from_file

LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
SIDES = ("left", "right")

JOINTS = {f"{side}_{joint}": f"{side}_{joint}_joint" for side in SIDES for joint in LEG}  # ours: the file's
JOINTS |= {"waist_yaw": "torso_joint"}
JOINTS |= {f"{side}_{joint}": f"{side}_{joint}_joint" for side in SIDES for joint in ARM}

# kp, kd, effort, velocity, armature
HIP, KNEE = Motor(300.0, 8.0, 200, 23, 0.03), Motor(400.0, 10.0, 300, 14, 0.05)
SHOULDER, ELBOW, WRIST = (
    Motor(150.0, 5.0, 40, 9, 0.02),
    Motor(100.0, 4.0, 18, 20, 0.01),
    Motor(60.0, 2.0, 19, 31.4, 0.005),
)
MOTORS = {
    "hip_pitch": HIP, "hip_roll": HIP, "hip_yaw": HIP, "knee": KNEE,
    "ankle_pitch": Motor(400.0, 8.0, 60, 9, 0.02), "ankle_roll": Motor(200.0, 5.0, 40, 9, 0.02),
    "shoulder_pitch": SHOULDER, "shoulder_roll": SHOULDER, "shoulder_yaw": ELBOW, "elbow": ELBOW,
    "wrist_roll": WRIST, "wrist_pitch": WRIST, "wrist_yaw": WRIST,
}  # fmt: skip
DEFAULT = {"hip_pitch": -0.24, "knee": 0.6, "ankle_pitch": -0.36, "shoulder_pitch": 0.2, "elbow": 0.6}

ALONG_X = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)
LEFT_SHAPES = (
    Shape("left_hip_roll_link", "capsule", (0.07, 0.10), (0, 0, -0.2)),
    Shape("left_knee_link", "capsule", (0.05, 0.11), (0, 0, -0.19)),
    Shape("left_shoulder_yaw_link", "capsule", (0.04, 0.05), (0, 0, -0.09)),
    Shape("left_elbow_link", "capsule", (0.035, 0.05), (0.06, -0.03, -0.01), ALONG_X),
    Shape("left_wrist_roll_link", "capsule", (0.035, 0.02), (0.04, 0, 0), ALONG_X),
    Shape("left_wrist_yaw_link", "box", (0.06, 0.012, 0.045), (0.12, -0.01, 0), role="palm"),
)
CENTRE_SHAPES = (
    Shape("pelvis", "sphere", (0.08,), (0, 0, -0.05)),
    Shape("torso_link", "capsule", (0.11, 0.13), (0.01, 0, 0.27)),
    Shape("torso_link", "sphere", (0.08,), (0.02, 0, 0.66)),
)

H1_2 = Robot(
    name="h1_2",
    bodies=bodies_from_file(Path(__file__).with_name("h1_2.xml"), JOINTS, {"torso_link": "torso_link"}),
    motors={f"{side}_{joint}": motor for side in SIDES for joint, motor in MOTORS.items()} | {"waist_yaw": HIP},
    default_rad={f"{side}_{joint}": value for side in SIDES for joint, value in DEFAULT.items()},
    joints=tuple(JOINTS),
    n_lmo=13,
    shapes=LEFT_SHAPES + tuple(shape.mirrored() for shape in LEFT_SHAPES) + CENTRE_SHAPES,
    camera=Camera("torso_link", (0.11, 0.0, 0.68), math.radians(42.0), 69.0),
    imu_pos=(
        -0.04452,
        -0.01891,
        0.27756,
    ),  # on its torso, as in the file
    foot_site=(0.044, 0.0, -0.045),
    foot_corners=((0.173, 0.042, -0.045), (0.173, -0.042, -0.045), (-0.085, 0.042, -0.045), (-0.085, -0.042, -0.045)),
    leg_m=0.80,
    foot_gap_m=(0.24, 0.44),
    nominal_height_m=0.99,
    height_range_m=(0.60, 1.0),
)
