"""An X-VLA's shape, table of robots and training. In: numbers of a recipe or a config.json. Out: checked dataclasses.

Standard library only: the command line imports it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from typing import Any, Literal

# Domain ids of the released weights (LeRobot's page and the table in the authors' datasets/domain_config.py).
# Not stable upstream: that table has been renumbered since, so a checkpoint's own table always wins.
PUBLISHED_IDS = {
    "bridge": 0,
    "rt1": 1,
    "calvin": 2,
    "libero": 3,
    "widowx_air": 4,
    "air_agilex_hq": 5,
    "robotwin2": 6,
    "robocasa_human": 7,
    "vlabench": 8,
    "agibot_challenge": 9,
    "air_agilex": 10,
    "robomind_franka": 11,
    "robomind_ur": 12,
    "droid_left": 13,
    "droid_right": 14,
    "agibot": 15,
    "robomind_agilex": 16,
    "robomind_franka_dual": 17,
    "airbot": 18,
}
FREE_ID = 30  # released weights use those below
PROJECT_IDS = {"g1": 30, "x2": 31, "g1-gripper": 32, "x2-gripper": 33}  # this project's humanoids


def new_id(name: str, taken: Iterable[int]) -> int:
    """Return the id of a robot whose dataset stores none: the known one of its name, or the lowest that nobody has."""
    known = PUBLISHED_IDS | {domain_name(robot): number for robot, number in PROJECT_IDS.items()}
    used = {*taken, *PROJECT_IDS.values()}
    return known.get(name, next(i for i in count(FREE_ID) if i not in used))


def robot_facts(robot: str, masked_actions: tuple[int, ...]) -> dict[str, Any]:
    """Return what a recording of a humanoid says of its domain: name, id, action space, actions it does not have.

    A robot that is in no table has a number made of its name, the same on every machine.
    """
    other = 1000 + zlib.crc32(robot.encode()) % 1_000_000
    facts = {"name": domain_name(robot), "id": PROJECT_IDS.get(robot, other), "action": "whole_body"}
    return {**facts, "masked_actions": list(masked_actions)}


def domain_name(robot: str) -> str:
    """Return a robot's name as the name of a domain: lower case, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", robot.lower()).strip("_")


@dataclass(frozen=True)
class Domain:
    """One robot (or one way of recording it): what its numbers mean.

    Attributes:
        id: number that datasets and clients name it by.
        action: its action space, see wbvla.xvla.actions.
        action_dim, state_dim: lengths of the dataset's `action` and `observation.state`; state_dim 0 = no state.
        cameras: names of its views in order; the first is read together with the sentence.
        action_width: entries the network predicts; None = as many as the action space needs. Released weights have 20.
        masked_actions: entries of the whole-body action that this robot does not have: 0 in answers, not in the loss.
        state_names: what the dataset calls the entries of its state, () = it does not say; by them a new robot finds
            its entries among another's.
    """

    id: int
    action: str
    action_dim: int
    state_dim: int
    cameras: tuple[str, ...] = ("head",)
    action_width: int | None = None
    masked_actions: tuple[int, ...] = ()
    state_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.state_names)) not in (0, self.state_dim):
            raise ValueError(f"domain: state_names: got {self.state_names}, expected {self.state_dim} different ones")
        for name, least in (("id", 0), ("action_dim", 1), ("state_dim", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"domain: {name}: got {value!r}, expected a whole number of at least {least}")
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"domain: cameras: got {self.cameras}, expected one or more different names")


@dataclass(frozen=True)
class XvlaConfig:
    """Everything that decides the model's tensors. The defaults are the released size with Florence-2-large.

    Attributes:
        domains: the robots it knows, by name.
        florence: Florence-2's configuration in transformers' format: {"vision_config": ..., "text_config": ...}.
        trunk: instead of Florence-2, the WholeBodyVLA policy's trunk: `VlaConfig.to_dict()`.
        image_size: side of the square images, pixels.
        tokenizer: "words", or what transformers knows, see wbvla.xvla.tokens.
        text_tokens: tokens a sentence is padded or cut to.
        chunk_steps: actions per chunk.
        hidden_size, depth, heads, mlp_ratio: of the transformer.
        prompt_tokens: length of a robot's soft prompt.
        time_dim: size of the flow time's sinusoidal embedding.
        max_tokens: learned positions; actions and context share them, prompts have none.
        dropout: of attention and MLP in training.
        objective: what the network predicts: the "clean" action (released weights) or the "velocity" of the flow.
        attention: "bidirectional" (released weights), or "prefix": the context cannot see the actions, so that its
            keys and values are computed once for all denoising steps.
        mask_padding: hide padded words and missing cameras. False only for released weights, which were trained to
            read padding as if it were there.
        lora_rank: rank of the adapters on all linear layers; 0 = none.
    """

    domains: dict[str, Domain]
    florence: dict[str, Any] = field(default_factory=dict)
    trunk: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "facebook/bart-large"
    image_size: int = 224
    text_tokens: int = 64
    chunk_steps: int = 32
    hidden_size: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    prompt_tokens: int = 32
    time_dim: int = 32
    max_tokens: int = 512
    dropout: float = 0.1
    objective: Literal["clean", "velocity"] = "clean"
    attention: Literal["bidirectional", "prefix"] = "bidirectional"
    mask_padding: bool = True
    lora_rank: int = 0

    def __post_init__(self) -> None:
        for name in ("image_size", "text_tokens", "chunk_steps", "hidden_size", "depth", "heads", "prompt_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size: got {self.hidden_size}, expected a multiple of heads ({self.heads})")
        for name, choices in (("objective", ("clean", "velocity")), ("attention", ("bidirectional", "prefix"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected {' or '.join(choices)}")
        if self.florence and self.trunk:
            raise ValueError("encoder: got both florence and trunk, expected one of them")
        if not self.domains:
            raise ValueError("domains: got none, expected at least one robot")
        owners: dict[int, str] = {}
        for name, domain in self.domains.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"domain {name!r}: expected lower-case letters, digits and underscores")
            if domain.id in owners:
                raise ValueError(f"domain {name!r}: id {domain.id} is taken by {owners[domain.id]!r}; choose another")
            owners[domain.id] = name

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> XvlaConfig:
        """Read `to_dict`'s output, also after a trip through JSON. Raises ValueError naming a wrong key."""
        wrong = sorted(values.keys() ^ {f.name for f in fields(cls)})
        if wrong:
            raise ValueError(f"xvla config: unknown or missing keys {', '.join(wrong)}; not of this version")
        domains = {name: domain_from_dict(domain) for name, domain in values["domains"].items()}
        return cls(**{**values, "domains": domains})


def domain_from_dict(values: dict[str, Any]) -> Domain:
    """Read a Domain from JSON values. Raises ValueError naming a wrong key."""
    wrong = sorted(values.keys() ^ {f.name for f in fields(Domain)})
    if wrong:
        raise ValueError(f"domain: unknown or missing keys {', '.join(wrong)}; not of this version")
    return Domain(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture.

    Attributes:
        dataset: its folder.
        domain, id, action: whose it is: name, number and action space; None = what the dataset says of itself, and for
            the action space else "auto".
        weight: its share of the samples, relative to the others'.
    """

    dataset: str
    domain: str | None = None
    id: int | None = None
    action: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Training:
    """How a model is trained: what moves, how fast, on what. wbvla.recipes.xvla has complete ones.

    Attributes:
        model: recipe of a new model, where no checkpoint is given.
        mode, freeze: what moves, see wbvla.xvla.phases.set_trainable.
        sources: datasets it is for, as folders in one place; flags may give others.
        steps, batch, learning_rate, weight_decay: of the optimiser.
        warmup_steps: in which a learning rate rises.
        hold_steps: first ones, in which only prompts, action layers and adapters move (warm-up of phase II).
        pretrained_scale, prompt_scale, heads_scale: of the learning rate of the encoder, of the prompts, and of the
            action layers. Robots of one action space start with equal ones: slow, these leave it to the prompts to tell
            the robots apart.
        lora_rank: of the adapters in mode "lora".
    """

    model: str
    mode: str = "joint"
    freeze: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 100
    hold_steps: int = 0
    pretrained_scale: float = 0.1
    prompt_scale: float = 1.0
    heads_scale: float = 1.0
    lora_rank: int = 8
