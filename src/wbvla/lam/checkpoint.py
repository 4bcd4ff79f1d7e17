"""Training state on disk. In: model, optimiser, step and settings. Out: one safetensors file, replaced as a whole.

The settings ride in the file's header as JSON. No random state is stored: every draw of training is a function of
(seed, step), so a resumed run draws what a straight run draws.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wbvla.contract import require_match
from wbvla.data.durable import sync


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that a reader finds the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")  # a killed write is overwritten by the next
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
    sync(temporary)
    os.replace(temporary, path)


def write_json(path: Path, value: dict) -> None:
    """Write JSON so that a reader finds the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")  # a killed write is overwritten by the next
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, settings: dict, curve: list
) -> None:
    """Save everything that the next step depends on."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    header = {"step": step, "settings": settings, "curve": curve}
    write_tensors(path, tensors, {"wbvla": json.dumps(header)})


def read_header(path: Path, settings: dict) -> dict:
    """Read a checkpoint's step, settings and curve; it must have been made with these settings.

    Raises:
        ValueError: another file, or a run with other settings; the message lists the differences.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["wbvla"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of this program ({error}); delete it to start anew") from None
    require_match(settings, header["settings"], f"{path}: the run to resume (choose another --out or --no-resume)")
    return header


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Load the tensors of a checkpoint into a model and an optimiser of the same settings.

    Raises:
        ValueError: tensors that are not this model's.
    """
    weights: dict[str, Tensor] = {}
    states: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = file.get_tensor(name)
            else:
                index, _, key = rest.partition(".")
                states.setdefault(int(index), {})[key] = file.get_tensor(name)
    try:
        model.load_state_dict(weights)
        optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not this model's checkpoint ({reason}); delete it to start anew") from None
