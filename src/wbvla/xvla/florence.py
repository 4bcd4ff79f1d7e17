"""Florence-2 as the eyes and ears of X-VLA. In: views and words. Out: tokens for the transformer.

Shape letters: B batch, V views, L words, P tokens per view, D encoder width. The first view is read together with the
sentence, the others bypass the language encoder (X-VLA, section 3). Built from transformers' parts; its decoder is not
needed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.xvla.config import XvlaConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Seen(NamedTuple):
    """Tokens of sentence and first view (B, P + L, D), of other views (B, (V - 1) P, D); where they are real."""

    primary: Tensor
    others: Tensor
    primary_there: Tensor
    others_there: Tensor


class FlorenceEncoder(nn.Module):
    """DaViT and its projector on every view, BART's encoder on the first view and the sentence."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        from transformers import Florence2Config, Florence2Model

        if {"vision_config", "text_config"} - config.florence.keys():
            raise ValueError("florence: got no vision_config and text_config, expected those of a Florence-2 model")
        values = copy.deepcopy(config.florence)  # transformers changes what it is given
        values["text_config"] |= {"decoder_layers": 0}  # built by transformers, used by nobody
        whole = Florence2Model(Florence2Config(**values))
        self.vision_tower, self.projector = whole.vision_tower, whole.multi_modal_projector
        for block in list(self.vision_tower.modules()):
            if hasattr(block, "window_attn"):
                block.window_attn = WindowAttention(block.window_attn)
        self.language = whole.language_model.encoder
        self.width = whole.config.vision_config.projection_dim
        self.pad_token, self.vocabulary = (
            whole.config.text_config.pad_token_id,
            self.language.embed_tokens.num_embeddings,
        )
        self.size, self.text_tokens, self.mask_padding = config.image_size, config.text_tokens, config.mask_padding
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> FlorenceEncoder:
        """Lay out the convolutions' weights as their maps come, or else every call does; optimisers want them plain."""
        self.vision_tower.to(memory_format=torch.contiguous_format if mode else torch.channels_last)
        return super().train(mode)

    def forward(self, images: Tensor, views: Tensor | None, tokens: Tensor) -> Seen:
        """Encode (B, V, size, size, 3) RGB images of 0..255, (B, V) bool views that are there, (B, L) words.

        Raises:
            ValueError: a shape does not fit, a sentence is too long, or not one view is there.
        """
        views = check_images(images, views, self.size)
        if tokens.shape[1] > self.text_tokens:
            raise ValueError(f"sentence: got {tokens.shape[1]} tokens, expected at most {self.text_tokens}; shorten it")
        words = tokens.new_full((len(images), self.text_tokens), self.pad_token)
        words[:, : tokens.shape[1]] = tokens
        features = see_views(images, views, self._see)
        heard = self.language.embed_tokens(words)
        per_view = features.shape[2]
        seen = views.unsqueeze(-1).expand(-1, -1, per_view)
        primary_there = torch.cat([seen[:, 0], words != self.pad_token], dim=1)
        if not self.mask_padding:
            primary_there, seen = torch.ones_like(primary_there), torch.ones_like(seen)
        primary = torch.cat([features[:, 0], heard], dim=1)
        read = self.language(inputs_embeds=primary, attention_mask=primary_there.long()).last_hidden_state
        return Seen(read, features[:, 1:].flatten(1, 2), primary_there, seen[:, 1:].flatten(1))

    def _see(self, there: Tensor) -> Tensor:
        """Return tokens (N, P, D) of N pictures."""
        pixels = (there.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std
        return self.projector(self.vision_tower(pixels).last_hidden_state)


class WindowAttention(nn.Module):
    """DaViT's attention within windows, the same answers for less work.

    At 224 px most maps are smaller than whole windows. transformers fills them up with zeros, projects those too and
    attends to them; what comes of a zero is the bias, so here one key stands for all of a window's zeros.

    Args:
        theirs: transformers' module, whose layers this one takes over.
    """

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.window_size, self.heads = theirs.window_size, theirs.num_heads
        self.qkv, self.proj = theirs.qkv, theirs.proj

    def forward(self, x: Tensor) -> Tensor:
        """Turn a map (B, H, W, D) into (B, H W, D)."""
        qkv = self.qkv(x)
        bands = [torch.cat([self._read(part) for part in self._split(band, 2)], 2) for band in self._split(qkv, 1)]
        return self.proj(torch.cat(bands, 1).flatten(1, 2))

    def _split(self, qkv: Tensor, dim: int) -> list[Tensor]:
        """Part what whole windows cover from what is left, if anything is."""
        whole = qkv.shape[dim] // self.window_size * self.window_size
        parts = qkv.split([whole, qkv.shape[dim] - whole], dim)
        return [part for part in parts if part.shape[dim]]

    def _read(self, qkv: Tensor) -> Tensor:
        """Turn windows of one size, filled with zeros where they are not whole, (B, h, w, 3 D) into (B, h, w, D)."""
        b, h, w, _ = qkv.shape
        high, wide = min(h, self.window_size), min(w, self.window_size)
        windows = qkv.view(b, h // high, high, w // wide, wide, 3, self.heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        q, k, v = windows.reshape(3, -1, self.heads, high * wide, windows.shape[-1])
        mask, zeros = None, self.window_size**2 - high * wide
        if zeros:
            bias = qkv.new_zeros(qkv.shape[-1]) if self.qkv.bias is None else self.qkv.bias.to(qkv)
            _, k_zero, v_zero = bias.view(3, 1, self.heads, 1, -1).expand(-1, len(q), -1, -1, -1)
            k, v = torch.cat([k, k_zero], 2), torch.cat([v, v_zero], 2)
            mask = F.pad(q.new_zeros(high * wide), (0, 1), value=math.log(zeros)).view(1, 1, 1, -1)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        split = read.view(b, h // high, w // wide, self.heads, high, wide, -1)
        return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, -1)


def check_images(images: Tensor, views: Tensor | None, size: int) -> Tensor:
    """Return which views are there, (B, V) bool. Raises ValueError if the images do not fit or not one is there."""
    if images.shape[2:] != (size, size, 3):
        raise ValueError(f"images: got {tuple(images.shape)}, expected (B, V, {size}, {size}, 3)")
    views = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device) if views is None else views.bool()
    if not views.any(1).all():
        raise ValueError("images: got a sample without any view, expected at least one in each")
    return views


def see_views(images: Tensor, views: Tensor, see: Callable[[Tensor], Tensor]) -> Tensor:
    """Return tokens (B, V, P, D) of the views that are there, from `see`, and zeros for the others."""
    found = see(images[views])
    features = found.new_zeros(*views.shape, *found.shape[1:])
    features[views] = found
    return features
