"""Gymnasium face of TaskEnv: `gymnasium.make("wbvla/BoxLoading-v0")` after importing this module.

In: actions (20,) float32. Out: {"image": uint8 (S, S, 3), "state": float32 (68,)} and the pictures
that were asked for, reward 1 at success.
`LeRobotView` is the same under the names that LeRobot's evaluation wants.
"""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from wbvla.sim.env import TaskEnv
from wbvla.sim.seeds import SPLITS, seeds_for
from wbvla.sim.tasks import TASKS
from wbvla.types import ACTION_DIM


class WbvlaEnv(gymnasium.Env):
    """One task as a gymnasium environment; the arguments are TaskEnv's."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"]}

    def __init__(self, task: str = "cart-pushing", render_mode: str = "rgb_array", **arguments) -> None:
        self.inner = TaskEnv(task, **arguments)
        self.render_mode, self.metadata = render_mode, {**self.metadata, "render_fps": self.inner.action_hz}
        robot, size = self.inner.robot, self.inner.image_size
        n = robot.n_lmo
        low, high = robot.range_rad[n : n + 14].T
        h = robot.height_range_m
        self.action_space = spaces.Box(
            np.array([*low, 0, 0, -1, -1, -1, h[0]], np.float32), np.array([*high, 1, 1, 1, 1, 1, h[1]], np.float32)
        )
        assert self.action_space.shape == (ACTION_DIM,)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": spaces.Box(-np.inf, np.inf, (2 * len(robot.joints) + 10,), np.float32),
                **{name: _space(name, size) for name in self.inner.pictures},
            }
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start the episode of a seed; without one a training episode is drawn from the environment's generator."""
        super().reset(seed=seed)
        episode = seed if seed is not None else int(self.np_random.integers(len(SPLITS["train"])))
        observation = self.inner.reset(episode)
        return self._pack(observation), {"seed": episode, "task": observation.task}

    def step(self, action):
        """Apply one action. Success, a fall and a drop terminate the episode; the time limit truncates it."""
        observation, info = self.inner.step(action)
        late = info["failure"] == "timeout"
        return self._pack(observation), float(info["success"]), info["done"] and not late, late, info

    def render(self) -> np.ndarray:
        """Return the third-person picture with the head view inset."""
        return self.inner.render_video_frame()

    def close(self) -> None:
        """Free the renderers."""
        self.inner.close()

    @staticmethod
    def _pack(observation) -> dict[str, np.ndarray]:
        return {"image": observation.image, "state": observation.state, **observation.pictures}


def _space(name: str, size: int) -> spaces.Box:
    if name == "head_depth":
        return spaces.Box(0, np.iinfo(np.uint16).max, (size, size, 1), np.uint16)
    return spaces.Box(0, 255, (size, size, 3), np.uint8)


class LeRobotView(gymnasium.Wrapper):
    """One task as LeRobot's evaluation looks at it: {"pixels": {"head", ...}, "agent_pos"}, `is_success` in every info.

    Args:
        env: a WbvlaEnv.
        split: seeds count within this split and wrap at its end: seed 0 is its first episode.
    Attributes:
        task, task_description: the task's name, and what the robot is told.
    """

    def __init__(self, env: gymnasium.Env, split: str) -> None:
        super().__init__(env)
        seeds_for(split, 0)  # names the known splits if this is none of them
        inner, space = env.unwrapped.inner, env.observation_space
        task = inner.task
        self.task, self.task_description, self._split = task.name, task.text, split
        self._max_episode_steps = round(task.time_limit_s * inner.action_hz)  # LeRobot asks for it by this name
        self._pictures = inner.pictures
        pixels = spaces.Dict({"head": space["image"], **{name: space[name] for name in self._pictures}})
        self.observation_space = spaces.Dict({"pixels": pixels, "agent_pos": space["state"]})

    @classmethod
    def make(cls, task: str, split: str, **arguments) -> LeRobotView:
        """Make one from a task's name and TaskEnv's arguments; worker processes call this."""
        return cls(gymnasium.make(environment_id(task), disable_env_checker=True, **arguments), split)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start the seed-th episode of the split; without a seed any of them."""
        super().reset(seed=seed)
        index = seed if seed is not None else int(self.np_random.integers(len(SPLITS[self._split])))
        observation, info = self.env.reset(seed=seeds_for(self._split, 1, index % len(SPLITS[self._split]))[0])
        return self._rename(observation), {**info, "is_success": False}

    def step(self, action):
        """Apply one action (20,), flags rounded to -1, 0 or 1."""
        observation, reward, ended, cut, info = self.env.step(action)
        return self._rename(observation), reward, ended, cut, {**info, "is_success": info["success"]}

    def _rename(self, observation: dict[str, np.ndarray]) -> dict:
        pixels = {"head": observation["image"], **{name: observation[name] for name in self._pictures}}
        return {"pixels": pixels, "agent_pos": observation["state"]}


def environment_id(task: str) -> str:
    """Return a task's gymnasium id: "box-loading" is "wbvla/BoxLoading-v0"."""
    return f"wbvla/{task.title().replace('-', '')}-v0"


for _task in TASKS:
    gymnasium.register(id=environment_id(_task), entry_point="wbvla.sim.gym:WbvlaEnv", kwargs={"task": _task})
