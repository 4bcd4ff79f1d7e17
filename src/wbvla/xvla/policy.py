"""A trained X-VLA in closed loop. In: observations of a humanoid. Out: chunks of whole-body actions."""

from __future__ import annotations

import numpy as np
import torch

from wbvla.types import Observation
from wbvla.xvla.batches import arrange_views, squash
from wbvla.xvla.model import Xvla
from wbvla.xvla.tokens import make_tokenizer


class XvlaPolicy:
    """Answers one observation at a time for one robot; the same observation gives the same answer.

    Args:
        model: in evaluation mode.
        domain: the robot's name or id in the model.
        steps: passes through the network for a chunk.
    Raises:
        ValueError: the model does not know the robot.
    """

    def __init__(self, model: Xvla, domain: str | int, steps: int = 5) -> None:
        self.model, self.steps = model, steps
        self.name = model.resolve(domain)
        self.domain = model.config.domains[self.name]
        config = model.config
        self.image_size = config.image_size
        self._tokenize = make_tokenizer(config.tokenizer, config.text_tokens, model.vlm.vocabulary, model.vlm.pad_token)

    def reset(self, seed: int) -> None:
        """Begin an episode; the noise that answers start from follows from the seed."""
        self._generator = torch.Generator().manual_seed(seed)

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return {"chunk": (T, A) float32}. Raises ValueError if image or state are not this robot's."""
        image = torch.from_numpy(np.array(observation.image)).unsqueeze(0)
        device = self.model.transformer.pos_emb.device
        images, views = arrange_views(self.domain, {self.domain.cameras[0]: squash(image, self.image_size)})
        batch = {
            "images": images.to(device),
            "views": views.to(device),
            "tokens": self._tokenize([observation.task]).to(device),
            "state": torch.from_numpy(np.array(observation.state, np.float32)).unsqueeze(0).to(device),
            "domains": [self.name],
        }
        chunk = self.model.sample(batch, self.steps, generator=self._generator)
        return {"chunk": chunk[0].float().cpu().numpy()}
