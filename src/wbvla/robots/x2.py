"""AgiBot X2 Ultra v1.3.0 as the papers drive it, 27 degrees of freedom: kinematics, inertia, motors, primitive shapes.

In: nothing. Out: `X2`, a wbvla.robots.base.Robot.
Numbers are the published ones (AgibotTech/agibot_x2_urdf, X2_URDF-v1.3.0/x2_ultra.xml, commit 575cc6b, Mulan PSL v2).
Left links are listed, right ones are their mirror: the published right side differs by up to 1.4 mm and 13 g. The robot
has 31 joints; waist pitch and roll and both of the head are welded here, as on the papers' prototype. Motor speeds are
those of community ports (SONIC's X2 port: legs, waist; agibot_x2_moveit: arms); no vendor states PD gains, see below.
"""

from __future__ import annotations

import math

from wbvla.robots.base import Body, Camera, Motor, Robot, Shape, both_sides, pd_from_frequency

_WELDED = (0, 0, 0), (0, 0)  # no axis, no range

# fmt: off
LEFT_AND_CENTRE = (
    Body("pelvis", "", (0, 0, 0.68), (1, 0, 0, 0), 3.523487,
         (-0.001209, -2.3e-05, -0.002011), (1, 0, 0, 0), (0.0126, 0.007924, 0.012417),
         (0, 0, 0), (0, 0)),
    Body("left_hip_pitch_link", "pelvis", (0, 0.07135, 0), (1, 0, 0, 0), 1.39968,
         (0.00791, 0.064136, 0.000116), (0.70601, 0.705897, 0.0403038, 0.0404307), (0.00807979, 0.007409, 0.00155421),
         (0, 1, 0), (-2.704, 2.556)),
    Body("left_hip_roll_link", "left_hip_pitch_link", (-0.000575, 0.0657, 0), (1, 0, 0, 0), 1.5848,
         (4.7e-05, 0.000231, -0.093505), (0.703892, 0.00104942, 0.00203424, 0.710303), (0.0181021, 0.0176713, 0.00251468),
         (1, 0, 0), (-0.235, 2.906)),
    Body("left_hip_yaw_link", "left_hip_roll_link", (0.000575, 0, -0.13685), (1, 0, 0, 0), 2.01055,
         (-0.002375, 0.003914, -0.144276), (0.647266, -0.0202222, 0.00175224, 0.761994), (0.0526993, 0.0519961, 0.0023845),
         (0, 0, 1), (-1.8588, 3.6041)),
    Body("left_knee_link", "left_hip_yaw_link", (-0.00766, 0.000225, -0.1831), (1, 0, 0, 0), 1.56821,
         (-0.002655, 0.003681, -0.122697), (0.437302, -0.00633388, 0.00636434, 0.89927), (0.031041, 0.0309424, 0.00193262),
         (0, 1, 0), (0, 2.4073)),
    Body("left_ankle_pitch_link", "left_knee_link", (-0.01, -0.000124911, -0.282), (1, 0, 0, 0), 0.747802,
         (0.011691, -0.000181, 0.003548), (0.72346, -0.0457688, 0.0674454, 0.685537), (0.00117429, 0.000984841, 0.000709871),
         (0, 1, 0), (-0.803, 0.453)),
    Body("left_ankle_roll_link", "left_ankle_pitch_link", (-0.00175, 0, 0), (1, 0, 0, 0), 1.01617,
         (0.035428, 2.5e-05, -0.049572), (0.614657, 0.350346, 0.350824, 0.613496), (0.007937, 0.0068711, 0.0025949),
         (1, 0, 0), (-0.2967, 0.2967)),
    Body("waist_yaw_link", "pelvis", (0, 0, 0.06706), (1, 0, 0, 0), 1.66854,
         (-0.001359, 4.7e-05, 0.041703), (0.99876, 0.000921559, 0.0477625, 0.0140034), (0.00503206, 0.00499998, 0.00283196),
         (0, 0, 1), (-3.43, 2.2078)),
    Body("waist_pitch_link", "waist_yaw_link", (0, 0, 0.0880106), (1, 0, 0, 0), 0.392413,
         (0.008967, -1e-06, 0), (0.5, 0.5, -0.5, 0.5), (0.00023, 0.000133, 0.000133),
         *_WELDED),
    Body("torso_link", "waist_pitch_link", (0, 0, 0), (1, 0, 0, 0), 10.1441,
         (-0.000188, 0.000605, 0.191827), (0.999959, 0.00110321, 0.0081892, 0.00362262), (0.479863, 0.455999, 0.0666413),
         *_WELDED),
    Body("head_yaw_link", "torso_link", (0.00834773, 0, 0.309397), (1, 0, 0, 0), 0.720047,
         (-0.003139, 0.001399, 0.051838), (0.999924, -0.00911422, 0.00384341, 0.00741605), (0.0038613, 0.00323157, 0.00110213),
         *_WELDED),
    Body("head_pitch_link", "head_yaw_link", (0, 0, 0.0889), (1, 0, 0, 0), 0.999287,
         (0.003033, -6e-05, 0.004395), (0.695573, -0.162421, -0.145198, 0.684628), (0.0035988, 0.00298179, 0.00259841),
         *_WELDED),
    Body("left_shoulder_pitch_link", "torso_link", (0.00329907, 0.143032, 0.241648), (0.994522, 0.104528, 0, 0), 0.885896,
         (0.003007, 0.050014, 6.2e-05), (0.707145, 0.706403, 0.027325, 0.0139105), (0.00303104, 0.00292896, 0.000676999),
         (0, 1, 0), (-3.08, 2.04)),
    Body("left_shoulder_roll_link", "left_shoulder_pitch_link", (-0.000499991, 0.0495, 0), (1, 0, 0, 0), 0.706556,
         (0.000621, -0.000183, -0.078842), (0.706401, 0.00587444, 0.00386922, 0.707777), (0.00549904, 0.00540092, 0.000539037),
         (1, 0, 0), (-0.061, 3.0456)),
    Body("left_shoulder_yaw_link", "left_shoulder_roll_link", (0.00122424, 0, -0.121195), (0.999996, 0, -0.00298782, 0), 0.704662,
         (0.010005, 0.000179, -0.069477), (0.996444, 0.00144278, 0.0782236, 0.0312643), (0.00438693, 0.00436694, 0.00044713),
         (0, 0, 1), (-2.556, 2.556)),
    Body("left_elbow_link", "left_shoulder_yaw_link", (0.014, 0.000199986, -0.08295), (0.999996, 0, 0.00298782, 0), 0.688008,
         (-0.013174, 0.003788, -0.080203), (0.970867, 0.0083727, -0.0764035, -0.226955), (0.0054008, 0.00531735, 0.000446844),
         (0, 1, 0), (-2.3556, 0)),
    Body("left_wrist_yaw_link", "left_elbow_link", (-0.0132797, -9.75488e-05, -0.120576), (1, 0, 0, 0), 0.360708,
         (7.6e-05, 0.007263, -0.030679), (0.992384, -0.122507, -0.00213896, -0.0126728), (0.000612057, 0.000527003, 0.00018794),
         (0, 0, 1), (-2.556, 2.556)),
    Body("left_wrist_pitch_link", "left_wrist_yaw_link", (0.000490001, 0, -0.0819985), (0.999996, 0, -0.00298783, 0), 0.292062,
         (0.011479, 0.002282, 0.001703), (0.258763, 0.693211, 0.202262, 0.641553), (0.000178433, 0.000138482, 9.10855e-05),
         (0, 1, 0), (-0.5236, 0.5236)),
    Body("left_wrist_roll_link", "left_wrist_pitch_link", (0, 0, 0), (1, 0, 0, 0), 0.30304,
         (0.002935, -0.001499, -0.083026), (0.606338, 0.022665, 0.0055862, 0.794865), (0.00278114, 0.00266331, 0.000205545),
         (1, 0, 0), (-1.5097, 0.724)),
)
# fmt: on

_ARMATURE = 0.03  # of every joint in the published model

# Hips, knees and waist by the G1's rule (10 Hz, ratio 2) on the published armature: 118 N m/rad and 7.5 N m s/rad. That
# is amid the ports' 99 to 200; SONIC's 99 are the G1's rotor inertias in the same rule. Ankles as legged_lab's X2: the
# rule would spend the ankle's 36 N m within 0.3 rad, and SONIC's 14 N m/rad were raised on deployment. Arms and wrists
# as x2_bringup's, which drives the robot's arms.
_LEG = Motor(*pd_from_frequency(_ARMATURE), 120, 11.936, _ARMATURE)
_SHOULDER, _UPPER_ARM = Motor(50.0, 3.0, 36, 13.088, _ARMATURE), Motor(50.0, 3.0, 24, 15.077, _ARMATURE)
_WRIST = Motor(20.0, 2.0, 4.8, 4.188, _ARMATURE)
_LEGS = {
    "hip_pitch": _LEG, "hip_roll": _LEG, "hip_yaw": _LEG, "knee": _LEG,
    "ankle_pitch": Motor(40.0, 3.0, 36, 13.088, _ARMATURE), "ankle_roll": Motor(30.0, 2.0, 24, 15.077, _ARMATURE),
}  # fmt: skip
_WAIST = {"waist_yaw": _LEG}
_ARMS = {
    "shoulder_pitch": _SHOULDER, "shoulder_roll": _SHOULDER, "shoulder_yaw": _UPPER_ARM, "elbow": _UPPER_ARM,
    "wrist_yaw": Motor(20.0, 2.0, 24, 15.077, _ARMATURE), "wrist_pitch": _WRIST, "wrist_roll": _WRIST,
}  # fmt: skip
_DEFAULT = {"hip_pitch": -0.312, "knee": 0.669, "ankle_pitch": -0.363, "shoulder_pitch": 0.2, "elbow": -0.6}

_LEFT_SHAPES = (
    Shape("left_hip_roll_link", "capsule", (0.055, 0.035), (0, 0, -0.08)),
    Shape("left_hip_yaw_link", "capsule", (0.055, 0.06), (-0.003, 0, -0.1)),
    Shape("left_knee_link", "capsule", (0.045, 0.07), (-0.004, 0, -0.09)),
    Shape("left_knee_link", "capsule", (0.035, 0.03), (-0.008, 0, -0.22)),
    Shape("left_shoulder_roll_link", "capsule", (0.035, 0.045), (0, 0, -0.055), role="visual"),
    Shape("left_shoulder_yaw_link", "capsule", (0.035, 0.045), (0.008, 0, -0.04)),
    Shape("left_elbow_link", "capsule", (0.033, 0.05), (-0.008, 0, -0.065)),
    Shape("left_wrist_yaw_link", "capsule", (0.03, 0.03), (0, 0, -0.045)),
    Shape("left_wrist_roll_link", "box", (0.045, 0.012, 0.06), (0, -0.01, -0.1), role="palm"),
)
_CENTRE_SHAPES = (
    Shape("pelvis", "sphere", (0.075,), (0, 0, 0)),
    Shape("torso_link", "capsule", (0.095, 0.07), (0, 0, 0.17)),
    Shape("head_pitch_link", "sphere", (0.07,), (0, 0, 0.015)),
)

X2 = Robot(
    name="x2",
    bodies=both_sides(LEFT_AND_CENTRE),
    motors={f"{s}_{j}": m for s in ("left", "right") for j, m in (_LEGS | _ARMS).items()} | _WAIST,
    default_rad={f"{s}_{j}": v for s in ("left", "right") for j, v in _DEFAULT.items()},
    joints=(
        *(f"{s}_{j}" for s in ("left", "right") for j in _LEGS),
        *_WAIST,
        *(f"{s}_{j}" for s in ("left", "right") for j in _ARMS),
    ),
    n_lmo=13,
    shapes=_LEFT_SHAPES + tuple(s.mirrored() for s in _LEFT_SHAPES) + _CENTRE_SHAPES,
    # Place and tilt are this project's: the published model has no camera. The lens and the tilt are the G1's.
    camera=Camera("head_pitch_link", (0.075, 0.0, 0.015), math.radians(42.0), 69.0),
    imu_pos=(0.0239465, -0.000228682, 0.04171),
    foot_site=(0.03, 0.0, -0.073),
    # Lowest points of four of the published twelve contact spheres (radius 5 mm) a foot: the long rectangle among them.
    foot_corners=((0.11, 0.05, -0.073), (0.11, -0.05, -0.073), (-0.05, 0.05, -0.073), (-0.05, -0.05, -0.073)),
    leg_m=0.60,
    foot_gap_m=(0.21, 0.37),
    nominal_height_m=0.64,
    height_range_m=(0.45, 0.65),
    hand_quat_wxyz=(math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0),  # the arm hangs: fingers along -z, the thumb ahead
)
