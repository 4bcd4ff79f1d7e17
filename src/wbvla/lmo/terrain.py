"""Uneven ground for training: bumps of a height field, one relief for each model variant.

In: a MuJoCo spec, relief heights, places. Out: the height field's geom and the ground's height under feet and pelvis.
"""

from __future__ import annotations

import mujoco
import numpy as np

CELL_M, CELLS = 0.2, 160  # 32 m across: nobody walks to its end within an episode
NAME = "ground"


def add_ground(spec: mujoco.MjSpec) -> None:
    """Put a flat height field where the floor would be."""
    half = (CELLS - 1) * CELL_M / 2
    flat = np.zeros(CELLS * CELLS)
    spec.add_hfield(name=NAME, nrow=CELLS, ncol=CELLS, size=[half, half, 1.0, 0.1], userdata=flat)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname=NAME, contype=1, conaffinity=2)


def roughen(model: mujoco.MjModel, heights_m: np.ndarray) -> None:
    """Give a model its relief (CELLS, CELLS), m, at least 0."""
    model.hfield_size[0, 2] = 1.0  # elevation data are metres
    model.hfield_data[:] = heights_m.ravel()


def height_under(reliefs: np.ndarray, which: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the ground's height (n,), m, bilinear, at places xy (n, 2) on reliefs (R, CELLS, CELLS)[which (n,)]."""
    at = np.clip(xy / CELL_M + (CELLS - 1) / 2, 0, CELLS - 1.001)
    low = at.astype(int)
    (u, v), (i, j) = (at - low).T, low.T  # columns run along x, rows along y
    corner = lambda dj, di: reliefs[which, j + dj, i + di]  # noqa: E731
    along = lambda dj: (1 - u) * corner(dj, 0) + u * corner(dj, 1)  # noqa: E731
    return (1 - v) * along(0) + v * along(1)
