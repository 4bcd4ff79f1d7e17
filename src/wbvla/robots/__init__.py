"""Robots by name. In: "g1" or "x2". Out: a `Robot` (joint order, gains, limits, camera, MuJoCo model)."""

from wbvla.robots.base import Robot


def get_robot(name: str) -> Robot:
    """Return a robot by its name. Raises ValueError listing the known names."""
    from wbvla.robots.g1 import G1
    from wbvla.robots.x2 import X2

    robots = {"g1": G1, "x2": X2}
    if name not in robots:
        raise ValueError(f"robot: got {name!r}, expected one of {', '.join(robots)}")
    return robots[name]
