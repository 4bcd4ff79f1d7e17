"""Shape and training-time behaviour of the VLA. In: numbers from a recipe or a config.json. Out: a checked `VlaConfig`.

Standard library only: the command line imports it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

_NUMBERS = {"int": int, "float": (int, float)}


@dataclass(frozen=True)
class VlaConfig:
    """Everything that decides the model's tensors and how they are regularised.

    Attributes:
        image_size: side of the square head image, pixels; a multiple of 16.
        width, layers, heads: the trunk's transformer.
        n_mani, n_loco, codebook_size: query tokens per latent family and choices per token.
        state_dim, chunk_steps: length of `observation.state`; actions per chunk.
        masked_actions: action entries that the robot does not have; 0 in every answer, absent from the loss.
        state_dropout: chance that a training sample's whole state is hidden. A policy that can read its own motion
            copies it instead of looking (the copycat problem of behaviour cloning).
        command_dropout: the same for the last command, which is the strongest copycat cue; 1 hides it for ever,
            also when the policy runs.
        state_noise: standard deviation of noise on the normalised state in training.
        shift_px, brightness, colour: ranges of the image augmentation.
        code_weight, flag_weight: weights of the code and flag cross-entropies beside the arms' L1.
    """

    image_size: int = 96
    width: int = 128
    layers: int = 2
    heads: int = 4
    n_mani: int = 4
    n_loco: int = 4
    codebook_size: int = 16
    state_dim: int = 68
    chunk_steps: int = 20
    masked_actions: tuple[int, ...] = (14, 15)
    state_dropout: float = 0.3
    command_dropout: float = 1.0
    state_noise: float = 0.05
    shift_px: int = 1
    brightness: float = 0.25
    colour: float = 0.1
    code_weight: float = 0.2
    flag_weight: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), _NUMBERS.get(str(field.type))
            if kind is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise ValueError(f"{field.name}: got {value!r}, expected {field.type}")
        if self.image_size % 16 or self.image_size < 32:
            raise ValueError(f"image_size: got {self.image_size}, expected a multiple of 16, at least 32")
        for name in ("width", "layers", "heads", "n_mani", "n_loco", "chunk_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise ValueError(f"width: got {self.width}, expected a multiple of heads ({self.heads})")
        if self.state_dim < 5:
            raise ValueError(f"state_dim: got {self.state_dim}, expected at least 5")
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size: got {self.codebook_size}, expected at least 2")
        if any(not 0 <= i < 20 for i in self.masked_actions) or set(self.masked_actions) & {16, 17, 18, 19}:
            raise ValueError(f"masked_actions: got {self.masked_actions}, expected arm or gripper entries (0..15)")
        for name in ("state_dropout", "command_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a probability")

    @property
    def n_codes(self) -> int:
        """Query tokens of both families; mani first."""
        return self.n_mani + self.n_loco

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types only."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VlaConfig:
        """Read `to_dict`'s output. Raises ValueError naming unknown or missing keys."""
        known = {f.name for f in fields(cls)}
        if values.keys() != known:
            wrong = sorted(values.keys() ^ known)
            raise ValueError(
                f"vla config: unknown or missing keys {', '.join(wrong)}; not a checkpoint of this version"
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
