"""The training loop of VLA and X-VLA. In: a model, a function from step to losses. Out: a checkpoint folder, metrics.

Everything random is a function of (seed, step): batch order, augmentation, hidden states. A run that was stopped and
resumed is therefore equal to a straight one bit for bit (one thread), without storing random states. A batch may be
computed in parts, one after the other or by several processes (wbvla.vla.processes): a part's randomness is its own.
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
from wbvla.vla.checkpoint import load_optimizer, recover_folder, replace_folder, save_optimizer
from wbvla.vla.processes import any_of, count, mean, rank, started, sum_gradients, wait

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
    measure_every: int = 0  # steps between measurements on the way; 0 = only at the end
    parts: int = 1  # equal ones of a batch, whose gradients are added

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = max(1, self.steps // 20)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


def make_plan(cfg: Any, weight_decay: float = 0.05, measure_every: int = 0, parts: int = 1) -> Plan:
    """Check the optimiser's settings among a verb's flags, set the threads, and return the plan. Raises ValueError."""
    if parts < 1 or cfg.batch % parts or parts % started():
        raise ValueError(
            f"accumulate: got {parts} parts of a batch of {cfg.batch} for {started()} processes, expected a divisor of "
            "the batch that is a multiple of the processes; verbs without this flag train in one process"
        )
    for name in ("steps", "batch", "threads"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name}: got {getattr(cfg, name)}, expected at least 1")
    if cfg.seed < 0:
        raise ValueError(f"seed: got {cfg.seed}, expected at least 0")
    if not cfg.checkpoint_s >= 0:
        raise ValueError(f"checkpoint_s: got {cfg.checkpoint_s}, expected at least 0 s")
    if measure_every < 0:
        raise ValueError(f"measure_every: got {measure_every}, expected at least 0")
    if not 0 < cfg.learning_rate < float("inf"):
        raise ValueError(f"learning_rate: got {cfg.learning_rate}, expected a positive number, for example 1e-3")
    torch.set_num_threads(cfg.threads)
    return Plan(cfg.steps, cfg.batch, cfg.learning_rate, weight_decay, cfg.seed, cfg.checkpoint_s, measure_every, parts)


class Order:
    """Which rows a step takes: every row once per epoch, each epoch in its own order, epochs without a seam."""

    def __init__(self, rows: np.ndarray, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """Return the rows of a step, (batch,)."""
        return self.take(step * self.batch, self.batch)

    def take(self, first: int, count: int) -> np.ndarray:
        """Return `count` rows, (count,), from the place `first` of the endless order on."""
        epochs, places = np.divmod(np.arange(first, first + count), len(self.rows))
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
    if rank() == 0:
        recover_folder(out)
    wait()
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


def decaying_groups(model: torch.nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Return `fit`'s groups of all parameters at the plan's rate; matrices decay, vectors do not."""
    moving = [p for p in model.parameters() if p.requires_grad]
    matrices, rest = [p for p in moving if p.ndim >= 2], [p for p in moving if p.ndim < 2]
    shared = {"rate": plan.rate}
    return [
        {"params": matrices, "weight_decay": plan.weight_decay, **shared},
        {"params": rest, "weight_decay": 0.0, **shared},
    ]


def fit(
    model: torch.nn.Module,
    losses_of: Callable[[int, torch.Generator], dict[str, Tensor]],
    groups: list[dict[str, Any]],
    plan: Plan,
    settings: dict[str, Any],
    save: Callable[[Path], None],
    out: Path,
    label: str,
    measure: Callable[[], dict[str, float]] | None = None,
    report: Callable[[int, dict[str, float]], None] | None = None,
    gradients: Callable[[], dict[str, Tensor]] | None = None,
) -> dict[str, Any]:
    """Train from the checkpoint in `out`, or from the model as it is, to the end of the plan.

    Args:
        losses_of: from the number of a part (of a step, where a batch has one part) and its source of randomness to
            its "loss" and whatever else is followed.
        groups: parameters with "weight_decay" and "rate", a function from step to learning rate; at the rate 0 they
            need no gradient and cost none.
        settings: JSON values that must agree for a run to be continued.
        save: writes the model's files into a new folder.
        measure: metrics of the model in evaluation mode, taken at the end and every `plan.measure_every` steps.
        report: called after every step with its number (from 1) and losses.
        gradients: what to follow of the gradients, called before the step is taken.
    Returns:
        The metrics that are also written to metrics.json. Ctrl-C saves before it is raised.
    """
    run = _Run(model, groups, plan, settings, save, out)
    progress = Progress(label, plan.steps, "steps", run.step)
    first, saved_at = rank() == 0, time.monotonic()
    measure, report = (measure, report) if first else (None, None)
    with Interruptible() as interrupt:
        while run.step < plan.steps:
            losses = run.advance(losses_of, gradients)
            if measure is not None and (run.step == plan.steps or run.step % (plan.measure_every or plan.steps) == 0):
                model.eval()
                measured = measure()
                run.metrics |= measured
                losses |= {name: torch.tensor(value) for name, value in measured.items()}
            if first:
                progress.advance(1, _note(run.metrics))
            if report is not None:
                report(run.step, {k: float(v) for k, v in losses.items()})
            due = time.monotonic() - saved_at > plan.checkpoint_s
            asked, due = any_of([interrupt.asked, due], losses["loss"].device)
            if asked or due:
                run.save()
                saved_at = time.monotonic()
            if asked:
                raise KeyboardInterrupt
    run.save()
    if first:
        progress.close(_note(run.metrics))
    return run.metrics


class _Run:
    """A model with its optimiser, its step and running means of its losses."""

    def __init__(self, model, groups: list[dict], plan: Plan, settings: dict, save: Callable, out: Path) -> None:
        self.model, self.plan, self.settings, self.out = model, plan, settings, out
        self._save_model = save
        self.names = {p: n for n, p in model.named_parameters() if p.requires_grad}
        self._rates = [group["rate"] for group in groups]
        parts = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in groups]
        self.optimizer = torch.optim.AdamW(parts, lr=plan.learning_rate, betas=(0.9, 0.95), fused=True)
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

    def advance(self, losses_of: Callable, gradients: Callable | None) -> dict[str, Tensor]:
        """Take one optimiser step and return its losses: "loss" of the whole batch, others of this process's parts."""
        self.model.train()
        for group, rate in zip(self.optimizer.param_groups, self._rates):
            group["lr"] = rate(self.step)
            for parameter in group["params"]:
                parameter.requires_grad_(group["lr"] > 0.0)
        self.optimizer.zero_grad()
        parts = self.plan.parts
        of_parts = [self._backward(losses_of, self.step * parts + i) for i in range(rank(), parts, count())]
        sum_gradients(self.names)
        names = dict.fromkeys(name for of in of_parts for name in of)
        losses = {name: torch.stack([of[name] for of in of_parts if name in of]).mean() for name in names}
        losses["loss"] = mean(losses["loss"])
        if gradients is not None:
            losses |= gradients()
        torch.nn.utils.clip_grad_norm_(self.names, 1.0)
        self.optimizer.step()
        self.step += 1
        self._keep(losses)
        return losses

    def _backward(self, losses_of: Callable, part: int) -> dict[str, Tensor]:
        """Add one part's share to the gradients and return its losses."""
        seed = self.plan.seed * 1_000_003 + part
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # dropout draws from torch's own generator
        losses = losses_of(part, self._generator)
        (losses["loss"] / self.plan.parts).backward()
        return {name: value.detach() for name, value in losses.items()}

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
        """Write the checkpoint folder, once for all processes."""
        if rank() == 0:
            replace_folder(self.out, self._write)
        wait()

    def _write(self, folder: Path) -> None:
        self._save_model(folder)
        (folder / "training").mkdir()
        save_optimizer(folder / "training", self.optimizer, self.names)
        state = {"step": self.step, "metrics": self.metrics, "settings": self.settings}
        (folder / STATE).write_text(json.dumps(state, indent=2, allow_nan=False) + "\n")
        (folder / "metrics.json").write_text(json.dumps(self.metrics, indent=2, allow_nan=False) + "\n")


def _note(losses: dict[str, Any]) -> str:
    shown = ("loss", "mani_accuracy", "loco_accuracy", "arm_error_rad", "flag_accuracy", "held_out_flag_accuracy")
    shown += ("loss/flow_matching", "held_out_loss", "validation/success_rate")
    return ", ".join(f"{name} {float(losses[name]):.3f}" for name in shown if name in losses)
