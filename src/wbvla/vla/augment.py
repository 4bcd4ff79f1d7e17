"""Image augmentation for training. In: uint8 head images. Out: the same shape in float, shifted and recoloured.

Shifts move the picture by a pixel with replicated borders (about the error of a head mount; more would hide from a
walking robot which way it faces); brightness and colour
change as lamps and white balance do. No flips and no rotations: left and right mean something to a walking robot.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
