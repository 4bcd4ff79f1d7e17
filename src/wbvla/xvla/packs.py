"""Prompt packs: one robot in one small file. In: a model and a robot's name. Out: a file, and back into another model.

A pack is a safetensors file: prompt, action layers and statistics, with the domain as JSON in its header. At the
released size it takes about half a megabyte. It fits the trunk it was trained with and no other.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wbvla.data.durable import sync
from wbvla.xvla.config import Domain, domain_from_dict
from wbvla.xvla.domains import DomainHead
from wbvla.xvla.model import Xvla
from wbvla.xvla.released import fill

KIND = "wbvla-xvla-pack"


def trunk_id(model: Xvla) -> str:
    """Name the weights that robots share, and how they are read: 16 hexadecimal digits.

    They are made of the first numbers of every tensor: any training step moves some, and it takes milliseconds.
    """
    digest = hashlib.sha256(f"{model.config.attention} {model.config.objective}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith("domains."):
            digest.update(name.encode() + tensor.detach().flatten()[:256].cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def export_pack(path: str | Path, model: Xvla, domain: str | int) -> None:
    """Write one robot's pack, over an older pack. Raises ValueError: an unknown robot, or anything else is there."""
    path, name = Path(path), model.resolve(domain)
    if path.exists():
        _read(path)
    head = model.domains[name]
    header = {"kind": KIND, "name": name, "trunk": trunk_id(model), "domain": vars(head.domain)}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in head.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, {"wbvla": json.dumps(header)})
    sync(temporary)
    os.replace(temporary, path)


def import_pack(path: str | Path, model: Xvla) -> str:
    """Put a pack's robot into a model and return its name; a robot of the same name and domain is replaced.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a pack, made for another trunk, its name or id is another robot's, or its tensors do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prompt pack at {path}")
    name, domain, trunk, tensors = _read(path)
    if trunk != trunk_id(model):
        raise ValueError(f"{path}: made for trunk {trunk}, got a model with trunk {trunk_id(model)}; export it again")
    if model.config.domains.get(name, domain) != domain:
        raise ValueError(f"{path}: its robot {name!r} has other numbers than the model's {name!r}; rename one of them")
    head = DomainHead(domain, model.config)
    fill(head, tensors)
    if any(not tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError(f"{path}: holds numbers that are not finite; train it again")
    if name not in model.domains:
        model.add_domain(name, domain)
    with torch.no_grad():
        model.domains[name].load_state_dict(head.state_dict())
    return name


def _read(path: Path) -> tuple[str, Domain, str, dict[str, torch.Tensor]]:
    """Return a pack's robot, its domain, the trunk it was made for and its tensors. Raises ValueError: not a pack."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["wbvla"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        if header["kind"] != KIND:
            raise KeyError("kind")
        return header["name"], domain_from_dict(header["domain"]), header["trunk"], tensors
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a prompt pack ({error}); `wbvla xvla pack` writes one to a new file") from None
