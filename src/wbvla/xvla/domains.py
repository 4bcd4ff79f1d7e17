"""What belongs to one robot: its soft prompt, its action layers, its action space and statistics.

In: noisy actions, state and flow time of samples of one robot. Out: tokens, and predictions from tokens.
Every robot has layers of its own widths, so nothing is padded, and adding, freezing or exchanging one never touches
another. Released weights keep all robots in tables of one width; wbvla.xvla.released converts. Input columns are
ordered action, state, time, as there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wbvla.xvla.actions import STD_FLOOR, make_action_space
from wbvla.xvla.config import Domain, XvlaConfig


def embed_time(t_B: Tensor, dim: int) -> Tensor:
    """Return (B, dim) cosines then sines of flow times in [0, 1], with frequencies from 1 down to nearly 1/100."""
    half = dim // 2
    frequencies = torch.exp(-math.log(100.0) * torch.arange(half, dtype=t_B.dtype, device=t_B.device) / half)
    angles = t_B[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin(), angles.new_zeros(len(t_B), dim % 2)], dim=1)


class DomainHead(nn.Module):
    """One robot's share of the model: about 140 thousand numbers at the released size."""

    def __init__(self, domain: Domain, config: XvlaConfig) -> None:
        super().__init__()
        self.domain, self.time_dim = domain, config.time_dim
        self.space = make_action_space(domain)
        inputs = self.space.width + domain.state_dim + config.time_dim
        self.prompt = nn.Parameter(0.02 * torch.randn(config.prompt_tokens, config.hidden_size))
        self.encoder = nn.Linear(inputs, config.hidden_size)
        self.decoder = nn.Linear(config.hidden_size, self.space.width)
        for layer in (self.encoder, self.decoder):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("state_mean", torch.zeros(domain.state_dim))
        self.register_buffer("state_std", torch.ones(domain.state_dim))

    def set_state_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Take mean and standard deviation (S,) of the dataset's states. Raises ValueError if they do not fit."""
        for name, values in (("mean", mean), ("std", std)):
            vector = torch.as_tensor(values, dtype=torch.float32).flatten()
            if len(vector) != self.domain.state_dim or not vector.isfinite().all():
                raise ValueError(
                    f"state {name}: got {len(vector)} numbers, expected {self.domain.state_dim} finite ones"
                )
            getattr(self, f"state_{name}").copy_(vector.clamp_min(STD_FLOOR) if name == "std" else vector)

    @property
    def reads_units(self) -> bool:
        """Whether there are no statistics: the layers know the dataset's own units, as released weights do."""
        centred = any((mean != 0).any() for mean in (self.space.mean, self.state_mean))
        return not centred and all((std == 1).all() for std in (self.space.std, self.state_std))

    def encode(self, noisy: Tensor, state: Tensor, t: Tensor) -> Tensor:
        """Return action tokens (B, T, H) of noisy actions (B, T, W), states (B, S) and times (B,)."""
        noisy, state = self.space.hide(noisy, (state - self.state_mean) / self.state_std)
        beside = torch.cat([state, embed_time(t, self.time_dim)], dim=1)
        return self.encoder(torch.cat([noisy, beside.unsqueeze(1).expand(-1, noisy.shape[1], -1)], dim=-1))

    def fits(self, other: DomainHead) -> bool:
        """Whether this robot can start from another one's layers, not only from its prompt."""
        state_fits = self._by_name(other) or self.domain.state_dim >= other.domain.state_dim
        return state_fits and self.domain.action == other.domain.action and self.space.width >= other.space.width

    def _by_name(self, other: DomainHead) -> bool:
        return bool(self.domain.state_names and other.domain.state_names)

    @torch.no_grad()
    def copy_layers(self, other: DomainHead) -> None:
        """Start from another robot's action layers; the prompt stays.

        Its action entries come first in ours. State entries go by their names where both robots have them, else its
        come first too. What only this robot has starts without influence: the same inputs give the same answers.

        Raises:
            ValueError: the other robot's layers do not fit.
        """
        if not self.fits(other):
            raise ValueError(f"copy a head: got {self.domain}, expected as many entries at least as in {other.domain}")
        ours, theirs = (head._columns(self._by_name(other)) for head in (self, other))
        shared = [key for key in ours if key in theirs]
        self.encoder.weight.zero_()
        self.encoder.weight[:, [ours[key] for key in shared]] = other.encoder.weight[:, [theirs[key] for key in shared]]
        self.encoder.bias.copy_(other.encoder.bias)
        self.decoder.weight.zero_()
        self.decoder.bias.zero_()
        self.decoder.weight[: other.space.width] = other.decoder.weight
        self.decoder.bias[: other.space.width] = other.decoder.bias

    def _columns(self, by_name: bool) -> dict[tuple[str, int | str], int]:
        """Return what each input column is of: action, state or time, and its place there or its name."""
        states = self.domain.state_names if by_name else range(self.domain.state_dim)
        parts = {"action": range(self.space.width), "state": states, "time": range(self.time_dim)}
        return {key: i for i, key in enumerate((part, entry) for part, entries in parts.items() for entry in entries)}
