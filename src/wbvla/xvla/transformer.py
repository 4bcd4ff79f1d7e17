"""The soft-prompted transformer. In: action tokens and context tokens. Out: hidden states of the action tokens.

Shape letters: B batch, T action tokens, N context tokens (sentence with first view, other views, soft prompt), H width,
K keys. Masks are True where a key may be seen. Module names are those of the released weights (X-VLA, section 3), less
the tables of domains, which live in wbvla.xvla.domains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.xvla.config import XvlaConfig

Cache = list[tuple[Tensor, Tensor]]


class Linear(nn.Linear):
    """A linear layer that takes few rows, as a chunk of actions has, a quarter faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn (..., in) into (..., out)."""
        if x.is_cuda or torch.is_grad_enabled() or x.numel() > 64 * x.shape[-1]:
            return super().forward(x)
        # the larger matrix on the left: that way multiplication libraries need not rearrange it for every call
        return torch.addmm(self.bias.unsqueeze(1), self.weight, x.flatten(0, -2).T).T.unflatten(0, x.shape[:-1])


class Attention(nn.Module):
    """Multi-head attention of some tokens to themselves and to keys and values computed earlier."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x_BTH: Tensor, updated: int, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what the first `updated` tokens read, and the keys and values of all given tokens."""
        q, k, v = self.qkv(x_BTH).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        own = k, v
        if past is not None:
            k, v = torch.cat([k, past[0]], dim=2), torch.cat([v, past[1]], dim=2)
        dropout = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(q[:, :, :updated], k, v, attn_mask=mask, dropout_p=dropout)
        return self.proj(read.transpose(1, 2).flatten(2)), own


class Mlp(nn.Module):
    """Two layers with a tanh-approximated GELU."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1, self.fc2 = Linear(config.hidden_size, inner), Linear(inner, config.hidden_size)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x), approximate="tanh"))))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.attn, self.mlp = Attention(config), Mlp(config)

    def forward(
        self,
        x_BTH: Tensor,
        updated: int,
        mask: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the first `updated` tokens' new states, and the keys and values of all given tokens.

        Args:
            mask: (B, 1, 1 or updated, K) bool over the given tokens, then those of `past`; None = see everything.
            past: keys and values (B, heads, P, H / heads) of tokens that came before.
        """
        read, own = self.attn(self.norm1(x_BTH), updated, mask, past)
        x = x_BTH[:, :updated] + read
        return x + self.mlp(self.norm2(x)), own


class PromptedTransformer(nn.Module):
    """Blocks, learned positions and the projections of what the vision-language encoder says."""

    def __init__(self, config: XvlaConfig, encoder_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.vlm_proj = nn.Linear(encoder_width, config.hidden_size)
        self.aux_visual_proj = nn.Linear(encoder_width, config.hidden_size)
        self.pos_emb = nn.Parameter(0.02 * torch.randn(1, config.max_tokens, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed_context(self, primary: Tensor, others: Tensor, prompts: Tensor, n_actions: int) -> Tensor:
        """Return the context tokens (B, N, H): projected, at their places behind the actions; prompts have no place.

        Raises:
            ValueError: more tokens than learned positions.
        """
        context = torch.cat([self.vlm_proj(primary), self.aux_visual_proj(others)], dim=1)
        total = n_actions + context.shape[1]
        if total > self.pos_emb.shape[1]:
            raise ValueError(f"{total} tokens, expected at most {self.pos_emb.shape[1]}: use fewer or smaller images")
        return torch.cat([context + self.pos_emb[:, n_actions:total], prompts], dim=1)

    def forward(self, actions_BTH: Tensor, context_BNH: Tensor, mask: Tensor | None) -> Tensor:
        """Let actions and context see each other (released weights); return the actions' states (B, T, H).

        Args:
            mask: (B, 1, 1, T + N) bool, actions first.
        """
        n = actions_BTH.shape[1]
        x = torch.cat([actions_BTH + self.pos_emb[:, :n], context_BNH], dim=1)
        for block in self.blocks[:-1]:
            x, _ = block(x, x.shape[1], mask)
        # nobody reads the context after the last block
        return self.norm(self.blocks[-1](x, n, mask)[0])

    def read_context(self, context_BNH: Tensor, mask: Tensor | None) -> Cache:
        """Return each block's keys and values of a context that cannot see the actions; mask (B, 1, 1, N)."""
        cache, x = [], context_BNH
        for block in self.blocks:
            last = block is self.blocks[-1]  # nobody reads the context after it
            x, own = block(x, 0 if last else x.shape[1], mask)
            cache.append(own)
        return cache

    def read_actions(self, actions_BTH: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        """Return the states (B, T, H) of actions that see each other and a cached context; mask (B, 1, 1, T + N)."""
        n = actions_BTH.shape[1]
        x = actions_BTH + self.pos_emb[:, :n]
        for block, past in zip(self.blocks, cache):
            x, _ = block(x, n, mask, past)
        return self.norm(x)
