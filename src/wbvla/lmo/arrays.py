"""One task on two kinds of arrays: numpy on the CPU engine and the robot, torch tensors on the mjlab engine.

In: an array. Out: the namespace with numpy's names that works on arrays like it. Code that both engines share takes its
functions from there and keeps to what numpy and torch have in common (`x.sum(1)`, `abs(x)`, masks, slices).
"""

from __future__ import annotations

import numpy as np


def namespace(x):
    """Return numpy for a numpy array, or the `TorchArrays` of a tensor's device."""
    if isinstance(x, np.ndarray):
        return np
    from wbvla.lmo.torch_arrays import torch_arrays

    return torch_arrays(x.device)
