"""Unitree G1, 29 degrees of freedom, with 7-joint arms: kinematics, inertia, motors and primitive shapes.

In: nothing. Out: `G1`, a wbvla.robots.base.Robot.
Numbers are the published ones (Unitree's description, BSD-3, as distributed with mjlab); a test holds the model
against mjlab's. Left links are listed, right ones are their mirror. Leg and waist gains are near those that HOMIE and
GR00T's whole-body controller use on the real robot (hip 100-150, knee 150-200, ankle 40, waist 250 N m/rad), with more
damping: with mjlab's (40 at hip pitch, 28 at the waist) the trunk is hardly stiffer than gravity makes it unstable.
Arm gains are the ones of Unitree's teleoperation.
"""

from __future__ import annotations

import math
from dataclasses import replace

from wbvla.robots.base import Body, Camera, Motor, Robot, Shape, both_sides

# fmt: off
LEFT_AND_CENTRE = (
    Body("pelvis", "", (0, 0, 0.793), (1, 0, 0, 0), 3.813,
         (0, 0, -0.07605), (0.99999992, 0, -0.00039914797, 0), (0.010549, 0.0093089, 0.0079184),
         (0, 0, 0), (0, 0)),
    Body("left_hip_pitch_link", "pelvis", (0, 0.064452, -0.1027), (1, 0, 0, 0), 1.35,
         (0.002741, 0.047791, -0.02606), (0.95486247, 0.29396415, 0.030255615, 0.030122015), (0.00181517, 0.00153422, 0.00116212),
         (0, 1, 0), (-2.5307, 2.8798)),
    Body("left_hip_roll_link", "left_hip_pitch_link", (0, 0.052, -0.030465), (0.99617869, 0, -0.087338572, 0), 1.52,
         (0.029812, -0.001045, -0.087934), (0.97780777, -1.9711895e-05, 0.20557595, -0.040379291), (0.00254986, 0.00241169, 0.00148755),
         (1, 0, 0), (-0.5236, 2.9671)),
    Body("left_hip_yaw_link", "left_hip_roll_link", (0.025001, 0, -0.12412), (1, 0, 0, 0), 1.702,
         (-0.057709, -0.010981, -0.15078), (0.60059792, 0.15831998, 0.22348197, 0.7511809), (0.00776166, 0.00717575, 0.00160139),
         (0, 0, 1), (-2.7576, 2.7576)),
    Body("left_knee_link", "left_hip_yaw_link", (-0.078273, 0.0021489, -0.17734), (0.99617869, 0, 0.087338572, 0), 1.932,
         (0.005457, 0.003964, -0.12074), (0.92341787, -0.032769895, 0.015824598, 0.38206695), (0.0113804, 0.0112778, 0.00146458),
         (0, 1, 0), (-0.087267, 2.8798)),
    Body("left_ankle_pitch_link", "left_knee_link", (0, -9.4445e-05, -0.30001), (1, 0, 0, 0), 0.074,
         (-0.007269, 0, 0.011137), (0.60305299, 0.36922499, 0.36922499, 0.60305299), (1.89e-05, 1.40805e-05, 6.9195e-06),
         (0, 1, 0), (-0.87267, 0.5236)),
    Body("left_ankle_roll_link", "left_ankle_pitch_link", (0, 0, -0.017558), (1, 0, 0, 0), 0.608,
         (0.026505, 0, -0.016425), (-0.00048109183, 0.72848175, -0.00061896679, 0.68506476), (0.00167218, 0.0016161, 0.000217621),
         (1, 0, 0), (-0.2618, 0.2618)),
    Body("waist_yaw_link", "pelvis", (0, 0, 0), (1, 0, 0, 0), 0.214,
         (0.003494, 0.000233, 0.018034), (0.28969699, 0.59100097, -0.33779498, 0.67282097), (0.000163531, 0.000107714, 0.000102205),
         (0, 0, 1), (-2.618, 2.618)),
    Body("waist_roll_link", "waist_yaw_link", (-0.0039635, 0, 0.044), (1, 0, 0, 0), 0.086,
         (0, 2.3e-05, 0), (0.5, 0.5, -0.5, 0.5), (8.245e-06, 7.079e-06, 6.339e-06),
         (1, 0, 0), (-0.52, 0.52)),
    Body("torso_link", "waist_roll_link", (0, 0, 0), (1, 0, 0, 0), 7.818,
         (0.00203158, 0.000339683, 0.184568), (0.99980258, -6.0331875e-05, 0.019825592, 0.0013198594), (0.121847, 0.109825, 0.0273735),
         (0, 1, 0), (-0.52, 0.52)),
    Body("left_shoulder_pitch_link", "torso_link", (0.0039563, 0.10022, 0.24778), (0.99026414, 0.13920102, 1.3872202e-05, -9.8686814e-05), 0.718,
         (0, 0.035892, -0.011628), (0.65415192, 0.013045798, -0.32626696, 0.68224991), (0.000465864, 0.000432842, 0.000406394),
         (0, 1, 0), (-3.0892, 2.6704)),
    Body("left_shoulder_roll_link", "left_shoulder_pitch_link", (0, 0.038, -0.013831), (0.99026822, -0.13917203, 0, 0), 0.643,
         (-0.000227, 0.00727, -0.063243), (0.70125603, -0.019622301, -0.0071031703, 0.71260403), (0.000691311, 0.000618011, 0.000388977),
         (1, 0, 0), (-1.5882, 2.2515)),
    Body("left_shoulder_yaw_link", "left_shoulder_roll_link", (0, 0.00624, -0.1032), (1, 0, 0, 0), 0.734,
         (0.010773, -0.002949, -0.072009), (0.71687871, -0.096482862, -0.067994173, 0.68713373), (0.00106187, 0.00103217, 0.000400661),
         (0, 0, 1), (-2.618, 2.618)),
    Body("left_elbow_link", "left_shoulder_yaw_link", (0.015783, 0, -0.080518), (1, 0, 0, 0), 0.6,
         (0.064956, 0.004454, -0.010062), (0.54176524, 0.63613228, 0.38882117, 0.38812917), (0.000443035, 0.000421612, 0.000259353),
         (0, 1, 0), (-1.0472, 2.0944)),
    Body("left_wrist_roll_link", "left_elbow_link", (0.1, 0.00188791, -0.01), (1, 0, 0, 0), 0.085445,
         (0.0171394, 0.000537591, 4.8864e-07), (0.57533837, 0.41166726, -0.57490637, 0.41109426), (5.48211e-05, 4.96646e-05, 3.57798e-05),
         (1, 0, 0), (-1.97222, 1.97222)),
    Body("left_wrist_pitch_link", "left_wrist_roll_link", (0.038, 0, 0), (1, 0, 0, 0), 0.48405,
         (0.0229999, -0.00111685, -0.00111658), (0.24999783, 0.66136255, 0.2930358, 0.64360756), (0.000430353, 0.000429873, 0.000164648),
         (0, 1, 0), (-1.61443, 1.61443)),
    Body("left_wrist_yaw_link", "left_wrist_pitch_link", (0.046, 0, 0), (1, 0, 0, 0), 0.254576,
         (0.0708244, 0.000191745, 0.00161742), (0.51057085, 0.52629484, 0.46807786, 0.49318785), (0.000646113, 0.000559993, 0.000147566),
         (0, 0, 1), (-1.61443, 1.61443)),
)
# fmt: on


def _planetary(rotors: tuple[float, float, float], gears: tuple[float, float, float]) -> float:
    """Reflected inertia of a two-stage planetary drive, kg m^2 at the joint."""
    return rotors[0] * (gears[1] * gears[2]) ** 2 + rotors[1] * gears[2] ** 2 + rotors[2]


# Unitree's four motor types: rotor inertias and gear stages.
_A5020 = _planetary((0.139e-4, 0.017e-4, 0.169e-4), (1, 1 + 46 / 18, 1 + 56 / 16))
_A7520_14 = _planetary((0.489e-4, 0.098e-4, 0.533e-4), (1, 4.5, 1 + 48 / 22))
_A7520_22 = _planetary((0.489e-4, 0.109e-4, 0.738e-4), (1, 4.5, 5))
_A4010 = _planetary((0.068e-4, 0.0, 0.0), (1, 5, 5))


_HIP, _KNEE = Motor(100.0, 6.0, 88, 32, _A7520_14), Motor(100.0, 6.0, 139, 20, _A7520_22)
_ANKLE = Motor(40.0, 2.0, 50, 37, 2 * _A5020)  # two 5020 motors drive the ankle and the waist's roll and pitch
_ARM, _WRIST = Motor(80.0, 3.0, 25, 37, _A5020), Motor(40.0, 1.5, 5, 22, _A4010)
_SIDE = {
    "hip_pitch": _HIP, "hip_roll": _KNEE, "hip_yaw": _HIP, "knee": _KNEE, "ankle_pitch": _ANKLE, "ankle_roll": _ANKLE,
    "shoulder_pitch": _ARM, "shoulder_roll": _ARM, "shoulder_yaw": _ARM, "elbow": _ARM,
    "wrist_roll": Motor(40.0, 1.5, 25, 37, _A5020), "wrist_pitch": _WRIST, "wrist_yaw": _WRIST,
}  # fmt: skip
_LEG = tuple(_SIDE)[:6]
_ARMS = tuple(_SIDE)[6:]
_DEFAULT = {"hip_pitch": -0.312, "knee": 0.669, "ankle_pitch": -0.363, "shoulder_pitch": 0.2, "elbow": 0.6}

_DOWN = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)  # capsule along x
_LEFT_SHAPES = (
    Shape("left_hip_roll_link", "capsule", (0.06, 0.04), (0.02, 0, -0.04)),
    Shape("left_hip_yaw_link", "capsule", (0.055, 0.076158), (-0.03, 0, -0.1), (0.97958, 0, 0.20107, 0)),
    Shape("left_knee_link", "capsule", (0.045, 0.075), (0.01, 0, -0.075)),
    Shape("left_knee_link", "capsule", (0.03, 0.04), (0.01, 0, -0.24)),
    Shape("left_shoulder_roll_link", "capsule", (0.035, 0.05), (0, 0, -0.05), role="visual"),
    Shape("left_shoulder_yaw_link", "capsule", (0.035, 0.065), (0, 0, -0.015)),
    Shape("left_elbow_link", "capsule", (0.035, 0.045), (0.035, 0, -0.01), _DOWN),
    Shape("left_wrist_pitch_link", "capsule", (0.035, 0.035), (0.025, 0, 0), _DOWN),
    Shape("left_wrist_yaw_link", "box", (0.06, 0.012, 0.045), (0.1, -0.01, 0), role="palm"),
)
_CENTRE_SHAPES = (
    Shape("pelvis", "sphere", (0.07,), (0, 0, -0.08)),
    Shape("torso_link", "capsule", (0.09, 0.06), (0.01, 0, 0.14)),
    Shape("torso_link", "sphere", (0.06,), (0, 0, 0.43)),
)

_TRUNK = replace(_ANKLE, kp=250.0, kd=5.0)
_WAIST = {"waist_yaw": replace(_HIP, kp=250.0, kd=5.0), "waist_roll": _TRUNK, "waist_pitch": _TRUNK}

G1 = Robot(
    name="g1",
    bodies=both_sides(LEFT_AND_CENTRE),
    motors={f"{s}_{j}": m for s in ("left", "right") for j, m in _SIDE.items()} | _WAIST,
    default_rad={f"{s}_{j}": v for s in ("left", "right") for j, v in _DEFAULT.items()}
    | {"left_shoulder_roll": 0.2, "right_shoulder_roll": -0.2},
    joints=(
        *(f"{s}_{j}" for s in ("left", "right") for j in _LEG),
        *_WAIST,
        *(f"{s}_{j}" for s in ("left", "right") for j in _ARMS),
    ),
    n_lmo=15,
    shapes=_LEFT_SHAPES + tuple(s.mirrored() for s in _LEFT_SHAPES) + _CENTRE_SHAPES,
    # A square picture of 69 degrees: the long side of the D435i's colour field of view, on Unitree's tilted head mount.
    camera=Camera("torso_link", (0.07, 0.0, 0.44), math.radians(42.0), 69.0),
    imu_pos=(0.04525, 0.0, -0.08339),
    foot_site=(0.04, 0.0, -0.037),
    foot_corners=((0.12, 0.03, -0.035), (0.12, -0.03, -0.035), (-0.05, 0.025, -0.035), (-0.05, -0.025, -0.035)),
    leg_m=0.63,
    foot_gap_m=(0.18, 0.34),
    nominal_height_m=0.74,
    height_range_m=(0.45, 0.76),
)
