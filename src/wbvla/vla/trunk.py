"""The `tiny` trunk. In: head images and tokens. Out: hidden states of image tokens and of the code queries.

Shape letters: B batch, N tokens of the picture (image_size / 16, squared), P = N + 1 image tokens, W words, C code
queries, D width, H heads.
Sized for one CPU core: three strided convolutions leave 36 tokens at 96 px, and a short transformer mixes them with one
text token and the queries. The last image token is a dense read-out of the others: where an edge lies to a fraction of
a token is a sum over tokens, which attention learns late. There is no dropout anywhere, so that a resumed run equals a
straight one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.vla.config import VlaConfig
from wbvla.vla.text import MAX_WORDS, N_ROWS


class Block(nn.Module):
    """A pre-norm transformer block with a feed-forward layer of twice the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x_BTD: Tensor, updated: int) -> Tensor:
        """Let the last `updated` tokens attend to all tokens; return the new state of those, (B, updated, D)."""
        b, t, d = x_BTD.shape
        normed = self.norm_attention(x_BTD)
        query, key_value = self.query(normed[:, -updated:]), self.key_value(normed)
        q = query.view(b, updated, self.heads, -1).transpose(1, 2)
        k, v = key_value.view(b, t, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, updated, d)
        x = x_BTD[:, -updated:] + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class ConvStem(nn.Module):
    """Pixels to tokens: 4x4 patches, then two strided 3x3 convolutions, 16 px per token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.middle = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.last = nn.Conv2d(64, width, 3, stride=2, padding=1)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return (B, N, D), N tokens of 16 x 16 px each, for pixels scaled to about [-1, 1]."""
        x = F.gelu(self.middle(F.gelu(self.patch(pixels_BCHW))))
        return self.last(x).flatten(2).transpose(1, 2)


class ReadOut(nn.Module):
    """All image tokens, narrowed, to one more token by a dense layer."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.narrow, self.out = nn.Linear(width, 16), nn.Linear(16 * tokens, width)

    def forward(self, image_BND: Tensor) -> Tensor:
        """Return (B, 1, D)."""
        return self.out(F.gelu(self.narrow(image_BND)).flatten(1)).unsqueeze(1)


class TextEncoder(nn.Module):
    """Hashed words and their positions to one token of the trunk's width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(N_ROWS, 64)
        self.positions = nn.Parameter(0.02 * torch.randn(MAX_WORDS, 64))
        self.up, self.out = nn.Linear(64, width), nn.Linear(width, width)

    def forward(self, tokens_BW: Tensor) -> Tensor:
        """Return (B, 1, D); padding (token 0) has no influence."""
        there_BW1 = (tokens_BW > 0).unsqueeze(-1).float()
        x = F.gelu(self.up(self.words(tokens_BW) + self.positions)) * there_BW1
        return self.out(x.sum(1, keepdim=True) / there_BW1.sum(1, keepdim=True).clamp_min(1.0))


class TinyTrunk(nn.Module):
    """Image, text and learned query tokens in one forward pass."""

    def __init__(self, config: VlaConfig) -> None:
        super().__init__()
        d = config.width
        n_stem = (config.image_size // 16) ** 2
        self.n_image = n_stem + 1
        self.stem, self.read_out, self.text = ConvStem(d), ReadOut(n_stem, d), TextEncoder(d)
        self.image_positions = nn.Parameter(0.02 * torch.randn(n_stem, d))
        self.queries = nn.Parameter(0.02 * torch.randn(config.n_codes, d))
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, images_BHWC: Tensor, tokens_BW: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden image tokens (B, P, D) and code tokens (B, C, D), mani queries first.

        Args:
            images_BHWC: RGB, pixel values 0..255, any dtype.
            tokens_BW: from wbvla.vla.text.tokenize.
        """
        pixels = images_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        image = self.stem(pixels) + self.image_positions
        queries = self.queries.expand(len(image), -1, -1)
        x = torch.cat([image, self.read_out(image), self.text(tokens_BW), queries], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, x.shape[1])
        # the last block refreshes the queries only: the image tokens cost most of the time and have been mixed
        codes = self.blocks[-1](x, queries.shape[1])
        return self.norm(x[:, : self.n_image]), self.norm(codes)
