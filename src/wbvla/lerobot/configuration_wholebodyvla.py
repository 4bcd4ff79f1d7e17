"""LeRobot configuration of the VLA. In: `--policy.*` flags, a dataset's features. Out: `WholeBodyVLAConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from wbvla.recipes.vla import vla_tiny
from wbvla.types import ACTION_DIM
from wbvla.vla.config import VlaConfig

HEAD = "observation.images.head"


@PreTrainedConfig.register_subclass("wholebodyvla")
@dataclass
class WholeBodyVLAConfig(PreTrainedConfig):
    """The VLA as a LeRobot policy.

    Attributes:
        vla: the model, see wbvla.vla.config. Its state_dim follows the dataset.
        init_from: checkpoint of `wbvla vla pretrain|finetune` whose weights training starts from.
        robot: whose whole-body actions these are.
        n_action_steps: actions that `select_action` plays from one chunk before it looks again.
        fps, tasks, lam: facts about the training data, filled in by training, kept for the checkpoint's contract.
        normalization_mapping: identity, the model keeps its own statistics.
    """

    vla: VlaConfig = field(default_factory=vla_tiny)
    init_from: str | None = None
    robot: str = "g1"
    n_action_steps: int = 8
    fps: float = 20.0
    tasks: list[str] = field(default_factory=list)
    lam: dict = field(default_factory=dict)
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 0.05
    scheduler_warmup_steps: int = 100
    scheduler_decay_steps: int = 2000
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.vla.chunk_steps:
            raise ValueError(f"n_action_steps: got {self.n_action_steps}, expected 1 to {self.vla.chunk_steps}")

    @property
    def head_key(self) -> str:
        """The camera feature the model looks through: the head's, or the only one."""
        cameras = list(self.image_features)
        if HEAD in cameras:
            return HEAD
        if len(cameras) != 1:
            raise ValueError(f"cameras: got {cameras}, expected {HEAD!r} or exactly one camera")
        return cameras[0]

    def validate_features(self) -> None:
        """Raise ValueError unless the dataset has a head camera, a state and the 20-D whole-body action."""
        _ = self.head_key
        state, action = self.robot_state_feature, self.action_feature
        if state is None or len(state.shape) != 1:
            raise ValueError(f"{OBS_STATE}: got {state and state.shape}, expected a vector; record with wbvla collect")
        if action is None or tuple(action.shape) != (ACTION_DIM,):
            raise ValueError(f"{ACTION}: got {action and action.shape}, expected ({ACTION_DIM},) whole-body actions")

    def get_optimizer_preset(self) -> AdamWConfig:
        """The optimiser of wbvla.vla.loop."""
        return AdamWConfig(
            lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, betas=(0.9, 0.95), grad_clip_norm=1.0
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Warm-up and cosine; LeRobot shrinks both to a shorter run's steps."""
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
            peak_lr=self.optimizer_lr,
            decay_lr=0.02 * self.optimizer_lr,
        )

    @property
    def observation_delta_indices(self) -> None:
        """One observation, the current one."""
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk: this row's action and the following ones."""
        return list(range(self.vla.chunk_steps))

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None
