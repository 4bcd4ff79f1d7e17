"""Settings of a latent action model. In: a recipe's numbers. Out: frozen values that its contract repeats."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("mani", "loco")
MAX_IMAGE_PX = 1024


@dataclass(frozen=True)
class FeatureConfig:
    """Frozen patch features: squares of `patch_px` of an image of `image_size`, each reduced to `dim` numbers."""

    image_size: int
    patch_px: int
    dim: int

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_px

    def __post_init__(self) -> None:
        if self.image_size % self.patch_px or not self.patch_px <= self.image_size <= MAX_IMAGE_PX:
            raise ValueError(
                f"image size: got {self.image_size} px, expected a multiple of the patch size {self.patch_px} px "
                f"up to {MAX_IMAGE_PX}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Spatio-temporal transformer with learned queries and one small codebook."""

    width: int
    heads: int
    encoder_blocks: int
    decoder_blocks: int
    n_codes: int
    codebook_size: int
    code_dim: int
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25


@dataclass(frozen=True)
class LamRecipe:
    """Everything that decides what a training run computes, apart from its data, seed and frame gap."""

    name: str
    features: FeatureConfig
    model: ModelConfig
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    restart_every: int  # steps between restarts of dead codes
    restart_share: float  # a code used less than this fraction of 1 / codebook_size is dead
