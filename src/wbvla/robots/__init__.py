"""Robots by name. In: "g1", "x2", or either with "-gripper". Out: a `Robot` (joint order, gains, limits, MuJoCo model)."""

from functools import cache

from wbvla.robots.base import Robot


@cache
def get_robot(name: str) -> Robot:
    """Return a robot by its name. Raises ValueError listing the known names."""
    from wbvla.robots.g1 import G1
    from wbvla.robots.gripper import with_gripper
    from wbvla.robots.x2 import X2

    robots = {"g1": G1, "x2": X2, "g1-gripper": with_gripper(G1), "x2-gripper": with_gripper(X2)}
    if name not in robots:
        raise ValueError(f"robot: got {name!r}, expected one of {', '.join(robots)}")
    return robots[name]
