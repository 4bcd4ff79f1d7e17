"""Frozen features. In: uint8 frames. Out: a grid of patch features, (P, F) a frame, cached on disk.

At `tiny` size there is no pretrained encoder to download, so the encoder is fitted to the same videos: the principal
components of their patches, the best linear autoencoder of its width, in closed form. A convolutional autoencoder
trained for 300 steps took 14 s of CPU instead of 2 and its codes told eight camera motions apart no better (25 % of
held-out pairs against 37 %, one seed each).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.data.cache import cached
from wbvla.data.progress import Progress
from wbvla.lam.config import FeatureConfig

# Component i is divided by (variance_i)^(1/4): halfway between raw components, in which brightness drowns motion, and
# whitened ones, in which noise does.
_WHITENING = 0.25
_FIT_FRAMES = 512
_BATCH = 256


class PatchEncoder(nn.Module):
    """Project each square patch of an image on fixed directions.

    Attributes:
        weight: (F, 3, patch_px, patch_px) directions, scaled; bias: (F,).
    """

    def __init__(self, cfg: FeatureConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("weight", torch.zeros(cfg.dim, 3, cfg.patch_px, cfg.patch_px))
        self.register_buffer("bias", torch.zeros(cfg.dim))

    @torch.no_grad()
    def forward(self, images: Tensor | np.ndarray) -> Tensor:
        """Turn (B, H, W, 3) uint8 images into (B, P, F) float32 features, patches in row-major order."""
        side = self.cfg.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (side, side, 3) or "uint8" not in str(images.dtype):
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images: got {got}, expected uint8 (B, {side}, {side}, 3); resize and crop them first")
        pixels = torch.as_tensor(images if isinstance(images, Tensor) else np.array(images))
        pixels = pixels.permute(0, 3, 1, 2).float() / 255.0
        return F.conv2d(pixels, self.weight, self.bias, stride=self.cfg.patch_px).flatten(2).transpose(1, 2)


def fit_encoder(frames: np.ndarray, cfg: FeatureConfig, seed: int) -> PatchEncoder:
    """Fit an encoder to some frames: scaled principal components of their patches.

    Args:
        frames: (N, H, W, 3) uint8, any number; up to 512 of them are drawn with `seed`.
    Returns:
        an encoder whose features have zero mean and unit mean square on these frames.
    """
    rng = np.random.default_rng((seed, 1))
    rows = np.sort(rng.permutation(len(frames))[:_FIT_FRAMES])
    x = _patches(frames[rows], cfg.patch_px)
    mean = x.mean(0)
    variance, direction = np.linalg.eigh(np.cov(x.T).astype(np.float64))
    variance, direction = variance[::-1][: cfg.dim], direction[:, ::-1][:, : cfg.dim]
    variance = np.maximum(variance, 1e-6 * max(variance[0], 1e-9))  # flat videos have fewer directions than features
    direction = direction * np.sign(direction[np.abs(direction).argmax(0), np.arange(cfg.dim)])  # unique up to here
    direction = direction * variance**-_WHITENING / np.sqrt((variance ** (1 - 2 * _WHITENING)).mean())
    encoder = PatchEncoder(cfg)
    encoder.weight.copy_(torch.from_numpy(direction.T.reshape(encoder.weight.shape).copy()))
    encoder.bias.copy_(torch.from_numpy(-(mean @ direction)))
    return encoder


def feature_cache(encoder: PatchEncoder, encoder_id: str, frames: np.ndarray, source: str, folder: Path) -> np.ndarray:
    """Return the features of all frames, (N, P, F) float16, memory-mapped; computed once for encoder and frames.

    Args:
        encoder_id: names the encoder's weights; source: fingerprint of the frames.
        folder: where the cache lives.
    """
    shape = (len(frames), encoder.cfg.grid**2, encoder.cfg.dim)

    def build(out: Path) -> dict:
        array = np.memmap(out / "features.f16", np.float16, "w+", shape=shape)
        progress = Progress("features", len(frames), "frames")
        for start in range(0, len(frames), _BATCH):
            stop = min(start + _BATCH, len(frames))
            array[start:stop] = encoder(frames[start:stop]).numpy()
            progress.advance(stop - start)
        array.flush()
        progress.close()
        return {"frames": len(frames)}

    cached(folder, f"features v1 {encoder_id} {source}", build)
    return np.memmap(folder / "features.f16", np.float16, "r", shape=shape)


def _patches(frames: np.ndarray, patch_px: int) -> np.ndarray:
    """Cut frames (B, H, W, 3) into rows (B * P, 3 * patch_px * patch_px) in the order of the encoder's weights."""
    b, h, w, _ = frames.shape
    cut = frames.reshape(b, h // patch_px, patch_px, w // patch_px, patch_px, 3).transpose(0, 1, 3, 5, 2, 4)
    return cut.reshape(-1, 3 * patch_px * patch_px).astype(np.float32) / 255.0
