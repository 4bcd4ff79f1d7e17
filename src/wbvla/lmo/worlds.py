"""Read the state of n simulated robots: in, the physics' arrays; out, what rewards and observations are made of.

Arrays are of the namespace `xp`: numpy on the CPU engine, torch on the mjlab engine.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.arrays import cross
from wbvla.lmo.terrain import height_under
from wbvla.recipes.lmo import LmoConfig
from wbvla.robots.base import Robot


def in_pelvis_frame(quat: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rotate world vectors (n, 3) by the inverse of unit quaternions (n, 4), w first."""
    w, xyz = quat[:, :1], -quat[:, 1:]
    twice = 2 * cross(xyz, v)
    return v + w * twice + cross(xyz, twice)


class Worlds:
    """Views of the physics of n worlds. An engine fills `state`, `_sensors` and what is declared here."""

    xp = np
    robot: Robot
    config: LmoConfig
    n: int
    nq: int
    nv: int
    nu: int
    state: np.ndarray  # (n, 1 + nq + nv ...): time, positions, velocities
    _sensors: np.ndarray  # (n, steps, width)
    _sensor_slice: dict[str, slice]

    @property
    def qpos(self) -> np.ndarray:
        """Generalised positions (n, nq)."""
        return self.state[:, 1 : 1 + self.nq]

    @property
    def qvel(self) -> np.ndarray:
        """Generalised velocities (n, nv)."""
        return self.state[:, 1 + self.nq : 1 + self.nq + self.nv]

    def sensor(self, name: str) -> np.ndarray:
        """Newest value of a sensor, shape (n, dim)."""
        return self._sensors[:, -1, self._sensor_slice[name]]

    @property
    def gravity(self) -> np.ndarray:
        """Unit gravity in the pelvis frame, shape (n, 3)."""
        w, x, y, z = self.qpos[:, 3:7].T
        return self.xp.stack([-2 * (x * z - w * y), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))], axis=1)

    @property
    def yaw(self) -> np.ndarray:
        """Heading (n,), rad."""
        w, x, y, z = self.qpos[:, 3:7].T
        return self.xp.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))

    def in_heading_frame(self, v: np.ndarray) -> np.ndarray:
        """Rotate world vectors (n, 3) into each world's heading frame."""
        c, s = self.xp.cos(self.yaw), self.xp.sin(self.yaw)
        return self.xp.stack([c * v[:, 0] + s * v[:, 1], -s * v[:, 0] + c * v[:, 1], v[:, 2]], axis=1)

    def ground(self, xy: np.ndarray) -> np.ndarray:
        """Return the ground's height (n,), m, at a place (n, 2) of each world."""
        return height_under(self._reliefs, self._relief_of, xy) if self.config.roughness_m else self.xp.zeros(self.n)

    @property
    def height_above_ground(self) -> np.ndarray:
        """Pelvis above the ground below it, (n,), m."""
        return self.qpos[:, 2] - self.ground(self.qpos[:, :2])

    def _corner_heights(self) -> np.ndarray:
        """Return how high the soles' corners are above the ground under the foot, (n, 2, C), m."""
        corners, heights = self.xp.array(self.robot.foot_corners) - self.xp.array(self.robot.foot_site), []
        for side in ("left", "right"):
            p, x_axis, z_axis = (self.sensor(f"{side}_foot_{k}") for k in ("pos", "x", "z"))
            y_up = z_axis[:, 0] * x_axis[:, 1] - z_axis[:, 1] * x_axis[:, 0]  # vertical part of z cross x
            rise = x_axis[:, 2:] * corners[:, 0] + y_up[:, None] * corners[:, 1] + z_axis[:, 2:] * corners[:, 2]
            heights.append((p[:, 2] - self.ground(p[:, :2]))[:, None] + rise)
        return self.xp.stack(heights, axis=1)

    def _support(self) -> dict[str, np.ndarray]:
        """Return what only the rows of tutorial 003 look at."""
        corners = self.xp.array(self.robot.foot_corners) - self.xp.array(self.robot.foot_site)
        out = {
            "com_xy": self.xp.zeros((self.n, 2)), "corner_xy": self.xp.zeros((self.n, 2, len(corners), 2)),
            "latent_size": self.xp.zeros(self.n),
        }  # fmt: skip
        if "com" in self._sensor_slice:
            out["com_xy"] = self.sensor("com")[:, :2]
            for i, side in enumerate(("left", "right")):
                p, x_axis, z_axis = (self.sensor(f"{side}_foot_{k}") for k in ("pos", "x", "z"))
                axes = self.xp.stack([x_axis, cross(z_axis, x_axis), z_axis], axis=1)
                out["corner_xy"][:, i] = (p[:, None] + corners @ axes)[..., :2]
        if self.latent is not None:
            out["latent_size"] = self.xp.linalg.norm(self.latent.after, axis=1)
        return out

    def _foot_force(self) -> np.ndarray:
        if "left_foot_force" not in self._sensor_slice:
            return self.xp.zeros((self.n, 2, 3))
        return self.xp.stack([self.sensor(f"{side}_foot_force") for side in ("left", "right")], axis=1)
