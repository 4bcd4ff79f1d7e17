"""Reward rows of the legs' task as pure batched functions.

In: a `Step` (the state of all worlds after one 20 ms step, numpy or torch), weights by row name.
Out: {row name: weighted reward (n,)}.
A recipe is a table of weights (wbvla.recipes.lmo) over the rows in TERMS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wbvla.lmo.arrays import namespace


@dataclass
class Step:
    """State of n worlds after a step. Velocities in the heading frame, m/s; joints are the policy's own (J)."""

    velocity: np.ndarray  # (n, 3) of the pelvis
    drift: np.ndarray  # (n, 3) velocity and yaw rate minus their reference, low-passed over a stride
    misplaced: np.ndarray  # (n, 3) where the reference leads minus where the robot is: ahead, aside (m), heading (rad)
    yaw_rate: np.ndarray  # (n,) low-passed
    gyro: np.ndarray  # (n, 3)
    gravity: np.ndarray  # (n, 3)
    height: np.ndarray  # (n,)
    v_ref: np.ndarray  # (n, 3)
    height_ref: np.ndarray  # (n,)
    moving: np.ndarray  # (n,) bool
    swing: np.ndarray  # (n, 2)
    foot_z: np.ndarray  # (n, 2) lowest point of each foot
    foot_vel: np.ndarray  # (n, 2, 3)
    foot_tilt: np.ndarray  # (n, 2) squared horizontal part of the sole's normal
    foot_gap: np.ndarray  # (n, 2) left minus right foot: ahead, aside, heading frame
    foot_gap_range: tuple[float, ...]  # least and largest wanted distance aside
    foot_yaw: np.ndarray  # (n,) angle between the feet
    torso_z: np.ndarray  # (n, 3)
    torso_gyro: np.ndarray  # (n, 3)
    hip_offset: np.ndarray  # (n, 4) hip roll and yaw from the default pose
    ankle_offset: np.ndarray  # (n, 4) ankles from the default pose
    waist_offset: np.ndarray  # (n, W) waist joints from the default pose, yaw first
    dq: np.ndarray  # (n, J)
    limit_excess: np.ndarray  # (n,) rad beyond the soft joint limits, summed
    torque_share: np.ndarray  # (n, J) torque over limit
    action: np.ndarray  # (n, J)
    last_action: np.ndarray  # (n, J)
    before_last_action: np.ndarray  # (n, J)
    goal: np.ndarray  # (n, 3) flags times cruise speed, before shaping
    heading_error: np.ndarray  # (n,) rad, in the step in which a motion ends with the robot settled; 0 otherwise
    acceleration: np.ndarray  # (n, J) of the joints, rad/s^2
    torque: np.ndarray  # (n, J) N m
    kp: np.ndarray  # (J,) N m/rad
    speed_excess: np.ndarray  # (n,) rad/s beyond the joints' speed limits, summed
    target_error: np.ndarray  # (n, J) joint target minus joint position, rad
    knee_bend: np.ndarray  # (n, 2) knee positions as a share of their range
    air_s: np.ndarray  # (n, 2) how long a foot was in the air, in the step in which it lands; 0 otherwise
    foot_force: np.ndarray  # (n, 2, 3) of the ground on the feet, world axes, N; zeros unless a row needs it
    nominal_m: float  # pelvis height of the default pose
    com_xy: np.ndarray  # (n, 2) centre of mass, world, m; zeros unless a row needs it
    corner_xy: np.ndarray  # (n, 2, C, 2) the soles' corners, world, m
    latent_size: np.ndarray  # (n,) length of the latent action; zeros without one

    @property
    def xp(self):
        """The arrays' namespace."""
        return namespace(self.height)


CONTACT_M = 0.008


def _square(x: np.ndarray) -> np.ndarray:
    return (x**2).sum(1)


def _error_xy(s: Step) -> np.ndarray:
    return _square(s.velocity[:, :2] - s.v_ref[:, :2])


def _contact(s: Step) -> np.ndarray:
    return s.foot_z < CONTACT_M


def _at_rest(s: Step) -> np.ndarray:
    return ~s.moving & (s.swing <= 0).all(1)


def _tall(s: Step) -> np.ndarray:
    """Commanded within half a centimetre of the nominal height or above."""
    return s.height_ref >= s.nominal_m - 0.005


def _inside_support(s: Step) -> np.ndarray:
    """Distance of the centre of mass from the edge of the feet's convex hull, m, negative outside; 32 directions."""
    angle = s.xp.arange(32) * s.xp.pi / 16
    directions = s.xp.stack([s.xp.cos(angle), s.xp.sin(angle)])
    corners = s.corner_xy.reshape(len(s.height), -1, 2)
    return s.xp.amin(s.xp.amax(corners @ directions, axis=1) - s.com_xy @ directions, axis=1)


def _second_difference(s: Step) -> np.ndarray:
    return _square(s.action - 2 * s.last_action + s.before_last_action)


TERMS: dict[str, Callable[[Step], np.ndarray]] = {
    # Narrow and wide kernels: the narrow one alone gives no gradient at half a metre per second of error.
    "track_xy": lambda s: s.xp.exp(-_error_xy(s) / 0.04),
    "track_xy_wide": lambda s: s.xp.exp(-_error_xy(s) / 0.3),
    "track_yaw": lambda s: s.xp.exp(-((s.yaw_rate - s.v_ref[:, 2]) ** 2) / 0.05),
    "track_yaw_wide": lambda s: s.xp.exp(-((s.yaw_rate - s.v_ref[:, 2]) ** 2) / 0.5),
    "track_height": lambda s: s.xp.exp(-(((s.height - s.height_ref) / 0.03) ** 2)),
    "height_error": lambda s: s.xp.clip(abs(s.height - s.height_ref) - 0.02, 0, 0.3),
    "upright": lambda s: _square(s.gravity[:, :2]),
    "torso_upright": lambda s: _square(s.torso_z[:, :2]),
    # The trunk carries the head camera and the hands: it must not swing with the stride.
    "torso_oscillation": lambda s: _square(s.torso_gyro[:, :2]),
    "torso_yaw_oscillation": lambda s: (s.torso_gyro[:, 2] - s.v_ref[:, 2]) ** 2,
    "roll_pitch_rate": lambda s: _square(s.gyro[:, :2]),
    "vertical_velocity": lambda s: s.velocity[:, 2] ** 2,
    "contact_schedule": lambda s: (_contact(s) == (s.swing <= 0)).sum(1),
    "swing_height": lambda s: ((s.foot_z - 0.07 * s.swing) ** 2 * (s.swing > 0)).sum(1),
    "foot_slip": lambda s: (s.xp.clip((s.foot_vel[..., :2] ** 2).sum(2), 0, 4) * _contact(s)).sum(1),
    "foot_flat": lambda s: s.foot_tilt.sum(1),
    "foot_parallel": lambda s: s.foot_yaw**2,
    "feet_too_close": lambda s: s.xp.clip(s.foot_gap_range[0] - s.foot_gap[:, 1], 0, 0.2),
    "feet_too_wide": lambda s: s.xp.clip(s.foot_gap[:, 1] - s.foot_gap_range[1], 0, 0.3),
    "action_rate": lambda s: _square(s.action - s.last_action),
    "smoothness": _second_difference,
    "action_size": lambda s: _square(s.action),
    "joint_speed": lambda s: _square(s.xp.clip(s.dq, -20, 20)),
    "torque": lambda s: _square(s.torque_share),
    "torque_limit": lambda s: s.xp.clip(abs(s.torque_share) - 0.9, 0, 1).sum(1),
    "joint_limit": lambda s: s.limit_excess,
    "hip_deviation": lambda s: _square(s.hip_offset),
    "waist_deviation": lambda s: _square(s.waist_offset),
    "waist_yaw_deviation": lambda s: s.waist_offset[:, 0] ** 2,
    "stand_level": lambda s: ~s.moving * abs(s.foot_gap[:, 0]),
    "stand_still": lambda s: ~s.moving * s.xp.clip(_square(s.velocity) + _square(s.gyro), 0, 4),
    "alive": lambda s: s.xp.ones(len(s.height)),
    "drift_xy": lambda s: s.xp.exp(-_square(s.drift[:, :2]) / 0.015),
    "drift_yaw": lambda s: s.xp.exp(-(s.drift[:, 2] ** 2) / 0.006),
    "place_xy": lambda s: s.xp.exp(-_square(s.misplaced[:, :2]) / 0.01),
    "place_error": lambda s: s.xp.hypot(
        s.misplaced[:, 0], s.misplaced[:, 1]
    ),  # pulls from far, where the kernel is flat
    "place_yaw": lambda s: s.xp.exp(-(s.misplaced[:, 2] ** 2) / 0.02),
    "rest_speed": lambda s: _at_rest(s) * s.xp.clip(_square(s.dq), 0, 60),
    "rest_action_rate": lambda s: _at_rest(s) * _square(s.action - s.last_action),
    # WholeBodyVLA Table 4, and the rows it names without a formula as HOMIE defines them.
    "paper_forward": lambda s: s.xp.exp(-4 * (s.velocity[:, 0] - s.goal[:, 0]) ** 2),
    "paper_lateral": lambda s: s.xp.exp(-4 * (s.velocity[:, 1] - s.goal[:, 1]) ** 2),
    "paper_yaw": lambda s: s.xp.exp(-4 * (s.gyro[:, 2] - s.goal[:, 2]) ** 2),
    "paper_height": lambda s: s.xp.exp(-4 * (s.height - s.height_ref) ** 2),
    "joint_acceleration": lambda s: _square(s.acceleration),
    "roll_action": lambda s: _square(s.action[:, [1, 5, 7, 11]]),
    "stand_still_action": lambda s: ~s.goal.any(1) * _square(s.action[:, :12]),
    "direction": lambda s: abs(s.heading_error),
    "hip_deviation_tall": lambda s: _tall(s) * _square(s.hip_offset),
    "ankle_deviation_tall": lambda s: _tall(s) * _square(s.ankle_offset),
    "knee_squat": lambda s: abs((s.knee_bend - 0.5) * (s.height - s.height_ref)[:, None]).sum(1),
    "joint_speed_limit": lambda s: s.speed_excess,
    "torque_usage": lambda s: _square(s.torque / s.kp),
    "feet_air_time": lambda s: s.goal.any(1) * ((s.air_s - 0.5) * (s.air_s > 0)).sum(1),
    "foot_clearance": lambda s: ((s.foot_z - 0.14) ** 2 * s.xp.linalg.norm(s.foot_vel[..., :2], axis=2)).sum(1),
    "lateral_spacing": lambda s: (s.foot_gap[:, 1] > 0.2) & (s.foot_gap[:, 1] < 0.35),
    "no_fly": lambda s: (_contact(s).sum(1) == 1) | ~s.goal.any(1),
    "foot_stumble": lambda s: (s.xp.linalg.norm(s.foot_force[..., :2], axis=2) > 3 * abs(s.foot_force[..., 2])).any(1),
    # Tutorial 000 gives names; the formulas are those that Isaac Lab and legged_gym give these names.
    "tracking_lin_vel": lambda s: s.xp.exp(-_error_xy(s) / 0.25),
    "tracking_ang_vel": lambda s: s.xp.exp(-((s.gyro[:, 2] - s.v_ref[:, 2]) ** 2) / 0.25),
    "joint_torque": lambda s: _square(s.torque),
    "joint_tracking": lambda s: _square(s.target_error[:, :12]),
    # Tutorial 003.
    "orientation": lambda s: s.xp.exp(-5 * _square(s.xp.arctan2(s.gravity[:, :2], -s.gravity[:, 2:]))),
    "angular_velocity": lambda s: s.xp.exp(-2 * s.xp.linalg.norm(s.gyro, axis=1)),
    "linear_velocity": lambda s: s.xp.exp(-4 * s.xp.linalg.norm(s.velocity[:, :2] - s.v_ref[:, :2], axis=1)),
    "foot_contact": lambda s: _contact(s).any(1),
    "manipulation_support": lambda s: s.xp.exp(
        -3 * (abs(s.foot_gap[:, 1]) - 0.3 - 0.15 * s.xp.tanh(s.latent_size / 10)) ** 2
    ),
    "com_stability": lambda s: s.xp.clip(_inside_support(s), 0, 1),
    "energy": lambda s: s.xp.exp(-0.01 * _square(s.action)),
    "action_smoothness": lambda s: s.xp.exp(-5 * _square(s.action - s.last_action)),
}


def rewards(s: Step, weights: tuple[tuple[str, float], ...]) -> dict[str, np.ndarray]:
    """Return the weighted rows (n,), per second. Raises KeyError for a row that does not exist."""
    return {name: weight * TERMS[name](s) for name, weight in weights}
