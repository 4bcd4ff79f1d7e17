"""Real-time chunking: a new chunk that continues the one which is being played.

In: the rest of the previous chunk, a weight per step. Out: predictions pulled towards it while they are denoised.
LeRobot's RTCProcessor (0.6.1; after Black et al. 2025) changes a velocity v at flow time t (1 = noise) to

    v - w W (previous - (x - t v)),  w = min((t^2 + (1 - t)^2) / (t (1 - t)), max_weight),

W being the weights of the steps. In terms of the predicted clean action c = x - t v that is c + t w W (previous - c),
which serves both objectives. What differs is how x is made of c, and so how large w may be before a step carries x
past the previous chunk: Euler's method adds t w / i of the difference in step i of N (t = i / N), so w <= N; X-VLA's
sampler mixes noise and c anew, c with the share 1 - (i - 1) / N. Only values are pulled: logits are predicted anew in
every step, there is nothing to denoise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wbvla.xvla.actions import ActionSpace


@dataclass(frozen=True)
class Previous:
    """The rest of the chunk that is being played.

    Attributes:
        actions: (B, P, A) in the dataset's units; the first belongs to the first step of the new chunk, P <= T.
        weights: (T,) in [0, 1]: how strongly each step of the new chunk should follow; 0 beyond P.
        frozen: steps that will have been played when the new chunk arrives: it repeats them.
        max_weight: bound of the guidance, "max_guidance_weight" in LeRobot.
    """

    actions: Tensor
    weights: Tensor
    frozen: int
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        steps = self.actions.shape[1] if self.actions.ndim == 3 else -1
        if not 0 <= self.frozen <= steps <= len(self.weights) or bool(self.weights[steps:].any()):
            raise ValueError(
                f"previous chunk: got actions {tuple(self.actions.shape)}, {len(self.weights)} weights and "
                f"{self.frozen} frozen steps, expected (B, P, A), weights only of those P steps, and at most P frozen"
            )


def guidance_weight(t: float, max_weight: float) -> float:
    """Return w at flow time t in (0, 1]; it grows without bound towards both ends."""
    rest = t * (1 - t)
    return min((t**2 + (1 - t) ** 2) / rest, max_weight) if rest > 0 else max_weight


def largest_weight(objective: str, i: int, steps: int) -> float:
    """Return the w at which step i of `steps`, counted down, moves x by the whole difference to the previous chunk."""
    return steps if objective == "velocity" else steps**2 / (i * (steps - i + 1))


def pull(clean: Tensor, target: Tensor, weights: Tensor, t: float, max_weight: float) -> Tensor:
    """Move predicted clean actions (B, T, W) towards a target of the same shape; weights (B, T, W) in [0, 1]."""
    return clean + t * guidance_weight(t, max_weight) * weights * (target - clean)


def value_slots(space: ActionSpace) -> Tensor:
    """Return (W,) bool: the slots that hold values, not logits or unused width."""
    slots = torch.zeros(space.width, dtype=torch.bool, device=space.flows.device)
    slots[[slot for part in space.parts if part.kind == "value" for slot in part.slots]] = True
    return slots
