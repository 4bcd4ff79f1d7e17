"""Training phases: which parameters move, how fast, and from when on. In: a model. Out: groups for an optimiser.

Phase I trains everything on all robots. Phase II adapts to a new one in two steps (X-VLA, section 3.3): warm-up of its
prompt and action layers, then everything together; or, for less memory, prompts only or low-rank adapters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from wbvla.xvla.model import Xvla

# Every parameter is of exactly one part: the first whose start and content its name has.
PARTS = {
    "adapters": ("", ".lora_"),
    "vision": ("vlm.vision_tower.", ""),
    "projector": ("vlm.projector.", ""),
    "language": ("vlm.language.", ""),
    "trunk": ("vlm.trunk.", ""),
    "transformer": ("transformer.", ""),
    "prompts": ("domains.", ".prompt"),
    "heads": ("domains.", ""),
}
MODES = {
    "joint": tuple(PARTS),
    "warmup": ("prompts", "heads"),
    "prompts": ("prompts",),
    "lora": ("adapters", "prompts", "heads"),
}
PRETRAINED = ("vision", "projector", "language", "trunk")
OWN = ("prompts", "heads", "adapters")  # they move from the first step on


def part_of(parameter: str) -> str:
    """Return the part that a parameter's name belongs to."""
    for part, (start, content) in PARTS.items():
        if parameter.startswith(start) and content in parameter:
            return part
    raise AssertionError(f"{parameter} is of no part")


def set_trainable(
    model: Xvla, mode: str, domains: Sequence[str | int] | None = None, freeze: Sequence[str] = ()
) -> list[str]:
    """Let exactly the parameters of a mode move, and return their names.

    Args:
        mode: "joint" (phase I, and the second step of phase II), "warmup" (prompts and action layers), "prompts", or
            "lora" (adapters, prompts and action layers).
        domains: robots whose prompts and action layers may move; None = all.
        freeze: parts (see PARTS) that stay as they are in any mode.
    Raises:
        ValueError: an unknown mode, part or robot, "lora" on a model without adapters, or nothing is left to move.
    """
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if unknown := sorted(set(freeze) - set(PARTS)):
        raise ValueError(f"freeze: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    present = list(dict.fromkeys(part_of(name) for name, _ in model.named_parameters()))
    if absent := sorted(set(freeze) - set(present)):
        raise ValueError(f"freeze: this model has no {', '.join(absent)}, expected some of {', '.join(present)}")
    if mode == "lora" and not model.config.lora_rank:
        raise ValueError("mode: got 'lora' on a model without adapters; call add_adapters first")
    own = {model.resolve(domain) for domain in (model.domains if domains is None else domains)}
    moving = []
    for name, parameter in model.named_parameters():
        part = part_of(name)
        theirs = part in ("prompts", "heads") and name.split(".")[1] not in own
        parameter.requires_grad_(part in MODES[mode] and part not in freeze and not theirs)
        if parameter.requires_grad:
            moving.append(name)
    if not moving:
        raise ValueError(f"freeze: got {', '.join(freeze)} in mode {mode!r}: nothing is left to move")
    return moving


def require_layers(mode: str, robot: str, copied: bool) -> None:
    """Raise ValueError if only the prompt of a new robot is to move and its action layers are not a copy."""
    if mode == "prompts" and not copied:
        raise ValueError(
            f"mode: got 'prompts' for the new robot {robot!r}, whose action layers are random and would stay so; use "
            "mode 'warmup', or like=<a robot with the same action space>"
        )


def parameter_groups(
    model: Xvla, lr: float, pretrained_scale: float = 0.1, prompt_scale: float = 1.0, heads_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Return groups of moving parameters for an optimiser, one a part: {"name", "params", "lr"}.

    Args:
        lr: of everything else.
        pretrained_scale: of the encoder, which was trained before: 1/10 in the paper.
        prompt_scale: of soft prompts.
        heads_scale: of action layers.
    """
    scales = {**dict.fromkeys(PRETRAINED, pretrained_scale), "prompts": prompt_scale, "heads": heads_scale}
    groups: dict[str, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(part_of(name), []).append(parameter)
    return [{"name": part, "params": p, "lr": lr * scales.get(part, 1.0)} for part, p in groups.items()]


def learning_rate_factors(
    names: Sequence[str], total_steps: int, warmup_steps: int, hold_steps: int = 0, floor: float = 0.025
) -> list[Callable[[int], float]]:
    """Return each group's factor of its learning rate by step, for torch's LambdaLR.

    Prompts, action layers and adapters rise from 0 over `warmup_steps`; what robots share stays still for `hold_steps`
    (phase II's warm-up) and rises then. All fall along a cosine to `floor` at the end.

    Raises:
        ValueError: hold and warm-up take longer than the run, or are negative.
    """
    if min(hold_steps, warmup_steps) < 0:
        raise ValueError(f"hold and warm-up: got {hold_steps} and {warmup_steps} steps, expected at least 0")
    if hold_steps + warmup_steps > total_steps:
        raise ValueError(f"hold and warm-up: got {hold_steps} + {warmup_steps}, expected at most {total_steps} steps")

    def factor(step: int, start: int) -> float:
        if step < start:
            return 0.0
        rise = min(1.0, (step - start + 1) / max(1, warmup_steps))
        fall = min(1.0, step / total_steps)
        return rise * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fall)))

    starts = [0 if name in OWN else hold_steps for name in names]
    return [lambda step, start=start: factor(step, start) for start in starts]
