"""A stand-in for the VLA's latent action: what arms and legs are about to do, as 256 numbers (tutorial 003).

In: arm targets ahead, reference velocity and height. Out: z (n, 256), renewed at 20 Hz with noise and interpolated to
50 Hz. The code is a fixed random projection; mirroring left and right swaps its halves.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.odometry import STEP_S
from wbvla.robots.base import Robot

WIDTH, PERIOD_S, NOISE = 256, 0.05, 0.05


class LatentIntent:
    """The latent actions of n worlds."""

    STATE = ("before", "after", "since_s")

    def __init__(self, robot: Robot, n: int, rng: np.random.Generator, xp=np) -> None:
        self.rng, self.xp = rng, xp
        arms = slice(robot.n_lmo, robot.n_lmo + 14)
        index, sign = robot.mirror()
        self.default = xp.array(robot.array("default")[arms])
        self._mirror = xp.array(np.r_[index[arms] - robot.n_lmo, 14:18]), xp.array(np.r_[sign[arms], 1, -1, -1, 1])
        self._projection = xp.array(np.random.default_rng(0).normal(size=(18, WIDTH // 2)) / 2)
        self.before, self.after, self.since_s = xp.zeros((n, WIDTH)), xp.zeros((n, WIDTH)), xp.zeros(n)

    def encode(self, arms_rad: np.ndarray, v_ref: np.ndarray, height_m: np.ndarray) -> np.ndarray:
        """Return z (n, 256).

        arms_rad: (n, 14) where the arms are heading. v_ref: (n, 3). height_m: (n,) above the nominal height.
        """
        intent = self.xp.column_stack([arms_rad - self.default, 2 * v_ref, 5 * height_m])
        index, sign = self._mirror
        return self.xp.column_stack([intent @ self._projection, (intent[:, index] * sign) @ self._projection])

    def reset(self, worlds: np.ndarray) -> None:
        """Nothing is intended yet (bool mask or indices)."""
        self.before[worlds] = self.after[worlds] = 0.0
        self.since_s[worlds] = PERIOD_S

    def step(self, z: np.ndarray, noise: float = NOISE) -> np.ndarray:
        """Advance 20 ms towards z (n, 256); return what arrives (n, 256)."""
        self.since_s += STEP_S
        due = self.since_s >= PERIOD_S
        self.before[due] = self.after[due]
        self.after[due] = z[due] + noise * self.rng.normal(size=(int(due.sum()), WIDTH))
        self.since_s[due] %= PERIOD_S
        share = self.xp.minimum(self.since_s / PERIOD_S, 1.0)[:, None]
        return (1 - share) * self.before + share * self.after
