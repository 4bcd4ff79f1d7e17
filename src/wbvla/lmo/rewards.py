"""Reward rows of the legs' task as pure batched functions.

In: a `Step` (the state of all worlds after one 20 ms step). Out: {row name: (n,) reward}, already weighted.
Rows follow WholeBodyVLA Table 4 where its weights are known, and the harness curriculum's shaping rows elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Step:
    """State of n worlds after a step. Velocities in the heading frame, m/s; joints are the policy's own (J)."""

    velocity: np.ndarray  # (n, 3) of the pelvis
    drift: np.ndarray  # (n, 3) velocity and yaw rate minus their reference, low-passed over a stride
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
    waist_offset: np.ndarray  # (n, W) waist joints from the default pose, yaw first
    dq: np.ndarray  # (n, J)
    limit_excess: np.ndarray  # (n,) rad beyond the soft joint limits, summed
    torque_share: np.ndarray  # (n, J) torque over limit
    action: np.ndarray  # (n, J)
    last_action: np.ndarray  # (n, J)
    before_last_action: np.ndarray  # (n, J)
    precision: float  # weight of the rows against drift


CONTACT_M = 0.008


def rewards(s: Step) -> dict[str, np.ndarray]:
    """Return every reward row, per second."""
    error_xy = ((s.velocity[:, :2] - s.v_ref[:, :2]) ** 2).sum(1)
    error_yaw = (s.yaw_rate - s.v_ref[:, 2]) ** 2
    error_h = s.height - s.height_ref
    contact = s.foot_z < CONTACT_M
    square = lambda x: (x**2).sum(1)  # noqa: E731
    standing = ~s.moving
    ahead, aside = s.foot_gap[:, 0], s.foot_gap[:, 1]
    nearest, farthest = s.foot_gap_range
    rows = {
        # Narrow and wide kernels: the narrow one alone gives no gradient at half a metre per second of error.
        "track_xy": 1.8 * np.exp(-error_xy / 0.04) + 1.0 * np.exp(-error_xy / 0.3),
        "track_yaw": 1.5 * np.exp(-error_yaw / 0.05) + 1.0 * np.exp(-error_yaw / 0.5),
        "track_height": 0.8 * np.exp(-((error_h / 0.03) ** 2)) - 4 * np.clip(np.abs(error_h) - 0.02, 0, 0.3),
        "upright": -3.0 * square(s.gravity[:, :2]),
        "torso_upright": -2.0 * square(s.torso_z[:, :2]),
        # around all axes: the trunk carries the head camera and the hands, and must not swing with the stride
        "torso_oscillation": -0.05 * square(s.torso_gyro[:, :2]) - 0.15 * (s.torso_gyro[:, 2] - s.v_ref[:, 2]) ** 2,
        "roll_pitch_rate": -0.08 * square(s.gyro[:, :2]),
        "vertical_velocity": -1.0 * s.velocity[:, 2] ** 2,
        "contact_schedule": 0.25 * (contact == (s.swing <= 0)).sum(1),
        "swing_height": -30.0 * ((s.foot_z - 0.07 * s.swing) ** 2 * (s.swing > 0)).sum(1),
        "foot_slip": -0.4 * (np.clip((s.foot_vel[..., :2] ** 2).sum(2), 0, 4) * contact).sum(1),
        "foot_flat": -1.0 * s.foot_tilt.sum(1),
        "foot_parallel": -0.4 * s.foot_yaw**2,
        "foot_spacing": -6.0 * np.clip(nearest - aside, 0, 0.2) - 2.0 * np.clip(aside - farthest, 0, 0.3),
        "action_rate": -0.02 * square(s.action - s.last_action),
        "smoothness": -0.004 * square(s.action - 2 * s.last_action + s.before_last_action),
        "action_size": -0.003 * square(s.action),
        "joint_speed": -2e-3 * square(np.clip(s.dq, -20, 20)),
        "torque": -0.05 * square(s.torque_share),
        "torque_limit": -0.5 * np.clip(np.abs(s.torque_share) - 0.9, 0, 1).sum(1),
        "joint_limit": -2.0 * s.limit_excess,
        "hip_deviation": -0.6 * square(s.hip_offset),
        "waist_deviation": -0.8 * square(s.waist_offset) - 1.5 * s.waist_offset[:, 0] ** 2,
        "stand_still": standing * (-0.6 * np.abs(ahead) - 0.15 * np.clip(square(s.velocity) + square(s.gyro), 0, 4)),
        "alive": np.full(len(ahead), 0.6),
    }
    if s.precision > 0:
        still = standing * (s.swing <= 0).all(1)
        rows |= {
            "drift_xy": s.precision * 2.0 * np.exp(-square(s.drift[:, :2]) / 0.004),
            "drift_yaw": s.precision * 1.5 * np.exp(-(s.drift[:, 2] ** 2) / 0.006),
            "rest": s.precision
            * still
            * (-0.01 * np.clip(square(s.dq), 0, 60) - 0.4 * square(s.action - s.last_action)),
        }
    return rows
