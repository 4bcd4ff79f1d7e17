"""How fast an X-VLA trains, and in how much memory: whole, its encoder frozen or its features cached, prompts alone.

In: nothing; weights and samples are random. Out: a table and JSON: numbers that move, samples a second (median of the
runs), and on a GPU the most memory that was allocated. Cached: the encoder's answers are computed once and kept.

    python benchmarks/xvla_training.py --size small --batch 4 --json outputs/xvla_training.json
    python benchmarks/xvla_training.py --size released --batch 16 --device cuda --dtype bfloat16
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from xvla_latency import CHUNK, SIZE, SIZES, TEXT

from wbvla.recipes.xvla import xvla_released
from wbvla.xvla.config import Domain, XvlaConfig
from wbvla.xvla.model import Xvla
from wbvla.xvla.phases import parameter_groups, set_trainable

ENCODER = ("vision", "projector", "language")
ROWS = {  # name: mode, frozen parts, whether what the encoder says is kept
    "joint": ("joint", (), False),
    "encoder frozen": ("joint", ENCODER, False),
    "encoder frozen, cached": ("joint", ENCODER, True),
    "prompts and heads": ("warmup", (), False),
    "prompts": ("prompts", (), False),
    "prompts, cached": ("prompts", (), True),
}


class Remembered(nn.Module):
    """An encoder that has seen the batch already."""

    def __init__(self, encoder: nn.Module, batch: dict) -> None:
        super().__init__()
        with torch.no_grad():
            self.seen = encoder(batch["images"], None, batch["tokens"])

    def forward(self, images: torch.Tensor, views: torch.Tensor | None, tokens: torch.Tensor):
        """Return what it saw."""
        return self.seen


def configuration(size: str, views: int) -> XvlaConfig:
    """Return the model of a size, for one robot with 20 action entries and some views."""
    florence, hidden, depth, heads = SIZES[size]
    robot = Domain(id=0, action="ee6d", action_dim=20, state_dim=20, cameras=tuple(f"view{i}" for i in range(views)))
    shape = {"florence": copy.deepcopy(florence), "hidden_size": hidden, "depth": depth, "heads": heads}
    return replace(xvla_released({"robot": robot}), tokenizer="words", chunk_steps=CHUNK, text_tokens=TEXT, **shape)


def samples(views: int, batch: int, device: str) -> dict:
    """Return one random batch."""
    g = torch.Generator().manual_seed(0)
    tensors = {
        "images": torch.randint(0, 256, (batch, views, SIZE, SIZE, 3), generator=g, dtype=torch.uint8),
        "tokens": torch.randint(2, 1000, (batch, TEXT), generator=g),
        "state": torch.randn((batch, 20), generator=g),
        "actions": torch.rand((batch, CHUNK, 20), generator=g),  # grippers are 0 to 1
    }
    return {"domains": ["robot"] * batch, **{name: tensor.to(device) for name, tensor in tensors.items()}}


def measure(model: Xvla, batch: dict, row: str, runs: int, device: str, dtype: torch.dtype) -> dict:
    """Return the figures of one row: one step to warm up, then `runs` that are timed."""
    mode, freeze, cached = ROWS[row]
    moving = set(set_trainable(model, mode, freeze=freeze))
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4))
    encoder, seconds = model.vlm, []
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    autocast = lambda: torch.autocast(device, dtype, enabled=dtype != torch.float32)  # noqa: E731
    if cached:
        with autocast():
            model.vlm = Remembered(encoder, batch)
    for _ in range(runs + 1):
        start_s = time.perf_counter()
        with autocast():
            loss = model.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start_s)
    model.vlm = encoder
    memory = round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else None
    numbers = sum(p.numel() for name, p in model.named_parameters() if name in moving)
    rate = len(batch["domains"]) / statistics.median(seconds[1:])
    return {"moving": numbers, "samples_per_s": round(rate, 3), "memory_gib": memory}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model = Xvla(configuration(options.size, options.views)).to(options.device).train()
    batch = samples(options.views, options.batch, options.device)
    rows = {}
    for row in ROWS:
        rows[row] = measure(model, batch, row, options.runs, options.device, getattr(torch, options.dtype))
        memory = "" if rows[row]["memory_gib"] is None else f"   {rows[row]['memory_gib']:.2f} GiB"
        print(f"{row:<24} {rows[row]['moving']:>12,} move   {rows[row]['samples_per_s']:8.2f} samples/s{memory}")
    if options.json:
        settings = {k: getattr(options, k) for k in ("size", "views", "batch", "runs", "threads", "device", "dtype")}
        machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {**settings, "rows": rows, "torch": torch.__version__, "machine": machine}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
