"""What the legs' actor sees: only quantities that a robot measures, scaled, in one fixed order.

In: command, shaping state, proprioception, last action, batched numpy or torch. Out: (n, width) float32 (all terms:
94 for the G1, 88 for the X2), its mirror image, and the stack of the newest frames, (n, frames * width), newest first.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.arrays import clip, namespace
from wbvla.robots.base import Robot

# name: (width, scale); joints and actions are expanded to the robot's counts.
TERMS = {
    "flags": (3, 1.0),
    "v_ref": (3, 2.0),
    "height_ref": (1, 5.0),
    "base_velocity": (3, 1.0),
    "gyro": (3, 0.3),
    "gravity": (3, 1.0),
    "q": (-1, 1.0),
    "dq": (-1, 0.05),
    "last_action": (-2, 0.3),
    "clock": (2, 1.0),
    "pose_error": (3, 5.0),
    # Only the joints that the legs' policy owns, for observations that do not feel the arms.
    "q_lmo": (-2, 1.0),
    "dq_lmo": (-2, 0.05),
    # What tutorial 003 observes beside these: orientation w, x, y, z; m/s^2; left heel and toe, right heel and toe.
    "quaternion": (4, 1.0),
    "accelerometer": (3, 0.1),
    "foot_contacts": (4, 1.0),
    "latent": (256, 1.0),
}
STANDARD = tuple(TERMS)[:11]
MAX_DQ = 25.0
Names = tuple[str, ...]


def layout(robot: Robot, names: Names = STANDARD) -> list[tuple[str, int, float]]:
    """Return (name, width, scale) of the named terms for a robot. Raises ValueError for a term that does not exist."""
    unknown = [name for name in names if name not in TERMS]
    if unknown:
        raise ValueError(f"observation: got the term {unknown[0]!r}, expected some of {', '.join(TERMS)}")
    widths = {-1: len(robot.joints), -2: robot.n_lmo}
    return [(name, widths.get(TERMS[name][0], TERMS[name][0]), TERMS[name][1]) for name in names]


def actor_observation(
    terms: dict[str, np.ndarray], height_m: float, default: np.ndarray, names: Names = STANDARD
) -> np.ndarray:
    """Concatenate and scale the named terms, each (n, width), in SI units; q is taken relative to `default`."""
    values, xp = dict(terms), namespace(terms["last_action"])
    values["height_ref"] = values["height_ref"] - height_m
    values["q"] = values["q"] - default
    values["dq"] = clip(values["dq"], -MAX_DQ, MAX_DQ)
    n = values["last_action"].shape[1]
    values["q_lmo"], values["dq_lmo"] = values["q"][:, :n], values["dq"][:, :n]
    return xp.asarray(xp.concatenate([values[name] * TERMS[name][1] for name in names], axis=1), dtype=np.float32)


class History:
    """The newest observations of n worlds; a world that begins repeats its first.

    Args:
        n: worlds.
        frames: observations that the network sees at once.
        xp: namespace of the arrays.
    """

    def __init__(self, n: int, frames: int, width: int, xp=np) -> None:
        self.xp, self.frames = xp, xp.zeros((n, frames, width), np.float32)

    def push(self, observation: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Add observations (n, width), of which the `fresh` (n,) bool worlds begin; return (n, frames * width)."""
        self.frames = self.xp.concatenate([observation[:, None], self.frames[:, :-1]], axis=1)
        self.frames[fresh] = observation[fresh, None]
        return self.frames.reshape(len(observation), -1)


def mirror_action(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Left-right symmetry of the action: (index, sign)."""
    index, sign = robot.mirror()
    return index[: robot.n_lmo], sign[: robot.n_lmo]


def mirror_observation(robot: Robot, frames: int = 1, names: Names = STANDARD) -> tuple[np.ndarray, np.ndarray]:
    """Left-right symmetry of the stacked actor observation: mirrored = observation[:, index] * sign."""
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
        "pose_error": [1, -1, -1],
        "quaternion": [1, -1, 1, -1],
        "accelerometer": [1, -1, 1],
    }
    index, sign, start = [], [], 0
    for name, width, _ in layout(robot, names):
        if name in ("q", "dq"):
            order, flip = joint_index, joint_sign
        elif name in ("last_action", "q_lmo", "dq_lmo"):
            order, flip = action_index, action_sign
        elif name in ("foot_contacts", "latent"):  # the halves change places
            order, flip = np.roll(np.arange(width), width // 2), np.ones(width)
        else:
            order, flip = np.arange(width), np.array(signs[name])
        index += list(start + order)
        sign += list(flip)
        start += width
    frame = np.arange(frames)[:, None] * start
    return (np.array(index) + frame).ravel(), np.tile(np.array(sign, np.float32), frames)
