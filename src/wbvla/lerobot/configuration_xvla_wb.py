"""LeRobot configuration of X-VLA. In: `--policy.*` flags, a dataset's features. Out: `XvlaWbConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, LRSchedulerConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from wbvla.xvla.config import Domain


@LRSchedulerConfig.register_subclass("xvla_wb")
@dataclass
class XvlaSchedulerConfig(LRSchedulerConfig):
    """Warm-up by group, see wbvla.xvla.phases.learning_rate_factors; both times shrink with a shorter run."""

    num_warmup_steps: int = 2000
    hold_steps: int = 0
    floor: float = 0.025

    def build(self, optimizer: Optimizer, num_training_steps: int) -> LambdaLR:
        """Return the schedule; LeRobot calls this."""
        from wbvla.xvla.phases import learning_rate_factors

        share = min(1.0, num_training_steps / max(1, 2 * (self.num_warmup_steps + self.hold_steps)))
        warmup, hold = int(share * self.num_warmup_steps), int(share * self.hold_steps)
        names = [group["name"] for group in optimizer.param_groups]
        return LambdaLR(optimizer, learning_rate_factors(names, num_training_steps, warmup, hold, self.floor))


@PreTrainedConfig.register_subclass("xvla_wb")
@dataclass
class XvlaWbConfig(PreTrainedConfig):
    """X-VLA as a LeRobot policy.

    Attributes:
        domain: name of the robot in the checkpoint's table; None = the dataset's robot type. A new name adds a robot
            with this dataset's numbers.
        domain_id: number of a new robot; None = the published one of its name, else the next free one from 34 on.
        like: robot whose soft prompt, and with the same action space also action layers, a new one starts from.
        action_mode: action space of a new robot, see wbvla.xvla.actions; None = what the dataset says, else auto.
        masked_actions: entries of a new robot's whole-body action that it does not have, such as 14 and 15: grippers.
        init_from: checkpoint folder that training starts from: ours, LeRobot's `xvla` or 2toINF's.
        released_for: "libero": `init_from` holds the released weights for that benchmark, which are to play it; state,
            actions and pictures are translated, see wbvla.lerobot.libero. Not for training.
        recipe: of a new model, when init_from is left out.
        attention, objective: "prefix" or "bidirectional", "clean" or "velocity"; None = the recipe's or checkpoint's.
        mode, freeze: what moves, see wbvla.xvla.phases.set_trainable.
        lora_rank: of the adapters in mode "lora".
        num_denoising_steps: passes through the network for a chunk.
        n_action_steps: actions that `select_action` plays from one chunk before it looks again.
        rtc_config: real-time chunking: a chunk continues the one before, see wbvla.xvla.rtc; None = off.
        dtype: "bfloat16" computes in it; weights and optimiser stay float32.
        optimizer_pretrained_scale, optimizer_prompt_scale: of the learning rate of the encoder and of the prompts.
        scheduler_hold_steps: steps in which only prompts, action layers and adapters move (warm-up of phase II).
        xvla: the model's own configuration, filled in by training.
        normalization_mapping: identity, the model keeps its own statistics.
    """

    domain: str | None = None
    domain_id: int | None = None
    like: str | None = None
    action_mode: str | None = None
    masked_actions: list[int] = field(default_factory=list)
    init_from: str | None = None
    released_for: str | None = None
    recipe: str = "tiny"
    attention: str | None = None
    objective: str | None = None
    mode: str = "joint"
    freeze: list[str] = field(default_factory=list)
    lora_rank: int = 8
    num_denoising_steps: int = 10
    n_action_steps: int = 8
    rtc_config: RTCConfig | None = None
    dtype: str = "float32"
    optimizer_lr: float = 1e-4
    optimizer_weight_decay: float = 0.0
    optimizer_pretrained_scale: float = 0.1
    optimizer_prompt_scale: float = 1.0
    scheduler_warmup_steps: int = 2000
    scheduler_hold_steps: int = 0
    chunk_size: int = 0  # the model's, filled in with `xvla`
    xvla: dict = field(default_factory=dict)
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype: got {self.dtype!r}, expected float32 or bfloat16")
        if self.released_for not in (None, "libero"):
            raise ValueError(f"released_for: got {self.released_for!r}, expected libero")
        if self.num_denoising_steps < 1 or self.n_action_steps < 1:
            raise ValueError("num_denoising_steps, n_action_steps: expected at least 1")

    def validate_features(self) -> None:
        """Raise ValueError unless the dataset has a camera and an action vector."""
        if not self.image_features:
            raise ValueError(f"cameras: got none, expected at least one {OBS_IMAGES}.<name>")
        for key, feature in ((ACTION, self.action_feature), (OBS_STATE, self.robot_state_feature)):
            if (feature is None and key == ACTION) or (feature is not None and len(feature.shape) != 1):
                raise ValueError(f"{key}: got {feature and feature.shape}, expected a vector")

    def dataset_domain(self, domain_id: int) -> Domain:
        """Describe the dataset's robot; the entries' number is the dataset's, so that nothing is cut off."""
        state = self.robot_state_feature
        return Domain(
            id=domain_id,
            action=self.action_mode or "auto",
            action_dim=self.action_feature.shape[0],
            state_dim=state.shape[0] if state is not None else 0,
            masked_actions=tuple(self.masked_actions),
            cameras=tuple(key.removeprefix(f"{OBS_IMAGES}.") for key in self.image_features),
        )

    def get_optimizer_preset(self) -> AdamWConfig:
        """The optimiser of the paper."""
        return AdamWConfig(
            lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, betas=(0.9, 0.95), grad_clip_norm=1.0
        )

    def get_scheduler_preset(self) -> XvlaSchedulerConfig:
        """Warm-up by group, then a cosine."""
        return XvlaSchedulerConfig(num_warmup_steps=self.scheduler_warmup_steps, hold_steps=self.scheduler_hold_steps)

    @property
    def observation_delta_indices(self) -> None:
        """One observation, the current one."""
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk: this row's action and the following ones. LeRobot asks before the model is built."""
        return list(range(self.chunk_size or self._chunk_steps()))

    def _chunk_steps(self) -> int:
        """Look up the length of a chunk in the checkpoint or recipe that training will start from."""
        if self.init_from is not None:
            from wbvla.xvla.checkpoint import read_chunk_steps

            return read_chunk_steps(self.init_from)
        from wbvla.recipes.xvla import get_xvla_recipe

        return get_xvla_recipe(self.recipe, {"robot": Domain(0, "auto", 1, 0)}).chunk_steps

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None
