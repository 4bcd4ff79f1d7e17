"""The VLA as a LeRobot policy. In: LeRobot batches. Out: loss in training, action chunks in use.

A thin shell around wbvla.vla.model: it translates batches, and writes the contract beside LeRobot's files so that its
checkpoints open with wbvla.vla.policy.VlaPolicy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from wbvla.contract import save_contract
from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig
from wbvla.robots import get_robot
from wbvla.types import action_names, state_names
from wbvla.vla.checkpoint import load_model
from wbvla.vla.contracts import check_robot, vla_contract
from wbvla.vla.model import WholeBodyVla
from wbvla.vla.policy import fit_images
from wbvla.vla.processes import rank
from wbvla.vla.text import tokenize


class WholeBodyVLAPolicy(PreTrainedPolicy):
    """WholeBodyVLA behind LeRobot's policy interface.

    Args:
        config: with features filled in by LeRobot.
        dataset_stats: mean and standard deviation of the state and the action; needed to train, not to load.
        dataset_meta: the dataset's metadata; its names are held against the robot's.
    Raises:
        ValueError: the features are not a whole-body dataset's, or belong to another robot.
    """

    config_class = WholeBodyVLAConfig
    name = "wholebodyvla"

    def __init__(self, config: WholeBodyVLAConfig, dataset_stats=None, dataset_meta=None, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        if dataset_meta is not None:
            _check_names(dataset_meta.features, config.robot)
            config.fps, config.tasks = float(dataset_meta.fps), [str(task) for task in dataset_meta.tasks.index]
        self.model = self._make_model(config)
        if dataset_stats is not None:
            state, action = dataset_stats[OBS_STATE], dataset_stats[ACTION]
            self.model.set_statistics(state["mean"], state["std"], action["mean"], action["std"])
        # counts training batches: the randomness of each is a function of its number, so that a resumed run, which
        # loads this buffer, equals a straight one
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self._generator = torch.Generator()
        self.reset()

    def _make_model(self, config: WholeBodyVLAConfig) -> WholeBodyVla:
        if config.init_from is None or config.pretrained_path is not None:
            config.vla = replace(config.vla, state_dim=config.robot_state_feature.shape[0])
            return WholeBodyVla(config.vla)
        model, contract = load_model(config.init_from)
        check_robot(contract, config.init_from, config.robot)
        config.vla, config.lam = model.config, contract["lam"]
        return model

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Weight decay acts on matrices only."""
        used = [p for p in self.parameters() if p.requires_grad]
        matrices, rest = [p for p in used if p.ndim >= 2], [p for p in used if p.ndim < 2]
        return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]

    def reset(self) -> None:
        """Forget the rest of the last chunk."""
        self._queue: deque[Tensor] = deque()

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a training batch and its parts."""
        inputs = self._inputs(batch)
        actions = batch[ACTION]
        inputs["actions"] = actions
        padded = batch.get("action_is_pad")
        inputs["padded"] = torch.zeros(actions.shape[:2], dtype=torch.bool) if padded is None else padded
        inputs["padded"] = inputs["padded"].to(actions.device)
        if self.training:
            self._generator.manual_seed(1_000_003 * int(self.draws) + rank())
            self.draws += 1
        losses = self.model.losses(inputs, self._generator)
        return losses["loss"], {name: float(value.detach()) for name, value in losses.items() if name != "loss"}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Return (B, T, 20) actions in physical units."""
        self.eval()
        inputs = self._inputs(batch)
        return self.model(inputs["images"], inputs["tokens"], inputs["state"]).actions

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Return the next (B, 20) action; looks again after `n_action_steps`."""
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Translate LeRobot's names, channel order and pixel range to the model's."""
        images = batch[self.config.head_key]
        images = (images * 255.0).round().permute(0, 2, 3, 1)
        tasks = batch.get("task") or [""] * len(images)
        tasks = [tasks] * len(images) if isinstance(tasks, str) else list(tasks)
        return {
            "images": fit_images(images, self.config.vla.image_size),
            "tokens": torch.from_numpy(tokenize(tasks)).to(images.device),
            "state": batch[OBS_STATE],
        }

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict)
        config = self.config
        contract = vla_contract(self.model, "finetune", config.robot, config.fps, config.tasks, config.lam, {})
        save_contract(Path(save_directory) / "contract.json", contract)


def _check_names(features: dict[str, Any], robot: str) -> None:
    """Refuse a dataset whose state and action entries are not this robot's."""
    body = get_robot(robot)
    for key, wanted in ((OBS_STATE, state_names(body.joints)), (ACTION, action_names(body.arm_joints))):
        got = list(features[key].get("names") or [])
        if got != wanted:
            raise ValueError(f"{key}: got {len(got)} names ({got[:1]}, ...), expected the {len(wanted)} of {robot!r}")
