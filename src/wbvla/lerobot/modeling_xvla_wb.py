"""X-VLA as a LeRobot policy. In: LeRobot batches. Out: losses in training, action chunks in use.

A thin shell around wbvla.xvla.model: it finds or adds the dataset's robot, and translates batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc import RTCProcessor
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from torch import Tensor

from wbvla.lerobot import libero
from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
from wbvla.recipes.xvla import get_xvla_recipe
from wbvla.vla.processes import rank
from wbvla.xvla.batches import arrange_views, squash
from wbvla.xvla.checkpoint import load_model
from wbvla.xvla.config import XvlaConfig, domain_name, new_id
from wbvla.xvla.model import Xvla
from wbvla.xvla.phases import MODES, parameter_groups, require_layers, set_trainable
from wbvla.xvla.rtc import Previous
from wbvla.xvla.sources import stored_domain
from wbvla.xvla.tokens import make_tokenizer


class XvlaWbPolicy(PreTrainedPolicy):
    """X-VLA behind LeRobot's policy interface.

    Args:
        config: with features filled in by LeRobot.
        dataset_stats: mean and standard deviation of state and action, taken for a robot that is new to the model.
        dataset_meta: the dataset's metadata; its robot type names the domain when no flag does.
    Raises:
        ValueError: the dataset's numbers are not those of the robot in the checkpoint, or a flag does not fit.
    """

    config_class = XvlaWbConfig
    name = "xvla_wb"

    def __init__(self, config: XvlaWbConfig, dataset_stats=None, dataset_meta=None, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        if dataset_meta is not None:
            _take_stored_domain(config, dataset_meta)
        if config.domain is None:
            config.domain = _robot_type(dataset_meta)
        self.model = _start(config, dataset_stats)
        if config.mode == "lora" and not self.model.config.lora_rank:
            self.model.add_adapters(config.lora_rank)
        set_trainable(self.model, config.mode, [config.domain], config.freeze)
        if config.chunk_size not in (0, self.model.config.chunk_steps):
            raise ValueError(
                f"chunk_size: got {config.chunk_size}, expected {self.model.config.chunk_steps}, the model's; leave it "
                "out, or play less of a chunk by n_action_steps"
            )
        config.xvla, config.chunk_size = self.model.config.to_dict(), self.model.config.chunk_steps
        if config.n_action_steps > config.chunk_size:
            raise ValueError(f"n_action_steps: got {config.n_action_steps}, expected at most {config.chunk_size}")
        self._tokenize = None
        self._prompt_gradient = 0.0
        prompt = self.model.domains[config.domain].prompt
        if prompt.requires_grad:
            prompt.register_hook(self._note_gradient)
        # counts training batches: the noise of each is a function of its number, so that a resumed run, which loads
        # this buffer, equals a straight one
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self._generator = torch.Generator()
        self.init_rtc_processor()
        self.reset()

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Groups by part, with the learning rates of wbvla.xvla.phases."""
        config = self.config
        return parameter_groups(
            self.model, config.optimizer_lr, config.optimizer_pretrained_scale, config.optimizer_prompt_scale
        )

    def reset(self) -> None:
        """Forget the rest of the last chunk."""
        self._queue: deque[Tensor] = deque()
        self._rest: Tensor | None = None

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a training batch and what to log; the prompt's gradient is the previous batch's."""
        if self.config.released_for is not None:
            raise ValueError("released_for: translates what is played, expected none in training; leave it out")
        inputs = self._inputs(batch)
        inputs["actions"] = batch[ACTION]
        if "action_is_pad" in batch:
            inputs["padded"] = batch["action_is_pad"].to(batch[ACTION].device)
        if self.training:
            self._generator.manual_seed(1_000_003 * int(self.draws) + rank())
            self.draws += 1
        losses = self.model.losses(inputs, generator=self._generator)
        logged = {f"loss/{kind}": float(value.detach()) for kind, value in losses.items() if kind != "loss"}
        return losses["loss"], {**logged, "gradients/soft_prompt_norm": self._prompt_gradient}

    def supports_rtc(self) -> bool:
        """LeRobot's asynchronous rollout asks this."""
        return True

    def init_rtc_processor(self) -> None:
        """Take `config.rtc_config`; LeRobot's rollout sets it after loading and calls this."""
        rtc = self.config.rtc_config
        self.rtc_processor = RTCProcessor(rtc) if rtc is not None and rtc.enabled else None

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        noise: Tensor | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return (B, T, A) actions in the dataset's units; the same noise (B, T, W) gives the same actions.

        Args:
            inference_delay: steps that will be played before this chunk arrives; with `rtc_config` it repeats them.
            prev_chunk_left_over: (P, A) or (B, P, A), what is left of the last chunk, in the dataset's units.
            execution_horizon: steps of it that guide this chunk; None = that of `rtc_config`.
        """
        self.eval()
        inputs = self._inputs(batch)
        previous = self._previous(prev_chunk_left_over, inference_delay or 0, execution_horizon, len(inputs["images"]))
        with torch.autocast(inputs["images"].device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            chunk = self.model.sample(inputs, self.config.num_denoising_steps, noise, previous=previous).float()
        return chunk if self.config.released_for is None else libero.as_actions(chunk)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], noise: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the next (B, A) action; looks again after `n_action_steps`, with `rtc_config` going on from there."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch, noise, prev_chunk_left_over=self._rest)
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
            self._rest = chunk[:, self.config.n_action_steps :]
        return self._queue.popleft()

    def _previous(self, rest: Tensor | None, delay: int, horizon: int | None, samples: int) -> Previous | None:
        """Weigh the rest of the last chunk as LeRobot does; None without real-time chunking or without a rest."""
        if self.rtc_processor is None or rest is None:
            return None
        if self.config.released_for is not None:
            raise ValueError("rtc_config: released_for plays whole chunks; leave one of them out")
        rest = rest if rest.ndim == 3 else rest.expand(samples, *rest.shape)
        rest = rest[:, : self.config.chunk_size]
        # LeRobot's rollout pads what is left with zeros to a fixed length: those steps ask for nothing
        played = rest.abs().amax(dim=(0, 2)).nonzero()
        rest = rest[:, : int(played[-1]) + 1 if len(played) else 0]
        steps, rtc = rest.shape[1], self.config.rtc_config
        horizon = min(rtc.execution_horizon if horizon is None else horizon, steps)
        if not horizon:
            return None
        weights = self.rtc_processor.get_prefix_weights(delay, horizon, self.config.chunk_size)
        return Previous(rest, weights, min(delay, steps), rtc.max_guidance_weight)

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Translate LeRobot's names, channel order and pixel range to the model's."""
        model = self.model
        domain = model.config.domains[self.config.domain]
        ids = torch.as_tensor(batch.get("domain_id", domain.id)).flatten().tolist()
        others = {model.resolve(i) for i in ids} - {self.config.domain}
        if others:
            raise ValueError(f"domain_id: got {', '.join(others)}'s, expected {self.config.domain}'s, {domain.id}")
        if self.config.released_for is not None:
            batch = libero.as_released(batch)
        # a robot's only camera may be called observation.image
        pictures = (key for key in batch if key == OBS_IMAGE or key.startswith(f"{OBS_IMAGES}."))
        cameras = {key.removeprefix(f"{OBS_IMAGES}."): key for key in pictures}
        cameras = {name: key for name, key in cameras.items() if not name.endswith("_is_pad")}
        if whole := [key for key in cameras.values() if not batch[key].is_floating_point()]:
            raise ValueError(f"{whole[0]}: got whole numbers, expected RGB in [0, 1], (samples, 3, height, width)")
        if domain.state_dim and OBS_STATE not in batch:
            raise ValueError(f"{OBS_STATE}: missing, expected {domain.state_dim} numbers a sample")
        pixels = {name: (batch[key] * 255.0).permute(0, 2, 3, 1) for name, key in cameras.items()}
        images, views = arrange_views(domain, {n: squash(p, model.config.image_size) for n, p in pixels.items()})
        tasks = batch.get("task") or [""] * len(images)
        tasks = [tasks] * len(images) if isinstance(tasks, str) else list(tasks)
        if len(tasks) != len(images):
            raise ValueError(f"task: got {len(tasks)}, expected one for each of the {len(images)} samples")
        return {
            "images": images,
            "views": views,
            "tokens": self._tokens(tasks).to(images.device),
            "state": batch[OBS_STATE] if domain.state_dim else images.new_zeros(len(images), 0),
            "domains": [self.config.domain] * len(images),
        }

    def _tokens(self, tasks: Sequence[str]) -> Tensor:
        if self._tokenize is None:
            config, vlm = self.model.config, self.model.vlm
            self._tokenize = make_tokenizer(config.tokenizer, config.text_tokens, vlm.vocabulary, vlm.pad_token)
        return self._tokenize(tasks)

    def _note_gradient(self, gradient: Tensor) -> None:
        self._prompt_gradient = float(gradient.norm())


def _take_stored_domain(config: XvlaWbConfig, dataset_meta: Any) -> None:
    """Fill in the robot that the dataset itself names. Raises ValueError if a flag says another."""
    facts = stored_domain(dataset_meta.root)
    stored_as = {"domain": "name", "domain_id": "id", "action_mode": "action", "masked_actions": "masked_actions"}
    for flag, key in stored_as.items():
        given, stored = getattr(config, flag), facts.get(key)
        if stored is not None and given in (None, []):
            setattr(config, flag, stored)
        elif stored not in (None, given):
            raise ValueError(f"{flag}: got {given!r}, expected {stored!r}, which {dataset_meta.root} stores")


def _robot_type(dataset_meta: Any) -> str:
    """Return the dataset's robot type as the name of a domain. Raises ValueError if it has none."""
    kind = getattr(dataset_meta, "robot_type", None)
    if not kind:
        raise ValueError("domain: the dataset names no robot type; give --policy.domain=<name of the robot>")
    return domain_name(str(kind))


def _id(config: XvlaWbConfig, taken: Iterable[int]) -> int:
    return new_id(config.domain, taken) if config.domain_id is None else config.domain_id


def _start(config: XvlaWbConfig, dataset_stats: dict[str, Any] | None) -> Xvla:
    """Build the model of a saved configuration, of a checkpoint, or of a recipe, and add the dataset's robot."""
    wishes = {name: getattr(config, name) for name in ("attention", "objective") if getattr(config, name) is not None}
    if config.xvla:
        model = Xvla(XvlaConfig.from_dict(config.xvla))
    elif config.init_from is not None:
        model = load_model(config.init_from)
        model.config = replace(model.config, **wishes)
    elif config.mode in set(MODES) - {"joint"} or config.like is not None:
        flag = "mode" if config.like is None else "like"
        got = f"{flag}: got {getattr(config, flag)!r} for a new model, whose other parts are random and robots none"
        raise ValueError(f"{got}; give --policy.init_from")
    else:
        domains = {config.domain: config.dataset_domain(_id(config, ()))}
        model = Xvla(replace(get_xvla_recipe(config.recipe, domains), **wishes))
    known = model.config.domains.get(config.domain)
    if config.released_for is not None:
        if known is None or (known.action, known.state_dim) != ("ee6d", libero.POSE_DIM):
            raise ValueError(f"released_for: domain {config.domain!r} is {known}, expected the released robot in ee6d")
        return model
    if known is None:
        new = config.dataset_domain(_id(config, (domain.id for domain in model.config.domains.values())))
        copied = model.add_domain(config.domain, new, config.like)
        require_layers(config.mode, config.domain, copied)
    else:
        wanted = config.dataset_domain(known.id if config.domain_id is None else config.domain_id)
        if config.action_mode is None:
            wanted = replace(wanted, action=known.action)
        keys = ("id", "action", "action_dim", "state_dim")
        strange = set(wanted.cameras) - set(known.cameras)  # it may lack some
        if strange or any(getattr(known, key) != getattr(wanted, key) for key in keys):
            raise ValueError(
                f"domain {config.domain!r}: the checkpoint has {known}, the dataset {wanted}; give --policy.domain "
                "another name to add a robot"
            )
    if dataset_stats is not None and "max" in dataset_stats[ACTION]:
        model.domains[config.domain].space.require_range(dataset_stats[ACTION]["min"], dataset_stats[ACTION]["max"])
    if dataset_stats is not None and not config.xvla and (known is None or config.init_from is None):
        action, state = (
            None if key not in dataset_stats else (dataset_stats[key]["mean"], dataset_stats[key]["std"])
            for key in (ACTION, OBS_STATE)
        )  # fmt: skip
        model.set_statistics(config.domain, action, state, config.like if config.init_from is not None else None)
    return model
