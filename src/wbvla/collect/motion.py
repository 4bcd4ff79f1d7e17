"""Made-up head and arm motions for first-person clips. In: a random generator. Out: poses of robot and cart at 50 Hz.

No physics: the pelvis follows ternary commands through first-order speeds with a walking bob, arms follow smooth
paths between reaches. What matters is what the head camera would see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbvla.robots.base import Robot

DT_S = 0.02
GOAL = np.array([0.5, 0.3, 0.5])  # m/s, m/s, rad/s at flag 1
SETTLING_S = 0.3  # time constant of the speeds
HEIGHT_RATE_M_S = 0.3
STRIDE_HZ = 1.4
PUSH_AHEAD_M = 0.36  # handle in front of the pelvis while pushing
CLEARANCE_M = 0.38  # pelvis to the cart's outline, at least
CART_OUTLINE_M = ((-0.05, 0.9), (-0.32, 0.32))  # behind and ahead, right and left of the handle
LOWEST_BELOW_M = 0.25  # the deepest squat
# The eight signed primitives: flags while they last; the last two change the height only.
PRIMITIVES = {
    "forward": (1, 0, 0),
    "backward": (-1, 0, 0),
    "left": (0, 1, 0),
    "right": (0, -1, 0),
    "turn left": (0, 0, 1),
    "turn right": (0, 0, -1),
    "squat": (0, 0, 0),
    "stand up": (0, 0, 0),
}


@dataclass
class Motion:
    """T poses, DT_S apart.

    Attributes:
        pelvis: (T, 6) x, y, z in metres; roll, pitch, yaw in rad.
        arms_rad: (T, 14) joint positions.
        cart: (T, 3) handle centre x, y in metres and heading in rad.
        flags: (T, 3) the ternary command behind the motion; height_m: (T,) the commanded pelvis height.
    """

    pelvis: np.ndarray
    arms_rad: np.ndarray
    cart: np.ndarray
    flags: np.ndarray
    height_m: np.ndarray


def walk(robot: Robot, rng: np.random.Generator, arms_rad: np.ndarray, seconds: float, pushing: bool) -> Motion:
    """Make a walking, turning or squatting motion near a cart, or behind it with both hands on the handle.

    Args:
        robot: gives the heights.
        rng: decides everything else.
        arms_rad: (14,) held throughout.
        seconds: length.
        pushing: whether the cart moves along, a hand's reach ahead.
    """
    n = round(seconds / DT_S) + 1
    for _ in range(50):
        flags, height = _commands(robot, rng, n, pushing)
        if pushing:
            start = np.array([*rng.uniform([-3.0, -0.6], [0.5, 0.6]), rng.uniform(-0.4, 0.4)])
        else:
            start = np.array([*rng.uniform([-2.6, -1.0], [-0.6, 1.0]), rng.uniform(-0.9, 0.9)])
        path = _integrate(rng, start, flags)
        cart = _ahead(path, PUSH_AHEAD_M) if pushing else np.tile([0.0, 0.0, rng.uniform(-0.2, 0.2)], (n, 1))
        if pushing or _clear(path, cart[0]):
            break
    else:
        path, flags = np.tile(start, (n, 1)), np.zeros((n, 3))  # nowhere to go: stand and squat
    pelvis = _bob(rng, path, _slew(height, robot.nominal_height_m), flags)
    return Motion(pelvis, np.tile(arms_rad, (n, 1)), cart, flags, height)


def primitive(robot: Robot, rng: np.random.Generator, name: str, arms_rad: np.ndarray, seconds: float) -> Motion:
    """Make one of PRIMITIVES: stand for a moment, then move in one direction only. Forward ends near the object."""
    n = round(seconds / DT_S) + 1
    flags, height = np.zeros((n, 3)), np.full(n, robot.nominal_height_m)
    begin = int(rng.uniform(0.2, 0.6) / DT_S)
    flags[begin:] = PRIMITIVES[name]
    low = rng.uniform(_lowest(robot), robot.nominal_height_m - 0.12)
    if name == "squat":
        height[begin:] = low
    elif name == "stand up":
        height[:begin] = low
    stand = rng.uniform([-1.5, -0.5, -0.4], [-0.6, 0.5, 0.4])
    path = _moved(_integrate(rng, np.zeros(3), flags), stand, at=-1 if name == "forward" else 0)
    return _beside(robot, rng, path, flags, height, arms_rad)


def approach(robot: Robot, rng: np.random.Generator, arms_rad: np.ndarray, seconds: float) -> Motion:
    """Make a walk up to the object: perhaps a turn, then ahead, then standing before it within an arm's reach."""
    n = round(seconds / DT_S) + 1
    flags = np.zeros((n, 3))
    begin, turned = int(0.1 / DT_S), int(rng.uniform(0.1, 1.1) / DT_S)
    end = int((seconds - rng.uniform(0.3, 0.8)) / DT_S)
    flags[begin:turned, 2] = rng.choice([-1, 1])
    flags[turned:end, 0] = 1
    flags[turned:end, 1] = rng.choice([-1, 0, 0, 1])
    stand = rng.uniform([-0.55, -0.15, -0.15], [-0.42, 0.15, 0.15])
    path = _moved(_integrate(rng, np.zeros(3), flags), stand, at=-1)
    return _beside(robot, rng, path, flags, np.full(n, robot.nominal_height_m), arms_rad)


def reach(robot: Robot, rng: np.random.Generator, waypoints_rad: list[np.ndarray], seconds: float) -> Motion:
    """Make a standing motion whose arms pass through waypoints (14,), each reached by a minimum-jerk path."""
    n = round(seconds / DT_S) + 1
    arms = np.tile(waypoints_rad[0], (n, 1))
    begin, per_leg = int(rng.uniform(0, 0.3) / DT_S), n // (len(waypoints_rad) - 1)
    for goal in waypoints_rad[1:]:
        length = max(2, min(int(rng.uniform(0.7, 1.3) * per_leg), n - begin))
        s = np.linspace(0, 1, length)[:, None]
        piece = arms[begin] + (goal - arms[begin]) * (10 * s**3 - 15 * s**4 + 6 * s**5)
        arms[begin : begin + length] = piece
        arms[begin + length :] = piece[-1]
        begin = min(begin + length, n - 1)
    distance = rng.uniform(0.32, 0.5) if rng.uniform() < 0.6 else rng.uniform(0.5, 1.5)
    standing = np.array([-distance, rng.uniform(-0.25, 0.25), rng.uniform(-0.3, 0.3)])
    flags, height = np.zeros((n, 3)), np.full(n, robot.nominal_height_m - rng.uniform(0.0, 0.05))
    pelvis = _bob(rng, np.tile(standing, (n, 1)), height, flags)
    cart = np.tile([0.0, 0.0, rng.uniform(-0.2, 0.2)], (n, 1))
    return Motion(pelvis, arms, cart, flags, height)


def _beside(robot: Robot, rng: np.random.Generator, path, flags, height, arms_rad) -> Motion:
    """Complete a motion beside an object that stays where it is; the arms are held."""
    pelvis = _bob(rng, path, _slew(height, height[0]), flags)
    cart = np.tile([0.0, 0.0, rng.uniform(-0.2, 0.2)], (len(path), 1))
    return Motion(pelvis, np.tile(arms_rad, (len(path), 1)), cart, flags, height)


def _moved(path: np.ndarray, pose: np.ndarray, at: int) -> np.ndarray:
    """Move a path (T, 3) as a whole so that its entry `at` is the planar pose (3,)."""
    turn = pose[2] - path[at, 2]
    c, s = np.cos(turn), np.sin(turn)
    places = (path[:, :2] - path[at, :2]) @ np.array([[c, s], [-s, c]]) + pose[:2]
    return np.column_stack([places, path[:, 2] + turn])


def _lowest(robot: Robot) -> float:
    """The lowest pelvis height of a squat."""
    return max(robot.height_range_m[0], robot.nominal_height_m - LOWEST_BELOW_M)


def _commands(robot: Robot, rng: np.random.Generator, n: int, pushing: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw flags (n, 3) and heights (n,): one to three commands, each held for at least 0.8 s."""
    flags, height = np.zeros((n, 3)), np.full(n, robot.nominal_height_m)
    lowest = _lowest(robot)
    cuts = np.sort(rng.choice(np.arange(40, n - 40), size=rng.integers(0, 3), replace=False))
    for begin, end in zip([0, *cuts], [*cuts, n]):
        kind = rng.uniform()
        if pushing:
            flags[begin:end] = [float(rng.uniform() < 0.85), 0, rng.choice([-1, 0, 0, 1])]
        elif kind < 0.7:  # one axis, sometimes with a turn
            axis = rng.choice(3, p=[0.5, 0.2, 0.3])
            flags[begin:end, axis] = rng.choice([-1, 1], p=[0.3, 0.7] if axis == 0 else [0.5, 0.5])
            if axis == 0 and rng.uniform() < 0.3:
                flags[begin:end, 2] = rng.choice([-1, 1])
        elif kind < 0.9:
            height[begin:] = rng.uniform(lowest, robot.nominal_height_m)
    return flags, height


def _integrate(rng: np.random.Generator, start: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Follow the flags from a planar pose: (T, 3) x, y, yaw. Speeds settle like a low-pass filter."""
    goal, gain = GOAL * rng.uniform(0.6, 1.1, 3), DT_S / SETTLING_S
    path, speed = np.empty((len(flags), 3)), goal * flags[0]
    pose = start.copy()
    for i, flag in enumerate(flags):
        path[i] = pose
        speed += gain * (goal * flag - speed)
        c, s = np.cos(pose[2]), np.sin(pose[2])
        pose += DT_S * np.array([c * speed[0] - s * speed[1], s * speed[0] + c * speed[1], speed[2]])
    return path


def _ahead(path: np.ndarray, distance_m: float) -> np.ndarray:
    """Planar poses at a distance straight ahead of others."""
    return np.column_stack([path[:, :2] + distance_m * _heading(path[:, 2]), path[:, 2]])


def _heading(yaw_rad: np.ndarray) -> np.ndarray:
    return np.column_stack([np.cos(yaw_rad), np.sin(yaw_rad)])


def _clear(path: np.ndarray, cart: np.ndarray) -> bool:
    """Whether a path stays off the cart's outline and inside the room."""
    c, s = np.cos(cart[2]), np.sin(cart[2])
    local = (path[:, :2] - cart[:2]) @ np.array([[c, -s], [s, c]])
    gap = [np.maximum(np.maximum(lo - x, x - hi), 0) for (lo, hi), x in zip(CART_OUTLINE_M, local.T)]
    inside = (np.abs(path[:, 1]) < 3.3).all() and (path[:, 0] > -3.3).all() and (path[:, 0] < 6.0).all()
    return bool(inside and (np.hypot(*gap) > CLEARANCE_M).all())


def _slew(height_m: np.ndarray, start_m: float) -> np.ndarray:
    """Limit the rate of commanded heights."""
    out, step, now = np.empty_like(height_m), HEIGHT_RATE_M_S * DT_S, start_m
    for i, wanted in enumerate(height_m):
        now += np.clip(wanted - now, -step, step)
        out[i] = now
    return out


def _bob(rng: np.random.Generator, path: np.ndarray, height_m: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Add what a stride does to the pelvis, and a little sway while standing: (T, 6)."""
    n = len(path)
    t = DT_S * np.arange(n)
    moving = np.convolve(np.abs(flags).max(axis=1), np.ones(15) / 15, mode="same")
    phase = 2 * np.pi * (STRIDE_HZ * rng.uniform(0.9, 1.1) * t + rng.uniform())
    sway_phase = 2 * np.pi * (rng.uniform(0.2, 0.5) * t + rng.uniform())
    scale = rng.uniform(0.4, 1.3)
    side = scale * moving * 0.02 * np.sin(phase)
    pelvis = np.zeros((n, 6))
    pelvis[:, :2] = path[:, :2] + side[:, None] * _heading(path[:, 2] + np.pi / 2)
    pelvis[:, 2] = height_m + scale * moving * 0.01 * np.cos(2 * phase) + 0.001 * np.sin(sway_phase)
    pelvis[:, 3] = scale * moving * 0.02 * np.sin(phase + 0.5)
    pelvis[:, 4] = scale * moving * (0.015 * np.sin(2 * phase) + 0.03) + 0.006 * np.sin(sway_phase)
    pelvis[:, 5] = path[:, 2] + scale * moving * 0.03 * np.sin(phase + 1.0) + 0.003 * np.sin(sway_phase + 1.0)
    return pelvis
