"""What the legs' actor sees: only quantities that a robot measures, scaled, in one fixed order.

In: command, shaping state, proprioception, last action, batched numpy. Out: (n, width) float32, and its mirror image.
`layout` says how wide each term is: 91 numbers for the G1, 85 for the X2.
"""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot

# (name, width, scale); joints and actions are expanded to the robot's counts.
TERMS = (
    ("flags", 3, 1.0),
    ("v_ref", 3, 2.0),
    ("height_ref", 1, 5.0),
    ("base_velocity", 3, 1.0),
    ("gyro", 3, 0.3),
    ("gravity", 3, 1.0),
    ("q", -1, 1.0),
    ("dq", -1, 0.05),
    ("last_action", -2, 0.3),
    ("clock", 2, 1.0),
)
MAX_DQ = 25.0


def layout(robot: Robot) -> list[tuple[str, int, float]]:
    """Return (name, width, scale) of every term for a robot."""
    widths = {-1: len(robot.joints), -2: robot.n_lmo}
    return [(name, widths.get(width, width), scale) for name, width, scale in TERMS]


def actor_observation(terms: dict[str, np.ndarray], height_m: float, default: np.ndarray) -> np.ndarray:
    """Concatenate and scale the terms of `TERMS`, each (n, width), in SI units; q is taken relative to `default`."""
    values = dict(terms)
    values["height_ref"] = values["height_ref"] - height_m
    values["q"] = values["q"] - default
    values["dq"] = np.clip(values["dq"], -MAX_DQ, MAX_DQ)
    return np.concatenate([values[name] * scale for name, _, scale in TERMS], axis=1).astype(np.float32)


def mirror_action(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Left-right symmetry of the action: (index, sign)."""
    index, sign = robot.mirror()
    return index[: robot.n_lmo], sign[: robot.n_lmo]


def mirror_observation(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Left-right symmetry of the actor observation: mirrored = observation[:, index] * sign."""
    joint_index, joint_sign = robot.mirror()
    action_index, action_sign = mirror_action(robot)
    signs = {
        "flags": [1, -1, -1],
        "v_ref": [1, -1, -1],
        "height_ref": [1],
        "base_velocity": [1, -1, 1],
        "gyro": [-1, 1, -1],
        "gravity": [1, -1, 1],
        "clock": [-1, -1],  # half a stride later
    }
    index, sign, start = [], [], 0
    for name, width, _ in layout(robot):
        if name in ("q", "dq"):
            order, flip = joint_index, joint_sign
        elif name == "last_action":
            order, flip = action_index, action_sign
        else:
            order, flip = np.arange(width), np.array(signs[name])
        index += list(start + order)
        sign += list(flip)
        start += width
    return np.array(index), np.array(sign, np.float32)
