"""The training loop of both stages. In: a model, a function from step to batch. Out: a checkpoint folder, metrics.

Everything random is a function of (seed, step): batch order, augmentation, hidden states. A run that was stopped and
resumed is therefore equal to a straight one bit for bit (one thread), without storing random states.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbvla.contract import differences
from wbvla.data.progress import Progress
from wbvla.lam.interrupt import Interruptible
from wbvla.vla.checkpoint import load_optimizer, recover_folder, replace_folder, save_model, save_optimizer
from wbvla.vla.model import WholeBodyVla

STATE = "training/state.json"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train: linear warm-up over 5 % of the steps, then a cosine to 2 % of the rate."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    checkpoint_s: float

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = max(1, self.steps // 20)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


class Order:
    """Which rows a step takes: every row once per epoch, each epoch in its own order, epochs without a seam."""

    def __init__(self, rows: np.ndarray, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """Return the rows of a step, (batch,)."""
        positions = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(positions, len(self.rows))
        return np.stack([self._epoch(e)[p] for e, p in zip(epochs.tolist(), places.tolist())])

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {e: v for e, v in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        return self._epochs[epoch]


def finished(out: Path, settings: dict[str, Any], steps: int) -> dict[str, Any] | None:
    """Return the metrics of a run in `out` that is complete and was made with these settings, else None.

    Raises:
        ValueError: `out` holds a run with other settings; the message lists what differs.
    """
    recover_folder(out)
    state = _read_state(out)
    if state is None:
        return None
    lines = differences(settings, state["settings"])
    if lines:
        shown = "; ".join(lines[:4]) + (" ..." if len(lines) > 4 else "")
        raise ValueError(f"{out}: holds a run with other settings ({shown}); choose another --out or delete it")
    return state["metrics"] if state["step"] >= steps else None


def _read_state(out: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((out / STATE).read_text())
        return {name: state[name] for name in ("step", "metrics", "settings")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{out / STATE}: unreadable; this run is damaged, delete {out}") from None


def fit(
    model: WholeBodyVla,
    batch_of: Callable[[int], dict[str, Tensor]],
    plan: Plan,
    settings: dict[str, Any],
    contract: dict[str, Any],
    out: Path,
    label: str,
    measure: Callable[[WholeBodyVla], dict[str, float]] | None = None,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train from the checkpoint in `out`, or from the model as it is, to the end of the plan.

    Args:
        batch_of: tensors of a step, see WholeBodyVla.losses.
        settings: JSON values that must agree for a run to be continued.
        measure: metrics on held-out data, taken once at the end.
        report: called after every step with its number (from 1) and losses.
    Returns:
        The metrics that are also written to metrics.json. Ctrl-C saves before it is raised.
    """
    run = _Run(model, plan, settings, contract, out)
    progress = Progress(label, plan.steps, "steps", run.step)
    saved_at = time.monotonic()
    with Interruptible() as interrupt:
        while run.step < plan.steps:
            losses = run.advance(batch_of(run.step))
            progress.advance(1, _note(run.metrics))
            if report is not None:
                report(run.step, {k: float(v) for k, v in losses.items()})
            if interrupt.asked or time.monotonic() - saved_at > plan.checkpoint_s:
                run.save()
                saved_at = time.monotonic()
            if interrupt.asked:
                raise KeyboardInterrupt
    if measure is not None:
        run.metrics |= measure(model.eval())
    run.save()
    progress.close(_note(run.metrics))
    return run.metrics


class _Run:
    """A model with its optimiser, its step and running means of its losses."""

    def __init__(self, model: WholeBodyVla, plan: Plan, settings: dict, contract: dict, out: Path) -> None:
        self.model, self.plan, self.settings, self.contract, self.out = model, plan, settings, contract, out
        self.names = {p: n for n, p in model.named_parameters() if p.requires_grad}
        matrices = [p for p in self.names if p.ndim >= 2]
        rest = [p for p in self.names if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), fused=True)
        self.step, self.metrics, self._generator = 0, {"curve": []}, torch.Generator()
        state = _read_state(out)
        if state is not None:
            self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        """Go on from the checkpoint in `out`."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            self.model.load_state_dict(load_file(self.out / "model.safetensors"))
            load_optimizer(self.out / "training", self.optimizer, self.names)
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.out}: this run is damaged ({reason}), delete it to start anew") from None
        self.step, self.metrics = state["step"], state["metrics"]

    def advance(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take one optimiser step and return its losses."""
        self.model.train()
        self._generator.manual_seed(self.plan.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        losses = self.model.losses(batch, self._generator)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.names, 1.0)
        self.optimizer.step()
        self.step += 1
        losses = {name: value.detach() for name, value in losses.items()}
        self._keep(losses)
        return losses

    def _keep(self, losses: dict[str, Tensor]) -> None:
        """Follow the losses with a running mean and, at about 100 points, the curve."""
        for name, value in losses.items():
            value = float(value)
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} became {value} at step {self.step}; check the dataset for broken rows, "
                    "or lower the learning rate"
                )
            self.metrics[name] = value + 0.95 * (self.metrics.get(name, value) - value)
        if self.step % max(1, self.plan.steps // 100) == 0:
            self.metrics["curve"].append([self.step, self.metrics["loss"]])

    def save(self) -> None:
        """Write the checkpoint folder."""
        replace_folder(self.out, self._write)

    def _write(self, folder: Path) -> None:
        save_model(folder, self.model, self.contract)
        (folder / "training").mkdir()
        save_optimizer(folder / "training", self.optimizer, self.names)
        state = {"step": self.step, "metrics": self.metrics, "settings": self.settings}
        (folder / STATE).write_text(json.dumps(state, indent=2, allow_nan=False) + "\n")
        (folder / "metrics.json").write_text(json.dumps(self.metrics, indent=2, allow_nan=False) + "\n")


def _note(losses: dict[str, Any]) -> str:
    shown = ("loss", "mani_accuracy", "loco_accuracy", "arm_error_rad", "flag_accuracy", "held_out_flag_accuracy")
    return ", ".join(f"{name} {float(losses[name]):.3f}" for name in shown if name in losses)
