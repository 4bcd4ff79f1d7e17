"""Batches of several robots. In: images by camera name, batches of single robots. Out: what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wbvla.xvla.config import Domain


def arrange_views(domain: Domain, images: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return images (B, V, H, W, 3) in the robot's order of cameras and (B, V) bool: which of them are there.

    Args:
        images: (B, H, W, 3) by camera name; a camera that is left out counts as missing.
    Raises:
        ValueError: a camera that the robot does not have, images of different shapes, or none at all.
    """
    unknown = sorted(images.keys() - set(domain.cameras))
    if unknown or not images:
        what = f"unknown camera {', '.join(unknown)}" if unknown else "no camera"
        raise ValueError(f"images: got {what}, expected one or more of {', '.join(domain.cameras)}; rename them")
    shapes = {tuple(image.shape) for image in images.values()}
    if len(shapes) > 1:
        raise ValueError(f"images: got shapes {sorted(shapes)}, expected the same of every camera; scale them first")
    blank = torch.zeros_like(next(iter(images.values())))
    there = torch.tensor([name in images for name in domain.cameras], device=blank.device)
    stacked = torch.stack([images.get(name, blank) for name in domain.cameras], dim=1)
    return stacked, there.expand(len(blank), -1)


def mix(batches: Sequence[dict[str, Any]], pad_token: int) -> dict[str, Any]:
    """Join batches of different robots: sentences, views, states and actions are padded to the longest.

    Args:
        pad_token: of the tokenizer, `model.vlm.pad_token`.
    Raises:
        ValueError: some batches have actions and others do not.
    """
    keys = set().union(*batches) - {"views", "padded"}
    for key in keys:
        if any(key not in batch for batch in batches):
            raise ValueError(f"mix: {key!r} is in some batches only, expected it in all")
    mixed: dict[str, Any] = {"domains": [d for batch in batches for d in batch["domains"]]}
    views = [batch.get("views", torch.ones(batch["images"].shape[:2], dtype=torch.bool)) for batch in batches]
    mixed["views"] = _join(views, 1, False)
    mixed["images"] = _join([batch["images"] for batch in batches], 1, 0)
    mixed["tokens"] = _join([batch["tokens"] for batch in batches], 1, pad_token)
    mixed["state"] = _join([batch["state"] for batch in batches], 1, 0.0)
    if "actions" in keys:
        mixed["actions"] = _join([batch["actions"] for batch in batches], 2, 0.0)
        shapes = [batch["actions"].shape[:2] for batch in batches]
        padded = [batch.get("padded", torch.zeros(s, dtype=torch.bool)) for batch, s in zip(batches, shapes)]
        mixed["padded"] = torch.cat(padded)
    return mixed


def _join(tensors: Sequence[Tensor], dim: int, value: float) -> Tensor:
    """Concatenate over samples after padding dimension `dim` at its end."""
    longest = max(tensor.shape[dim] for tensor in tensors)
    behind = [0, 0] * (tensors[0].ndim - dim - 1)
    return torch.cat([F.pad(t, (*behind, 0, longest - t.shape[dim]), value=value) for t in tensors])


def squash(images: Tensor, size: int) -> Tensor:
    """Scale images (B, H, W, 3) of 0..255 to (B, size, size, 3) without regard to proportions, as X-VLA was trained."""
    if images.shape[1:3] == (size, size):
        return images
    scaled = F.interpolate(images.permute(0, 3, 1, 2).float(), (size, size), mode="bicubic", antialias=True)
    return scaled.clamp(0, 255).permute(0, 2, 3, 1)
