"""LeRobot configuration of the simulated robot. In: `--robot.*` flags. Out: `WbvlaSimConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.robots.config import RobotConfig

from wbvla.sim.listing import choose_tasks


@RobotConfig.register_subclass("wbvla_sim")
@dataclass(kw_only=True)
class WbvlaSimConfig(RobotConfig):
    """A humanoid before a task, simulated in real time.

    Attributes:
        task: what stands before it, one task.
        robot: who it is.
        seed: of the first episode, see wbvla.sim.seeds; the next ones follow.
        image_size: side of the head picture in pixels.
        pause_s: a new episode begins at the first look that comes longer than this after an action: LeRobot saved the
            last one. Counted in simulated time while the world moves, so that a slow machine makes no pauses.
        pos_names: whether ".pos" is behind the names of all numbers: lerobot-rollout hands on those and drops others.
            Off, the names are those of our own recordings.
    """

    task: str = "box-loading"
    robot: str = "g1"
    seed: int = 0
    image_size: int = 96
    pause_s: float = 0.3
    pos_names: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(choose_tasks(self.task)) > 1:
            raise ValueError(f"robot.task: got {self.task!r}, expected one task")
