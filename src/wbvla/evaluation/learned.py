"""Trained policies in closed loop. In: a checkpoint folder. Out: a policy that answers observations.

A folder holds a VLA or an X-VLA; PyTorch is imported when one is opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wbvla.types import Observation


class Learned:
    """A VLA checkpoint in closed loop.

    Args:
        checkpoint: folder of `wbvla vla finetune`.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        from wbvla.vla.policy import VlaPolicy

        self._policy = VlaPolicy(checkpoint)
        self.model, self.image_size = self._policy.model, self._policy.config.image_size

    def reset(self, seed: int) -> None:
        """Nothing to forget: the policy sees one observation at a time."""

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return the policy's chunk."""
        return self._policy.infer(observation.image, observation.state, observation.task)


class Blind:
    """A learned policy whose every image is black."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.image_size = policy, policy.image_size

    def reset(self, seed: int) -> None:
        """Begin the policy's episode."""
        self._policy.reset(seed)

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return the policy's chunk."""
        return self._policy.infer(replace(observation, image=np.zeros_like(observation.image)))


def load_learned(checkpoint: str | Path, robot: str, steps: int | None = None, device: str = "cpu") -> Any:
    """Open a VLA or an X-VLA for a robot. Raises ValueError, FileNotFoundError: foreign, damaged, for other robots."""
    from wbvla.device import get_device
    from wbvla.xvla.checkpoint import is_xvla, load_model

    if is_xvla(checkpoint):
        from wbvla.xvla.policy import for_tasks

        place = get_device(device)  # before the weights are read
        return for_tasks(load_model(checkpoint).to(place), robot, **({} if steps is None else {"steps": steps}))
    refuse_xvla_flags(str(checkpoint), steps, device)
    return Learned(checkpoint)


def refuse_xvla_flags(policy: str, steps: int | None, device: str) -> None:
    """Raise ValueError if something else than an X-VLA is given what only an X-VLA takes."""
    for flag, got, default in (("steps", steps, None), ("device", device, "cpu")):
        if got != default:
            raise ValueError(f"{flag}: got {got!r}, but {policy} is no X-VLA; leave --{flag} out")


def redraw_weights(model: Any, seed: int) -> None:
    """Draw every parameter of a torch module anew: as its class does, bare parameters and embeddings N(0, 0.02)."""
    import torch

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                parameter.normal_(0.0, 0.02)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    torch.random.set_rng_state(state)
