"""The VLA model. In: head image, sentence tokens, robot state. Out: codes of both latent families and an action chunk.

Shape letters: B batch, T chunk steps, C codes (mani then loco), V codebook size, S state, A = 20 action entries.
One class serves pretraining on codes (WholeBodyVLA stage 1: cross-entropy on both code sets in one forward pass),
fine-tuning (stage 2: plus the chunk) and the LeRobot policy. Normalisation lives in buffers, so weights, statistics and
answers cannot be separated.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.types import ACTION_DIM, FLAGS, HEIGHT, N_STATE_COMMAND
from wbvla.vla.augment import augment
from wbvla.vla.config import VlaConfig
from wbvla.vla.decoder import N_REGRESSED, ChunkDecoder
from wbvla.vla.trunk import TinyTrunk

STD_FLOOR = 0.02  # rad, rad/s, m: entries that hardly move must not have their noise blown up
REGRESSED = [*range(16), HEIGHT]
STATE_CLIP = 5.0


class Prediction(NamedTuple):
    """Code logits (B, C, V) and actions (B, T, 20) in physical units, flags in {-1, 0, 1}."""

    code_logits: Tensor
    actions: Tensor


class WholeBodyVla(nn.Module):
    """Trunk, code head and chunk decoder."""

    def __init__(self, config: VlaConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = TinyTrunk(config)
        # one classifier per query: the families are separate vocabularies
        self.code_weight = nn.Parameter(0.02 * torch.randn(config.n_codes, config.width, config.codebook_size))
        self.code_bias = nn.Parameter(torch.zeros(config.n_codes, config.codebook_size))
        self.decoder = ChunkDecoder(config)
        used = [0.0 if i in config.masked_actions else 1.0 for i in REGRESSED]
        self.register_buffer("used", torch.tensor(used), persistent=False)
        for name, size in (("state", config.state_dim), ("action", N_REGRESSED)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    def set_statistics(self, state_mean, state_std, action_mean, action_std) -> None:
        """Take normalisation from data: vectors over the S state and 20 action entries, physical units.

        Raises:
            ValueError: a length does not fit or a number is not finite.
        """
        wanted = (("state_mean", self.config.state_dim, state_mean), ("state_std", self.config.state_dim, state_std))
        wanted += (("action_mean", ACTION_DIM, action_mean), ("action_std", ACTION_DIM, action_std))
        for name, length, values in wanted:
            vector = torch.as_tensor(values, dtype=torch.float32).flatten()
            if len(vector) != length or not vector.isfinite().all():
                raise ValueError(f"{name}: got {len(vector)} numbers, expected {length} finite ones; check the dataset")
            vector = vector[REGRESSED] if name.startswith("action") else vector
            getattr(self, name).copy_(vector.clamp_min(STD_FLOOR) if name.endswith("std") else vector)

    def forward(self, images: Tensor, tokens: Tensor, state: Tensor) -> Prediction:
        """Predict codes and actions for (B, H, W, 3) images (0..255), (B, W) tokens and (B, S) physical states.

        Each flag is drawn from its distribution, not its likeliest value: where demonstrations turn in one of three
        such moments, the likeliest value never turns. The draw follows from the state, so that the same observation
        gets the same answer, and is one for the whole chunk.
        """
        image_BPD, code_BCD = self.trunk(images, tokens)
        chunk = self.decoder(image_BPD, code_BCD, self._normalise(state))
        actions = torch.zeros(*chunk.values.shape[:2], ACTION_DIM, device=chunk.values.device)
        actions[..., REGRESSED] = (chunk.values * self.action_std + self.action_mean) * self.used
        up_to = chunk.flag_logits.softmax(-1).cumsum(-1)[..., :2]  # chance of -1, and of -1 or 0
        actions[..., FLAGS] = (_draws(state)[:, None, :, None] > up_to).sum(-1).float() - 1.0
        return Prediction(self._code_logits(code_BCD), actions)

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the weighted "loss" and its parts for one batch; augments images and hides state in training mode.

        Args:
            batch: "images" (B, H, W, 3) and "tokens" (B, W) always; "codes" (B, C), -1 = no label, for the code
                loss; "state" (B, S), "actions" (B, T, 20) and "padded" (B, T) bool for the chunk loss.
            generator: source of the augmentation's randomness; None takes torch's global one.
        """
        images, config = batch["images"], self.config
        if self.training:
            images = augment(images, config.shift_px, config.brightness, config.colour, generator)
        image_BPD, code_BCD = self.trunk(images, batch["tokens"])
        parts: dict[str, Tensor] = {}
        total = image_BPD.new_zeros(())
        if "codes" in batch:
            code_parts = self._code_losses(self._code_logits(code_BCD), batch["codes"])
            # alone (pretraining) the codes carry the whole loss, beside the chunk they are a regulariser
            total = total + code_parts["code_loss"] * (config.code_weight if "actions" in batch else 1.0)
            parts |= code_parts
        if "actions" in batch:
            chunk = self.decoder(image_BPD, code_BCD, self._normalise(batch["state"]), generator)
            chunk_parts = self._chunk_losses(chunk, batch["actions"], batch["padded"])
            total = total + chunk_parts["value_loss"] + config.flag_weight * chunk_parts["flag_loss"]
            parts |= chunk_parts
        return {"loss": total, **parts}

    def _normalise(self, state: Tensor) -> Tensor:
        return ((state - self.state_mean) / self.state_std).clamp(-STATE_CLIP, STATE_CLIP)

    def _code_logits(self, code_BCD: Tensor) -> Tensor:
        return torch.einsum("bcd,cdv->bcv", code_BCD, self.code_weight) + self.code_bias

    def _code_losses(self, logits_BCV: Tensor, codes_BC: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and accuracy over the labelled codes; missing ones (-1) have no influence."""
        there = codes_BC >= 0
        count = there.sum().clamp_min(1)
        loss = F.cross_entropy(logits_BCV.flatten(0, 1), codes_BC.flatten(), ignore_index=-1, reduction="sum") / count
        right = (logits_BCV.detach().argmax(-1) == codes_BC) & there
        split = self.config.n_mani
        parts = {"code_loss": loss}
        for name, of in (("mani", slice(None, split)), ("loco", slice(split, None))):
            parts[f"{name}_accuracy"] = right[:, of].sum() / there[:, of].sum().clamp_min(1)
        return parts

    def _chunk_losses(self, chunk, actions_BTA: Tensor, padded_BT: Tensor) -> dict[str, Tensor]:
        """L1 of normalised arms and height, cross-entropy of flags; padding and masked slots have no influence."""
        there_BT = (~padded_BT).float()
        count = there_BT.sum().clamp_min(1.0)
        target = (actions_BTA[..., REGRESSED] - self.action_mean) / self.action_std
        weight = there_BT.unsqueeze(-1) * self.used
        # where, not a product: a padded or masked entry may hold anything, even inf
        error = torch.where(weight > 0, (chunk.values - target).abs(), 0.0)
        value_loss = error.sum() / (count * self.used.sum())
        flags = actions_BTA[..., FLAGS].nan_to_num().round().clamp(-1, 1).long() + 1
        cross = F.cross_entropy(chunk.flag_logits.flatten(0, 2), flags.flatten(), reduction="none").view(flags.shape)
        flag_loss = torch.where(padded_BT.unsqueeze(-1), 0.0, cross).sum() / (3.0 * count)
        arm_rad = (error.detach() * self.action_std)[..., :14].sum() / (count * self.used[:14].sum().clamp_min(1.0))
        right = (chunk.flag_logits.detach().argmax(-1) == flags) & ~padded_BT.unsqueeze(-1)
        height_m = error.detach()[..., -1].sum() * self.action_std[-1] / count
        return {
            "value_loss": value_loss,
            "flag_loss": flag_loss,
            "arm_error_rad": arm_rad,
            "height_error_m": height_m,
            "flag_accuracy": right.sum() / (3.0 * count),
        }


def _draws(state_BS: Tensor) -> Tensor:
    """Return a number in [0, 1) for each sample's three flags (B, 3), made of the bits of what the body measures."""
    rows = state_BS[:, :-N_STATE_COMMAND].detach().cpu().float().numpy()
    draws = np.stack([np.random.default_rng(zlib.crc32(row.tobytes())).random(3) for row in rows])
    return torch.from_numpy(draws).to(state_BS)
