"""Checkpoints of the VLA on disk. In: a model, its contract, the state of a training run. Out: a folder, and back.

A folder holds model.safetensors, config.json and contract.json; a training run adds metrics.json and training/
(optimiser in safetensors, step and settings in JSON). Folders are written beside their place and renamed, so that a
kill leaves the old one or the new one. LeRobot checkpoints (`pretrained_model/`) of type `wholebodyvla` load too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wbvla.contract import differences, load_contract, save_contract
from wbvla.data.durable import sync
from wbvla.vla.config import VlaConfig
from wbvla.vla.model import REGRESSED, WholeBodyVla

WEIGHTS, CONFIG, CONTRACT = "model.safetensors", "config.json", "contract.json"
LEROBOT_TYPE, LEROBOT_PREFIX = "wholebodyvla", "model."


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then put it in `folder`'s place; a kill leaves the old or the new one.

    Raises:
        ValueError: there is something at `folder` that is no checkpoint and must not be deleted.
    """
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: got a place with other content, expected a new or empty folder; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = _siblings(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    write(new)
    sync(new)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Undo a kill between the two renames of `replace_folder`; harmless otherwise."""
    new, old = _siblings(folder)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _siblings(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def save_model(folder: Path, model: WholeBodyVla, contract: dict[str, Any]) -> None:
    """Write weights, configuration and contract into an existing folder."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"type": "wbvla-vla", "vla": model.config.to_dict()}, indent=2) + "\n")
    save_contract(folder / CONTRACT, contract)


def load_model(folder: str | Path) -> tuple[WholeBodyVla, dict[str, Any]]:
    """Open a checkpoint of this project or of lerobot-train; the model is in evaluation mode.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a foreign or damaged checkpoint, or weights and contract of different ones; one line with the fix.
    """
    folder = _checkpoint_folder(Path(folder))
    config, prefix = _read_config(folder)
    contract = load_contract(folder / CONTRACT, "vla")
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS}: cannot be read ({str(error).splitlines()[0]}); copy it again") from None
    if prefix:  # LeRobot's policy keeps a counter of its own beside the model
        stored = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
    try:
        model = WholeBodyVla(config)
    except RuntimeError as error:  # no memory for such a model
        raise ValueError(f"{folder / CONFIG}: cannot be built ({str(error).splitlines()[0]}); copy it again") from None
    _check_weights(folder, model, stored, prefix)
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in stored.items()})
    _check_contract(folder, model, contract)
    return model.eval(), contract


def _checkpoint_folder(folder: Path) -> Path:
    """Accept a checkpoint folder, or LeRobot's checkpoint folder around `pretrained_model`."""
    recover_folder(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no checkpoint here; expected a folder of `wbvla vla pretrain|finetune`")
    inner = folder / "pretrained_model"
    return inner if not (folder / CONFIG).is_file() and (inner / CONFIG).is_file() else folder


def _read_config(folder: Path) -> tuple[VlaConfig, str]:
    expected = f"expected a checkpoint of `wbvla vla finetune` or of lerobot-train --policy.type={LEROBOT_TYPE}"
    try:
        values = json.loads((folder / CONFIG).read_text())
        kind = values["type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{folder}: no readable {CONFIG}, {expected}") from None
    if kind not in ("wbvla-vla", LEROBOT_TYPE):
        raise ValueError(f"{folder}: got a checkpoint of type {kind!r}, {expected}")
    try:
        return VlaConfig.from_dict(values["vla"]), LEROBOT_PREFIX if kind == LEROBOT_TYPE else ""
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}; {expected}") from None


def _check_weights(folder: Path, model: WholeBodyVla, stored: dict[str, torch.Tensor], prefix: str) -> None:
    wanted = {prefix + name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    lines = [f"{name} is missing" for name in wanted if name not in got]
    lines += [f"{name} is unknown" for name in got if name not in wanted]
    lines += [f"{n}: got {got[n]}, expected {wanted[n]}" for n in wanted if n in got and got[n] != wanted[n]]
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise ValueError(f"{folder / WEIGHTS} does not fit its {CONFIG}: {'; '.join(lines[:3])}{more}")
    if any(not tensor.isfinite().all() for tensor in stored.values()):
        raise ValueError(f"{folder / WEIGHTS}: holds numbers that are not finite; this training diverged, train again")


def _check_contract(folder: Path, model: WholeBodyVla, contract: dict[str, Any]) -> None:
    """Weights and contract must be of one checkpoint: their normalisation and shapes agree."""
    config = model.config
    wanted = {"image_size": config.image_size, "chunk_steps": config.chunk_steps, "normalisation": statistics(model)}
    lines = differences(wanted, {name: contract.get(name) for name in wanted})
    if lines:
        raise ValueError(f"{folder / CONTRACT} does not fit the weights: {lines[0]}; copy both files together")


def statistics(model: WholeBodyVla) -> dict[str, list[float]]:
    """Return the model's normalisation as JSON numbers; action entries in REGRESSED order (arms, grippers, height)."""
    assert len(REGRESSED) == len(model.action_mean)
    names = ("state_mean", "state_std", "action_mean", "action_std")
    return {name: [float(x) for x in getattr(model, name)] for name in names}


def weights_id(folder: str | Path) -> str:
    """Name exactly these weights: 16 hexadecimal digits."""
    return hashlib.sha256((_checkpoint_folder(Path(folder)) / WEIGHTS).read_bytes()).hexdigest()[:16]


def save_optimizer(folder: Path, optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str]) -> None:
    """Write the optimiser's tensors into `folder`, named after their parameters."""
    tensors = {}
    for parameter, name in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / "optimizer.safetensors")


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str]) -> None:
    """Read what `save_optimizer` wrote."""
    parameters = {name: parameter for parameter, name in names.items()}
    for full, tensor in load_file(folder / "optimizer.safetensors").items():
        key, _, name = full.partition("/")
        parameter = parameters[name]
        # the step counter stays in float32 on the CPU, moments follow their parameter
        optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter)
