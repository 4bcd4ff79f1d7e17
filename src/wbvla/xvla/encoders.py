"""What X-VLA sees and hears with. In: its configuration. Out: Florence-2, or the WholeBodyVLA policy's trunk.

Shape letters: B batch, V views, L words, P tokens per view, C code queries, D encoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wbvla.vla.config import VlaConfig
from wbvla.vla.text import MAX_WORDS, N_ROWS
from wbvla.vla.trunk import TinyTrunk
from wbvla.xvla.config import XvlaConfig
from wbvla.xvla.florence import FlorenceEncoder, Seen, check_images, see_views


def make_encoder(config: XvlaConfig) -> FlorenceEncoder | TrunkEncoder:
    """Build the encoder that a configuration names. Raises ValueError if it does not fit."""
    return TrunkEncoder(config) if config.trunk else FlorenceEncoder(config)


class TrunkEncoder(nn.Module):
    """The trunk reads the sentence with every view; its code queries summarise the first one."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        shape = VlaConfig.from_dict(config.trunk)
        if (shape.image_size, config.tokenizer) != (config.image_size, "words"):
            raise ValueError(
                f"trunk: got images of {config.image_size} px and tokenizer {config.tokenizer!r}, "
                f"expected {shape.image_size} px and 'words'"
            )
        self.trunk = TinyTrunk(shape)
        self.width, self.size, self.mask_padding = shape.width, config.image_size, config.mask_padding
        self.pad_token, self.vocabulary = 0, N_ROWS

    def forward(self, images: Tensor, views: Tensor | None, tokens: Tensor) -> Seen:
        """Encode as FlorenceEncoder does. Raises ValueError if a shape does not fit or not one view is there."""
        views = check_images(images, views, self.size)
        if tokens.shape[1] > MAX_WORDS:
            raise ValueError(f"sentence: got {tokens.shape[1]} tokens, expected at most {MAX_WORDS}; shorten it")
        words = nn.functional.pad(tokens, (0, MAX_WORDS - tokens.shape[1]))
        heard = words[:, None].expand(-1, views.shape[1], -1)[views]
        features = see_views(images, views, lambda there: torch.cat(self.trunk(there, heard), dim=1))
        seen = views.unsqueeze(-1).expand(*views.shape, features.shape[2])
        if not self.mask_padding:
            seen = torch.ones_like(seen)
        return Seen(features[:, 0], features[:, 1:].flatten(1, 2), seen[:, 0], seen[:, 1:].flatten(1))
