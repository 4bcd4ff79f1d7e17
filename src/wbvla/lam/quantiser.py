"""Vector quantiser of a latent action model. In: query outputs z (B, N, D). Out: codes, indices, loss and usage.

Nearest code, plain straight-through gradient, and the two terms of the loss in van den Oord's orientation, as UniVLA's
code has them:

    1.00 * |sg[z] - c|^2   moves the codebook
    0.25 * |z - sg[c]|^2   commits the encoder
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantiser(nn.Module):
    """One small codebook shared by all code positions, with restarts of dead codes.

    Attributes:
        codebook: (K, D), the codes.
        usage: (K,) how often each code was chosen in training since the last restart check.
    """

    def __init__(self, codebook_size: int, code_dim: int, codebook_weight: float, commitment_weight: float) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.codebook = nn.Parameter(torch.empty(codebook_size, code_dim))
        nn.init.kaiming_uniform_(self.codebook[None])  # as small as vector-quantize-pytorch's: (6 / K / D) ** 0.5
        self.register_buffer("usage", torch.zeros(codebook_size, dtype=torch.int64))

    def forward(self, z_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return straight-through codes (B, N, D), indices (B, N) int64 and the weighted codebook loss."""
        indices = self.nearest(z_BND)
        chosen = self.decode(indices)
        codes = z_BND + (chosen - z_BND).detach()
        loss = self.codebook_weight * F.mse_loss(chosen, z_BND.detach())
        loss = loss + self.commitment_weight * F.mse_loss(z_BND, chosen.detach())
        if self.training:
            self.usage += torch.bincount(indices.flatten(), minlength=self.codebook_size)
        return codes, indices, loss

    def nearest(self, z_BND: Tensor) -> Tensor:
        """Return the indices (B, N) int64 of the codes that are nearest."""
        return torch.cdist(z_BND, self.codebook.expand(len(z_BND), -1, -1)).argmin(-1)

    def decode(self, indices_BN: Tensor) -> Tensor:
        """Look up the codes (B, N, D) of some indices."""
        return self.codebook[indices_BN]

    @torch.no_grad()
    def restart_dead(self, z_BND: Tensor, min_share: float, generator: torch.Generator) -> int:
        """Move codes that were chosen less than `min_share` / K of the time onto encoder outputs; start counting anew.

        Args:
            z_BND: encoder outputs to draw the new codes from.
            min_share: fraction of the uniform share 1 / K below which a code counts as dead.
            generator: source of the draw.
        Returns:
            the number of codes moved.
        """
        total = int(self.usage.sum())
        dead = self.usage.double() < min_share * total / self.codebook_size
        n = int(dead.sum())
        if n:
            z = z_BND.flatten(0, -2)
            rows = torch.randint(len(z), (n,), generator=generator)
            self.codebook[dead] = z[rows].to(self.codebook.dtype)
        self.usage.zero_()
        return n


def usage_metrics(indices: np.ndarray, codebook_size: int) -> dict[str, float]:
    """Measure how a codebook is used.

    Args:
        indices: any shape, integers in [0, K); negative entries (no code) are left out.
        codebook_size: K.
    Returns:
        utilisation: fraction of codes chosen at least once; dead_codes: the number never chosen; perplexity:
        exp(entropy) of the histogram, K for even use and 1 for a single code.
    """
    indices = np.asarray(indices).reshape(-1)
    counts = np.bincount(indices[indices >= 0], minlength=codebook_size).astype(np.float64)
    if len(counts) != codebook_size:
        raise ValueError(f"codes: got index {len(counts) - 1}, expected less than the codebook size {codebook_size}")
    used = int((counts > 0).sum())
    share = counts[counts > 0] / max(counts.sum(), 1.0)
    return {
        "utilisation": used / codebook_size,
        "perplexity": float(np.exp(-(share * np.log(share)).sum())),
        "dead_codes": codebook_size - used,
    }
