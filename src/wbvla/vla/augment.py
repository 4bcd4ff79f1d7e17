"""Augmentation for training. In: uint8 head images, and whole samples. Out: the same, shifted, recoloured, mirrored.

Shifts move the picture by a few pixels with replicated borders (about the error of a head mount); brightness and colour
change as lamps and white balance do. Left and right mean something to a walking robot, so that a picture is mirrored
only together with the state, the actions and what the robot is told.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wbvla.robots.base import Robot
from wbvla.types import FLAGS, GRIPPER, N_ARM


def augment(
    images_BHWC: Tensor, shift_px: int, brightness: float, colour: float, generator: torch.Generator | None
) -> Tensor:
    """Shift each image by up to `shift_px` pixels and scale its brightness and each colour channel.

    Args:
        images_BHWC: pixel values 0..255.
        brightness: range of the common gain, 0.25 means 0.75..1.25; the offset is drawn from half of it.
        colour: range of each channel's own gain.
        generator: source of randomness; None takes torch's global one.
    Returns:
        float32 pixel values clipped to 0..255.
    """
    b, h, w, _ = images_BHWC.shape
    device = images_BHWC.device
    offsets = torch.randint(-shift_px, shift_px + 1, (2, b, 1), generator=generator).to(device)
    rows = (torch.arange(h, device=device) + offsets[0]).clamp_(0, h - 1)
    columns = (torch.arange(w, device=device) + offsets[1]).clamp_(0, w - 1)
    each = torch.arange(b, device=device)[:, None, None]
    shifted = images_BHWC[each, rows[:, :, None], columns[:, None, :]].float()
    draw = (torch.rand((b, 5), generator=generator) * 2.0 - 1.0).to(device)
    gain = (1.0 + brightness * draw[:, :1]) * (1.0 + colour * draw[:, 1:4])
    offset = 0.5 * brightness * 255.0 * draw[:, 4:]
    return (shifted * gain[:, None, None] + offset[:, None, None]).clamp_(0.0, 255.0)


class Mirror:
    """Left-right symmetry of a robot's samples: a demonstration seen in a mirror is a demonstration."""

    def __init__(self, robot: Robot) -> None:
        index, sign = robot.mirror()
        joints, first_arm = len(index), robot.n_lmo
        rest = np.arange(2 * joints, 2 * joints + 10)  # gravity, gyroscope, last command
        self._state = np.concatenate([index, joints + index, rest])
        self._state_sign = np.concatenate([sign, sign, [1, -1, 1], [-1, 1, -1], [1, -1, -1, 1]]).astype(np.float32)
        arms = slice(first_arm, first_arm + N_ARM)
        self._action = np.arange(20)
        self._action[:N_ARM] = index[arms] - first_arm
        self._action[GRIPPER] = self._action[GRIPPER][::-1].copy()
        self._action_sign = np.ones(20, np.float32)
        self._action_sign[:N_ARM], self._action_sign[FLAGS] = sign[arms], (1, -1, -1)

    def __call__(
        self, images_BHWC: np.ndarray, state_BS: np.ndarray, actions_BTA: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return images, `observation.state` and actions as the mirror shows them."""
        state = state_BS[:, self._state] * self._state_sign
        return images_BHWC[:, :, ::-1], state, actions_BTA[..., self._action] * self._action_sign
