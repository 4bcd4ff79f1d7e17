"""The action decoder. In: hidden image and code tokens, the robot's state. Out: a chunk of whole-body actions.

Shape letters: B batch, T chunk steps, S state, D width, K pooling queries. Arms and height are regressed in normalised
units, each flag is a choice of three. The state is hidden at random in training (see VlaConfig.state_dropout).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.types import N_STATE_COMMAND
from wbvla.vla.config import VlaConfig

N_POOL = 4
N_REGRESSED = 17  # 14 arm joints, 2 grippers, height


class Chunk(NamedTuple):
    """Normalised arms, grippers and height (B, T, 17); flag logits (B, T, 3, 3) for -1, 0, 1."""

    values: Tensor
    flag_logits: Tensor


class ChunkDecoder(nn.Module):
    """Attention pooling over the trunk's tokens, joined with the state, to all steps of a chunk at once."""

    def __init__(self, config: VlaConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.pool_queries = nn.Parameter(0.02 * torch.randn(N_POOL, d))
        self.code_mark = nn.Parameter(0.02 * torch.randn(d))
        self.key_value = nn.Linear(d, 2 * d)
        self.state_in, self.state_out = nn.Linear(config.state_dim + 1, d), nn.Linear(d, d)
        self.no_state = nn.Parameter(torch.zeros(d))
        self.hidden = nn.Linear((N_POOL + 1) * d, 3 * d)
        self.hidden_norm = nn.LayerNorm(3 * d)
        self.out = nn.Linear(3 * d, config.chunk_steps * (N_REGRESSED + 9))
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, image_BPD: Tensor, code_BCD: Tensor, state_BS: Tensor, generator: torch.Generator | None = None
    ) -> Chunk:
        """Decode one chunk per sample from normalised states; hides state parts when in training mode."""
        pooled = self._pool(torch.cat([image_BPD, code_BCD + self.code_mark], dim=1))
        x = torch.cat([pooled, self._embed_state(state_BS, generator)], dim=1)
        out = self.out(self.hidden_norm(F.gelu(self.hidden(x))))
        out = out.view(len(out), self.config.chunk_steps, N_REGRESSED + 9)
        return Chunk(out[..., :N_REGRESSED], out[..., N_REGRESSED:].unflatten(-1, (3, 3)))

    def _pool(self, tokens_BTD: Tensor) -> Tensor:
        """Let K queries attend to all tokens, one head per 32 channels; (B, K D)."""
        b, t, d = tokens_BTD.shape
        heads = self.config.heads
        key, value = self.key_value(tokens_BTD).view(b, t, 2, heads, d // heads).permute(2, 0, 3, 1, 4)
        query = self.pool_queries.view(N_POOL, heads, d // heads).transpose(0, 1).expand(b, -1, -1, -1)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(b, N_POOL * d)

    def _embed_state(self, state_BS: Tensor, generator: torch.Generator | None) -> Tensor:
        config, b = self.config, len(state_BS)
        body, command = state_BS[:, :-N_STATE_COMMAND], state_BS[:, -N_STATE_COMMAND:]
        hide_command = torch.full((b, 1), config.command_dropout >= 1.0, device=state_BS.device)
        hide_all = torch.zeros_like(hide_command)
        if self.training:
            noise = torch.randn(body.shape, generator=generator).to(body)
            body = body + config.state_noise * noise
            draw = torch.rand((b, 2), generator=generator).to(body)
            hide_all, hide_command = draw[:, :1] < config.state_dropout, draw[:, 1:] < config.command_dropout
        shown = (~hide_command).to(body)
        x = self.state_out(F.gelu(self.state_in(torch.cat([body, command * shown, shown], dim=1))))
        return torch.where(hide_all, self.no_state, x)
