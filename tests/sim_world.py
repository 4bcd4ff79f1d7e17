"""What tests of the simulation share: legs without a policy."""

from __future__ import annotations

from wbvla.robots import get_robot


class StandStill:
    """Legs that hold the default pose, for tests that end before the robot topples or in which it stands far away."""

    def __init__(self, robot="g1"):
        self.target = get_robot(robot).array("default")[: get_robot(robot).n_lmo]

    def reset(self):
        pass

    def step(self, command, body):
        return self.target
