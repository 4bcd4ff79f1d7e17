"""The simulated humanoid as a LeRobot robot. In: named whole-body actions. Out: named states and head pictures.

The world and the 50 Hz fast loop of `wbvla run` live in a thread of their own, in real time: an action is played as a
chunk for half a second at most, then the robot holds and stands, as it would when a policy server falls silent.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from lerobot.robots.robot import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from wbvla.lerobot.config_wbvla_sim import WbvlaSimConfig
from wbvla.lmo.controller import shipped_controller
from wbvla.robots import get_robot
from wbvla.runtime.clock import WallClock
from wbvla.runtime.loop import FastLoop
from wbvla.runtime.sim_robot import SimRobot
from wbvla.runtime.wire import Answer, Request
from wbvla.types import WholeBodyAction, action_names, state_names

ACTION_S, FPS = 0.5, 20  # how long an action is played if no other follows
CAMERA_TICKS = 2  # 25 pictures a second, so that each of 20 looks a second finds a new one
PATIENCE_S = 30.0


class WbvlaSim(Robot):
    """One humanoid, one task, one episode after another; see WbvlaSimConfig.

    Attributes:
        running: the connected one of this process, for the operator; None if there is none.
        episode: the current `RealTimeEpisode`.
    """

    config_class = WbvlaSimConfig
    name = "wbvla_sim"
    running: ClassVar[WbvlaSim | None] = None

    def __init__(self, config: WbvlaSimConfig) -> None:
        self.episode: RealTimeEpisode | None = None
        super().__init__(config)
        self.config = config
        robot = get_robot(config.robot)
        behind = ".pos" if config.pos_names else ""
        self._states, self._actions = (
            [name + behind for name in names] for names in (state_names(robot.joints), action_names(robot.arm_joints))
        )
        self.cameras = {"head": None}  # LeRobot counts them for its picture writers
        self._next_seed = config.seed
        self._acted_s: tuple[float, float] | None = None  # this episode's last action, in wall and simulated time

    @property
    def observation_features(self) -> dict[str, Any]:
        """The state by name, then the head picture; the same names as in our own recordings."""
        size = self.config.image_size
        return {**dict.fromkeys(self._states, float), "head": (size, size, 3)}

    @property
    def action_features(self) -> dict[str, type]:
        """The 20 entries of the whole-body action by name."""
        return dict.fromkeys(self._actions, float)

    @property
    def is_connected(self) -> bool:
        """Whether an episode runs."""
        return self.episode is not None

    @property
    def is_calibrated(self) -> bool:
        """Nothing to calibrate."""
        return True

    def calibrate(self) -> None:
        """Nothing to calibrate."""

    def configure(self) -> None:
        """Nothing to configure."""

    def connect(self, calibrate: bool = True) -> None:
        """Begin the first episode. Raises DeviceAlreadyConnectedError, ValueError without legs."""
        if WbvlaSim.running is not None:
            raise DeviceAlreadyConnectedError("a wbvla_sim is connected in this process; disconnect it first")
        self._controller = shipped_controller(self.config.robot)
        self._begin()
        WbvlaSim.running = self

    def get_observation(self) -> dict[str, Any]:
        """Return the newest picture and the state measured with it, after a pause those of a new episode."""
        self._need_connection()
        if self._pause_s() > self.config.pause_s:
            self.episode.close()
            self._begin()
        seen = self.episode.look()
        return {**dict(zip(self._states, seen.state.tolist())), "head": seen.image}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Play an action until the next. Returns it as sent, flags rounded; raises ValueError on missing names."""
        self._need_connection()
        if missing := [name for name in self._actions if name not in action]:
            raise ValueError(f"action: {', '.join(missing)} missing, expected the names {', '.join(self._actions)}")
        sent = WholeBodyAction.from_vector(np.array([action[name] for name in self._actions])).to_vector()
        self.episode.put(sent)
        self._acted_s = time.monotonic(), self.episode.t_s
        return dict(zip(self._actions, sent.tolist()))

    def disconnect(self) -> None:
        """End the episode and free the graphics."""
        self._need_connection()
        self.episode.close()
        self.episode = WbvlaSim.running = None

    def _begin(self) -> None:
        self.episode = RealTimeEpisode(self.config, self._controller, self._next_seed)
        self._next_seed += 1
        self.episode.look()
        self._acted_s = None

    def _pause_s(self) -> float:
        if self._acted_s is None:
            return 0.0
        wall_s, simulated_s = self._acted_s
        return time.monotonic() - wall_s if self.episode.over else self.episode.t_s - simulated_s

    def _need_connection(self) -> None:
        if self.episode is None:
            raise DeviceNotConnectedError("wbvla_sim is not connected; call connect() first")


class RealTimeEpisode:
    """One episode in a thread; it is the fast loop's link: actions in, what the loop would ask a policy about out.

    Attributes:
        seed: of the episode. privileged: the task's full state after the newest tick, for the operator.
    """

    def __init__(self, config: WbvlaSimConfig, controller, seed: int) -> None:
        self.seed = seed
        self._clock = WallClock()
        self._seen: Request | None = None
        self._action: np.ndarray | None = None
        self._looked = threading.Event()
        self._adapter = SimRobot(
            config.task, config.robot, controller, self._clock, seed, config.image_size, self._watch,
            camera_ticks=CAMERA_TICKS,
        )  # fmt: skip
        task = self._adapter.env.task
        self.privileged = self._adapter.env.privileged()
        loop = FastLoop(self._adapter.robot, self._adapter, controller, self, task.text, self._clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fast-loop")
        self._run = self._thread.submit(loop.run, task.time_limit_s + 1.0, self._adapter.done)

    @property
    def t_s(self) -> float:
        """Simulated time since the episode's start."""
        return self._adapter.env.t_s

    @property
    def over(self) -> bool:
        """Whether the task's verdict has fallen and the world stands still."""
        return self._run.done()

    def look(self) -> Request:
        """Return the newest picture and state. Raises what ended the loop, ValueError when no picture comes."""
        if self.over:
            self._run.result()
        if not self._looked.wait(PATIENCE_S):
            raise ValueError(f"camera: no picture in {PATIENCE_S:.0f} s; is software or GPU rendering installed?")
        return self._seen

    def put(self, action: np.ndarray) -> None:
        """Play an action (20,) from the next tick on."""
        self._action = action

    def offer(self, request: Request) -> None:
        """Keep what the loop has just seen; the loop calls this."""
        self._seen = request
        self._looked.set()

    def poll(self) -> Answer | None:
        """Give the loop the newest action, once, as a chunk; the loop calls this."""
        action, self._action = self._action, None
        if action is None:
            return None
        return Answer(self._clock.now(), 0.0, np.tile(action, (round(ACTION_S * FPS), 1)), FPS)

    def close(self) -> None:
        """End the loop, say how the episode went, free the graphics."""
        self._adapter.done.set()
        self._thread.shutdown()
        verdict = self._adapter.env.info()
        reached = ", ".join(name for name, done in verdict["subgoals"].items() if done) or "none"
        outcome = "success" if verdict["success"] else verdict["failure"] or "stopped"
        logging.info(f"wbvla_sim, seed {self.seed}: {outcome} after {verdict['t_s']:.1f} s; subgoals: {reached}")
        self._adapter.close()

    def _watch(self, env) -> None:
        self.privileged = env.privileged()
