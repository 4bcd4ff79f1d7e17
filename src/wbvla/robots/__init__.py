"""Robots by name. In: "g1", "x2", either with "-gripper", or another package's. Out: a `Robot` (see base.py)."""

from functools import cache
from importlib.metadata import entry_points

from wbvla.robots.base import Robot


@cache
def get_robot(name: str) -> Robot:
    """Return a robot by its name: this project's, or one that a package names under the entry points "wbvla.robots".

    Raises ValueError listing the known names.
    """
    from wbvla.robots.g1 import G1
    from wbvla.robots.gripper import with_gripper
    from wbvla.robots.x2 import X2

    robots = {"g1": G1, "x2": X2, "g1-gripper": with_gripper(G1), "x2-gripper": with_gripper(X2)}
    if name in robots:
        return robots[name]
    others = {entry.name: entry for entry in entry_points(group="wbvla.robots")}
    if name not in others:
        raise ValueError(f"robot: got {name!r}, expected one of {', '.join([*robots, *others])}")
    robot = others[name].load()
    if not isinstance(robot, Robot) or robot.name != name:
        raise ValueError(f"robot: got {robot!r:.60} from the entry point {name!r}, expected a Robot of that name")
    return robot
