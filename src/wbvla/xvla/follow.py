"""What one follows while an X-VLA trains. In: a model, losses. Out: gradient norms, success, curves.

Heavy parts are imported where they are needed: measuring success takes the simulator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wbvla.xvla.model import Xvla

Report = Callable[[int, dict[str, float]], None]


def prompt_gradient(model: Xvla) -> torch.Tensor:
    """Return the norm of the soft prompts' gradients, all robots together."""
    prompts = [head.prompt.grad for head in model.domains.values() if head.prompt.grad is not None]
    return torch.stack([p.norm() for p in prompts]).norm() if prompts else torch.zeros(())


def success_rate(model: Xvla, task: str, robot: str, trials: int) -> float:
    """Return the share of a task's validation episodes that a model finishes. Raises ValueError: cannot play it."""
    from wbvla.evaluation.rollout import rollout
    from wbvla.sim.seeds import seeds_for
    from wbvla.xvla.policy import for_tasks

    policy = for_tasks(model, robot)
    seeds = seeds_for("validation", trials)
    return sum(rollout(task, robot, policy, seed, 0.1, policy.image_size).success for seed in seeds) / len(seeds)


class Logger:
    """Passes a step's losses to a project of Weights & Biases, where one is given, and to the caller's report."""

    def __init__(self, project: str | None, out: str, config: dict[str, Any], report: Report | None) -> None:
        self._project, self._out, self._config = project, Path(out).resolve(), config
        self._report, self._run = report, None

    def __enter__(self) -> Report:
        if self._project is not None:
            import wandb

            name = hashlib.sha256(str(self._out).encode()).hexdigest()[:12]  # the same folder continues the same curves
            self._run = wandb.init(
                project=self._project, name=self._out.name, id=name, resume="allow", config=self._config
            )
        return self._log

    def _log(self, step: int, losses: dict[str, float]) -> None:
        if self._run is not None:
            self._run.log(losses, step=step)
        if self._report is not None:
            self._report(step, losses)

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.finish()
