"""A trained X-VLA ready to answer. In: the model; observations of its robots. Out: action chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wbvla.robots import get_robot
from wbvla.types import ACTION_DIM, Observation, state_names
from wbvla.vla.policy import CAMERA
from wbvla.xvla.batches import arrange_views, mix, squash
from wbvla.xvla.config import Domain, robot_facts
from wbvla.xvla.model import Xvla
from wbvla.xvla.tokens import make_tokenizer


class Prepared(NamedTuple):
    """One checked observation: images (1, V, size, size, 3), which views are there (1, V), state (1, S)."""

    robot: str
    images: Tensor
    views: Tensor
    state: Tensor
    task: str
    steps: int
    seed: int | None


class XvlaPolicy:
    """Answers observations of any of a checkpoint's robots, several at a time; keeps nothing between calls.

    Args:
        model: in evaluation mode.
        dtype: in which numbers to compute, float32 or bfloat16; the weights stay float32.
    Raises:
        ValueError: its tokenizer is not on this machine.
    """

    def __init__(self, model: Xvla, dtype: str = "float32") -> None:
        self.model, config, self._bfloat16 = model, model.config, dtype == "bfloat16"
        self._tokenize = make_tokenizer(config.tokenizer, config.text_tokens, model.vlm.vocabulary, model.vlm.pad_token)

    def prepare(
        self,
        images: Mapping[str | int, np.ndarray],
        state: np.ndarray,
        task: str,
        domain: int | None,
        steps: int = 10,
        seed: int | None = None,
    ) -> Prepared:
        """Check one observation.

        Args:
            images: (H, W, 3) uint8 RGB by camera name, or by place in the robot's order of cameras.
            state: (S,) in the dataset's units.
            task: what the robot is told.
            domain: id of the robot.
            steps, seed: denoising steps; of the noise, None = another noise every time.
        Raises:
            ValueError: no or an unknown robot, a camera that it does not have, or another state than its.
        """
        if domain is None:
            known = ", ".join(f"{d.id} ({name})" for name, d in self.model.config.domains.items())
            raise ValueError(f"domain_id: missing, expected the robot's: one of {known}")
        name = self.model.resolve(domain)
        robot = self.model.config.domains[name]
        if robot.state_dim and state.shape != (robot.state_dim,):
            raise ValueError(f"state: got {state.size} entries, expected {robot.state_dim} for {name}")
        size = self.model.config.image_size
        scaled = {
            _camera(robot, key): squash(torch.from_numpy(np.array(image)).unsqueeze(0), size).float()
            for key, image in images.items()
        }
        views = arrange_views(robot, scaled)
        vector = torch.from_numpy(np.array(state[: robot.state_dim], np.float32)).unsqueeze(0)
        return Prepared(name, *views, vector, task, steps, seed)

    @torch.inference_mode()
    def answer(self, prepared: Sequence[Prepared]) -> list[np.ndarray]:
        """Return a chunk (T, A) in the dataset's units for each observation.

        One forward pass for all that want equally many steps.
        """
        groups: dict[int, list[int]] = {}
        for i, one in enumerate(prepared):
            groups.setdefault(one.steps, []).append(i)
        chunks: dict[int, np.ndarray] = {}
        for steps, rows in groups.items():
            chunks |= zip(rows, self._sample([prepared[i] for i in rows], steps))
        return [chunks[i] for i in range(len(prepared))]

    def _sample(self, batch: Sequence[Prepared], steps: int) -> list[np.ndarray]:
        model = self.model
        device = model.transformer.pos_emb.device
        tokens = self._tokenize([one.task for one in batch])
        inputs: dict[str, Any] = mix(
            [
                {"images": one.images, "views": one.views, "tokens": row, "state": one.state, "domains": [one.robot]}
                for one, row in zip(batch, tokens.split(1))
            ],
            model.vlm.pad_token,
        )
        inputs = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
        heads = [model.domains[one.robot] for one in batch]
        noise = torch.zeros(len(batch), model.config.chunk_steps, max(head.space.width for head in heads))
        for row, one, head in zip(noise, batch, heads):  # each its own noise, whoever else is in the batch
            generator = torch.Generator()
            generator.seed() if one.seed is None else generator.manual_seed(one.seed)
            row[:, : head.space.width] = torch.randn(len(row), head.space.width, generator=generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bfloat16):
            actions = model.sample(inputs, steps, noise).float().cpu().numpy()
        return [chunk[:, : head.space.action_dim] for chunk, head in zip(actions, heads)]


class RobotPolicy:
    """One robot's X-VLA in closed loop: the same observations after the same `reset` give the same answers.

    Args:
        model: in evaluation mode.
        domain: the robot's name or id in the model.
        steps: passes through the network for a chunk.
    Raises:
        ValueError: the model does not know the robot.
    """

    def __init__(self, model: Xvla, domain: str | int, steps: int = 5) -> None:
        self._policy, self.steps = XvlaPolicy(model), steps
        self.model, self.image_size = model, model.config.image_size
        self.domain = model.config.domains[model.resolve(domain)]

    def reset(self, seed: int) -> None:
        """Begin an episode; the noise that answers start from follows from the seed."""
        self._seeds = np.random.default_rng(seed)

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return {"chunk": (T, A) float32}. Raises ValueError if image or state are not this robot's."""
        noise = int(self._seeds.integers(2**31))
        seen = {CAMERA: observation.image}, observation.state, observation.task
        return {"chunk": self._policy.answer([self._policy.prepare(*seen, self.domain.id, self.steps, noise)])[0]}


def for_tasks(model: Xvla, robot: str, steps: int = 5) -> RobotPolicy:
    """Return the policy of one of the project's robots, if the model can play the project's tasks with it.

    Args:
        model: in evaluation mode.
        robot: its name, such as "g1"; its domain is the one that `wbvla collect sim` stores.
        steps: passes through the network for a chunk.
    Raises:
        ValueError: the model does not know the robot, or not with whole-body actions, this state and a head camera.
    """
    body = get_robot(robot)
    facts, n_state = robot_facts(robot, body.masked_actions), len(state_names(body.joints))
    policy = RobotPolicy(model, facts["name"], steps)
    domain = policy.domain
    for what, got, expected in (
        ("id", domain.id, facts["id"]),
        ("action space", domain.action, facts["action"]),
        ("actions", domain.action_dim, ACTION_DIM),
        ("state", domain.state_dim or n_state, n_state),  # a robot may do without
        ("cameras", CAMERA if CAMERA in domain.cameras else ", ".join(domain.cameras), CAMERA),
    ):
        if got != expected:
            raise ValueError(
                f"domain {facts['name']!r}: {what}: got {got!r}, expected {expected!r} to play the tasks; "
                "train on a recording of `wbvla collect sim` as it is"
            )
    return policy


def _camera(robot: Domain, key: str | int) -> str:
    """Return the name of a camera given by name or place; unknown names are left to arrange_views."""
    if isinstance(key, str):
        return key
    if key >= len(robot.cameras):
        raise ValueError(f"image{key}: the robot has {len(robot.cameras)} cameras: {', '.join(robot.cameras)}")
    return robot.cameras[key]
