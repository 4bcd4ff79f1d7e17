"""The scripted operator as a LeRobot teleoperator. In: the state of this process's `wbvla_sim`. Out: named actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from lerobot.teleoperators.teleoperator import Teleoperator

from wbvla.lerobot.config_wbvla_operator import WbvlaOperatorConfig
from wbvla.lerobot.wbvla_sim import RealTimeEpisode, WbvlaSim
from wbvla.robots import get_robot
from wbvla.sim.operator import get_operator
from wbvla.sim.tasks import get_task
from wbvla.types import action_names


class WbvlaOperator(Teleoperator):
    """Solves the task of the connected `wbvla_sim`; when its episode is over, the last action stays."""

    config_class = WbvlaOperatorConfig
    name = "wbvla_operator"

    def __init__(self, config: WbvlaOperatorConfig) -> None:
        self._connected = False
        super().__init__(config)
        self._episode: RealTimeEpisode | None = None

    @property
    def action_features(self) -> dict[str, type]:
        """The simulated robot's action."""
        return self._sim().action_features

    @property
    def feedback_features(self) -> dict[str, type]:
        """None: it sees the simulator's state."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether it is at work."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """Nothing to calibrate."""
        return True

    def calibrate(self) -> None:
        """Nothing to calibrate."""

    def configure(self) -> None:
        """Nothing to configure."""

    def connect(self, calibrate: bool = True) -> None:
        """Begin; LeRobot connects the robot after this."""
        self._connected = True

    def get_action(self) -> dict[str, Any]:
        """Return the action for the next 50 ms by name. Raises ValueError without a connected `wbvla_sim`."""
        sim = self._sim()
        if sim.episode is not self._episode:
            self._episode, robot = sim.episode, get_robot(sim.config.robot)
            rng = np.random.default_rng([self._episode.seed, 1])
            self._operator = get_operator(get_task(sim.config.task), robot, rng)
            self._operator.reset(rng)
            self._names = action_names(robot.arm_joints)
        if not self._episode.over:
            self._action = self._operator.act(self._episode.privileged).to_vector()
        return dict(zip(self._names, self._action.tolist()))

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Take no feedback."""

    def disconnect(self) -> None:
        """Stop."""
        self._connected = False

    @staticmethod
    def _sim() -> WbvlaSim:
        if WbvlaSim.running is None:
            raise ValueError("teleop wbvla_operator: no simulated robot here, expected --robot.type=wbvla_sim")
        return WbvlaSim.running
