"""Rotations as six numbers, X-VLA's way: the first column of the matrix, then the second. In and out: numpy arrays."""

from __future__ import annotations

import numpy as np


def rotation_6d(matrix: np.ndarray) -> np.ndarray:
    """Return the first column, then the second, of rotation matrices (..., 3, 3): (..., 6)."""
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def rotation_matrix(six: np.ndarray) -> np.ndarray:
    """Return rotation matrices (..., 3, 3) of 6-D rotations (..., 6), made orthonormal: the inverse of `rotation_6d`.

    Raises:
        ValueError: the two columns are zero or parallel.
    """
    first, second = six[..., :3], six[..., 3:]
    x = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-12)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    if min(np.linalg.norm(first, axis=-1).min(), np.linalg.norm(rest, axis=-1).min()) < 1e-6:
        raise ValueError("rotation: got two columns that are zero or parallel, expected two different directions")
    y = rest / np.linalg.norm(rest, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)
