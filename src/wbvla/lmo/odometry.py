"""Leg odometry: joint angles and speeds, gyroscope and gravity in; velocity of the pelvis over the ground out.

The foot that is lower along gravity is taken to stand still; both share the vote when they are level.
"""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot

LEVEL_M = 0.01


def base_velocity(foot_pos: np.ndarray, foot_vel: np.ndarray, gyro: np.ndarray, gravity: np.ndarray) -> np.ndarray:
    """Return the pelvis velocity in its own frame, shape (n, 3), m/s.

    foot_pos, foot_vel: (n, 2, 3) left and right foot in the pelvis frame, m and m/s, from joints alone;
    gyro: (n, 3) rad/s; gravity: (n, 3) unit vector in the pelvis frame.
    """
    of_foot = -(foot_vel + np.cross(gyro[:, None, :], foot_pos))
    depth = np.einsum("nfi,ni->nf", foot_pos, gravity)
    left = 1.0 / (1.0 + np.exp(np.clip((depth[:, 1] - depth[:, 0]) / LEVEL_M, -30, 30)))
    return left[:, None] * of_foot[:, 0] + (1 - left)[:, None] * of_foot[:, 1]


class LegKinematics:
    """Forward kinematics of both feet from the 12 leg joints, batched over worlds and legs, numpy only."""

    def __init__(self, robot: Robot) -> None:
        rows = {robot.joint_of(b): b for b in robot.bodies}
        legs = [[rows[j] for j in robot.joints[:6]], [rows[j] for j in robot.joints[6:12]]]
        self.pos = np.array([[b.pos for b in leg] for leg in legs]).transpose(1, 0, 2)
        self.rot = np.array([[_matrix(b.quat_wxyz) for b in leg] for leg in legs]).transpose(1, 0, 2, 3)
        self.axis = np.array([b.axis for b in legs[0]])
        self.site = np.array(robot.foot_site)

    def feet(self, q: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and velocities of the feet in the pelvis frame, each (n, 2, 3). q, dq: (n, 12)."""
        q, dq = q.reshape(-1, 2, 6), dq.reshape(-1, 2, 6)
        n = len(q)
        turn, origin = np.broadcast_to(np.eye(3), (n, 2, 3, 3)), np.zeros((n, 2, 3))
        origins, axes = np.empty((6, n, 2, 3)), np.empty((6, n, 2, 3))
        s, c = np.sin(q)[..., None, None], np.cos(q)[..., None, None]
        for i in range(6):
            origin = origin + (turn @ self.pos[i][..., None])[..., 0]
            turn = turn @ self.rot[i]
            x, y, z = self.axis[i]
            origins[i], axes[i] = origin, turn @ self.axis[i]
            k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            turn = turn @ (np.eye(3) + s[:, :, i] * k + (1 - c[:, :, i]) * (k @ k))
        foot = origin + turn @ self.site
        return foot, np.einsum("jnfi,nfj->nfi", np.cross(axes, foot[None] - origins), dq)


def _matrix(quat: tuple[float, ...]) -> np.ndarray:
    w, x, y, z = np.array(quat) / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
