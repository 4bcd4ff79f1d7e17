"""LeRobot's environment type `wbvla`. In: `--env.*` flags. Out: vectorised gymnasium environments, one set a task.

`lerobot-eval` steps them `fps` times a second of simulated time and waits for the policy: no latency is counted.
Pictures and states have the names, shapes and order of our recordings, so a policy trained on them needs no renaming.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import gymnasium
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_STATE

from wbvla.contract import require_match
from wbvla.data.frames import HEAD, IMAGES, read_facts, read_info
from wbvla.robots import get_robot
from wbvla.sim.listing import choose_tasks
from wbvla.sim.tasks import get_task
from wbvla.sim.tasks.base import check_axes
from wbvla.types import ACTION_DIM, check_action_rate, state_names


@EnvConfig.register_subclass("wbvla")
@dataclass
class WbvlaEnvConfig(EnvConfig):
    """The simulated tasks as a LeRobot environment.

    Attributes:
        task: box-loading, bag-packing or cart-pushing, several with commas between them, or all.
        fps: actions a second, 10 to 50; as in the recording that the policy was trained on.
        robot: who does it.
        image_size: side of the head picture in pixels; as in the recording that the policy was trained on.
        pictures: what the policy sees beside the head picture: left_wrist, right_wrist.
        split: whose episodes: train, validation or test; LeRobot's seed counts within it and wraps at its end.
        unseen: axes of variation drawn from their unseen ranges, see `wbvla tasks`.
        dataset: folder of the recording that the policy was trained on; its joints, picture and rate must be ours.
    """

    task: str | None = "box-loading"
    fps: int = 20
    robot: str = "g1"
    image_size: int = 96
    pictures: tuple[str, ...] = ()
    split: str = "test"
    unseen: tuple[str, ...] = ()
    dataset: str | None = None

    def __post_init__(self) -> None:
        for task in choose_tasks(self.task or ""):
            check_axes(self.unseen, get_task(task).axes)
        check_action_rate(self.fps)
        self.pictures = tuple(self.pictures)
        if not set(self.pictures) <= {"left_wrist", "right_wrist"}:  # LeRobot's environments give colour pictures only
            raise ValueError(f"env.pictures: got {', '.join(self.pictures)}, expected left_wrist, right_wrist or both")
        size = self.image_size
        images = [HEAD, *(IMAGES + name for name in self.pictures)]
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (len(state_names(get_robot(self.robot).joints)),)),
            **{name: PolicyFeature(FeatureType.VISUAL, (size, size, 3)) for name in images},
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **{name: name for name in images}}

    @property
    def gym_kwargs(self) -> dict:
        """What every environment is made with, besides its task."""
        return {
            "robot": self.robot,
            "image_size": self.image_size,
            "pictures": self.pictures,
            "split": self.split,
            "unseen": tuple(self.unseen),
            "action_hz": self.fps,
        }

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
        """Return {task: {0: n_envs environments}}; LeRobot calls this. Raises ValueError if `dataset` does not fit."""
        from wbvla.sim.gym import LeRobotView

        if self.dataset is not None:
            self._check_dataset()
        kind, extra = gymnasium.vector.SyncVectorEnv, {}
        if use_async_envs and n_envs > 1:
            kind, extra = gymnasium.vector.AsyncVectorEnv, {"context": "forkserver"}
        extra["autoreset_mode"] = gymnasium.vector.AutoresetMode.SAME_STEP
        return {
            task: {0: kind([partial(LeRobotView.make, task, **self.gym_kwargs)] * n_envs, **extra)}
            for task in choose_tasks(self.task)
        }

    def _check_dataset(self) -> None:
        """Hold the recording's rate, picture, camera and names of state and action against ours."""
        from wbvla.data.recorder import dataset_features

        info, wanted = read_info(self.dataset), dataset_features(get_robot(self.robot), self.image_size, self.pictures)
        keys = (ACTION, OBS_STATE, HEAD, *(IMAGES + name for name in self.pictures))
        found = {k: {f: v.get(f) for f in wanted[k]} for k, v in info["features"].items() if k in keys}
        ours = {"fps": self.fps, **{key: wanted[key] for key in keys}}
        found["fps"], camera = info["fps"], read_facts(self.dataset).get("camera")
        if camera is not None:  # one of ours says how its head camera was mounted
            ours["camera"], found["camera"] = asdict(get_robot(self.robot).camera), camera
        require_match(ours, found, f"{self.dataset}: recording")
