"""Checkpoints of X-VLA on disk. In: a model. Out: a folder, and back; LeRobot's and 2toINF's folders open too.

A folder holds model.safetensors and config.json, whose table of domains says what every robot's numbers mean.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wbvla.vla.checkpoint import CONFIG, WEIGHTS, replace_folder
from wbvla.xvla.config import XvlaConfig
from wbvla.xvla.model import Xvla
from wbvla.xvla.released import fill, read_released

KIND, LEROBOT_KIND, LEROBOT_PREFIX = "wbvla-xvla", "xvla_wb", "model."


def save_model(folder: str | Path, model: Xvla) -> None:
    """Write a checkpoint folder; a kill leaves the old one or the new one. Raises ValueError if the place is taken."""

    replace_folder(Path(folder), lambda new: write_model(new, model))


def write_model(folder: Path, model: Xvla) -> None:
    """Write weights and configuration into a folder that exists."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({"type": KIND, "xvla": model.config.to_dict()}, indent=2) + "\n")


def load_model(folder: str | Path) -> Xvla:
    """Open a checkpoint of this project (also of lerobot-train), of LeRobot's `xvla` or of 2toINF/X-VLA, to evaluate.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a foreign or damaged checkpoint; one line with the fix.
    """
    folder = _inner(Path(folder))
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder}: got adapters of peft, expected whole weights; merge them into their base first")
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder}: expected {CONFIG} and {WEIGHTS} of an X-VLA checkpoint")
    try:
        values = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be read ({str(error).splitlines()[0]}); copy it again") from None
    kind = values.get("type", values.get("model_type")) if isinstance(values, dict) else None
    try:
        if kind == LEROBOT_KIND:  # LeRobot's policy keeps a counter of its own beside the model
            tensors = {n.removeprefix(LEROBOT_PREFIX): t for n, t in tensors.items() if n.startswith(LEROBOT_PREFIX)}
        if kind in (KIND, LEROBOT_KIND):
            return _read(XvlaConfig.from_dict(values["xvla"]), tensors)
        if kind == "xvla":
            return read_released(values, tensors)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error!r} is missing or of the wrong type; copy it again") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    raise ValueError(f"{folder}: got a checkpoint of type {kind!r}, expected {KIND!r} or a released 'xvla'")


def is_xvla(folder: str | Path) -> bool:
    """Whether a folder's configuration is that of an X-VLA checkpoint, of anybody."""
    try:
        values = json.loads((_inner(Path(folder)) / CONFIG).read_text())
        return values.get("type", values.get("model_type")) in (KIND, LEROBOT_KIND, "xvla")
    except (OSError, ValueError, AttributeError):
        return False


def read_chunk_steps(folder: str | Path) -> int:
    """Return the length of a checkpoint's chunks, from its configuration alone. Raises ValueError if there is none."""
    folder = _inner(Path(folder))
    try:
        values = json.loads((folder / CONFIG).read_text())
        return values["xvla"]["chunk_steps"] if "xvla" in values else values.get("chunk_size") or values["num_actions"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG}: not of an X-VLA checkpoint ({error!r})") from None


def _inner(folder: Path) -> Path:
    """Accept LeRobot's checkpoint folder around `pretrained_model`."""
    inner = folder / "pretrained_model"
    return inner if (inner / CONFIG).is_file() else folder


def _read(config: XvlaConfig, tensors: dict[str, Tensor]) -> Xvla:
    model = Xvla(config)
    fill(model, tensors)
    if any(not tensor.isfinite().all() for tensor in tensors.values() if tensor.dtype.is_floating_point):
        raise ValueError("weights hold numbers that are not finite; this training diverged, train again")
    return model.eval()
