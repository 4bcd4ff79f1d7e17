"""The values that cross module borders: commands, arm targets, whole-body actions, observations, latent codes.

In: numbers from operators, policies and datasets. Out: small frozen values with names, units and checks.
Numpy only: the robot's computer imports this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

N_ARM = 14  # left 7 then right 7, in the robot's joint order
N_STATE_COMMAND = 4

ARM = slice(0, 14)
GRIPPER = slice(14, 16)
FLAGS = slice(16, 19)
HEIGHT = 19
ACTION_DIM = 20

PICTURES = ("head_depth", "left_wrist", "right_wrist")  # what may be taken beside the head's colour picture


@dataclass(frozen=True)
class LocoCommand:
    """Ternary locomotion command (WholeBodyVLA u_t): forward, left and counter-clockwise are positive.

    Attributes:
        s_x, s_y, s_psi: flags in {-1, 0, 1}.
        height_m: pelvis height above the ground, metres.
    """

    s_x: int = 0
    s_y: int = 0
    s_psi: int = 0
    height_m: float = 0.74

    def __post_init__(self) -> None:
        for name in ("s_x", "s_y", "s_psi"):
            if getattr(self, name) not in (-1, 0, 1):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected -1, 0 or 1; threshold it first")
        if not np.isfinite(self.height_m):
            raise ValueError(f"height_m: got {self.height_m!r}, expected a finite height in metres")

    @property
    def flags(self) -> np.ndarray:
        """The three flags as float32, shape (3,)."""
        return np.array([self.s_x, self.s_y, self.s_psi], np.float32)

    @property
    def standing(self) -> bool:
        """True when all flags are zero."""
        return self.s_x == 0 and self.s_y == 0 and self.s_psi == 0


@dataclass(frozen=True)
class VelocityCommand:
    """Continuous locomotion command, for legs that track velocities: forward, left, counter-clockwise are positive.

    Attributes:
        v_x_m_s, v_y_m_s, w_z_rad_s: velocity of the pelvis in its heading frame.
        height_m: pelvis height above the ground, metres.
    """

    v_x_m_s: float = 0.0
    v_y_m_s: float = 0.0
    w_z_rad_s: float = 0.0
    height_m: float = 0.74

    def __post_init__(self) -> None:
        if not np.isfinite([*self.velocity, self.height_m]).all():
            raise ValueError(f"velocity command: got {self}, expected finite numbers")

    @property
    def velocity(self) -> np.ndarray:
        """The three velocities, shape (3,): m/s, m/s, rad/s."""
        return np.array([self.v_x_m_s, self.v_y_m_s, self.w_z_rad_s])


@dataclass(frozen=True)
class ArmTarget:
    """Targets of both arms: positions_rad (14,), left then right; grippers (2,) in [0, 1], 0 = open."""

    positions_rad: np.ndarray
    grippers: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))

    def __post_init__(self) -> None:
        for name, shape in (("positions_rad", (N_ARM,)), ("grippers", (2,))):
            value = np.asarray(getattr(self, name), np.float32)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name}: got shape {value.shape}, expected {shape} of finite numbers")
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class WholeBodyAction:
    """One whole-body action; `to_vector` gives the flat float32 layout that datasets store."""

    arms: ArmTarget
    loco: LocoCommand

    def to_vector(self) -> np.ndarray:
        """Return the (20,) float32 vector [arm 14, grippers 2, flags 3, height_m]."""
        vector = np.zeros(ACTION_DIM, np.float32)
        vector[ARM], vector[GRIPPER] = self.arms.positions_rad, self.arms.grippers
        vector[FLAGS], vector[HEIGHT] = self.loco.flags, self.loco.height_m
        return vector

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> WholeBodyAction:
        """Read a (20,) vector; flags are rounded to the nearest of -1, 0, 1. Raises ValueError on a bad shape."""
        vector = np.asarray(vector, np.float32)
        if vector.shape != (ACTION_DIM,) or not np.isfinite(vector).all():
            raise ValueError(f"whole-body action: got shape {vector.shape}, expected ({ACTION_DIM},) finite numbers")
        s = np.clip(np.rint(vector[FLAGS]), -1, 1).astype(int)
        return cls(
            ArmTarget(vector[ARM], np.clip(vector[GRIPPER], 0, 1)),
            LocoCommand(int(s[0]), int(s[1]), int(s[2]), float(vector[HEIGHT])),
        )


def action_names(arm_joints: tuple[str, ...]) -> list[str]:
    """Names of the 20 action entries, given the robot's 14 arm joint names."""
    return [*arm_joints, "gripper_left", "gripper_right", "s_x", "s_y", "s_psi", "height_m"]


def state_names(joints: tuple[str, ...]) -> list[str]:
    """Names of `observation.state`: joint positions, velocities, gravity direction, gyroscope, last command."""
    return [
        *(f"{j}.q_rad" for j in joints),
        *(f"{j}.dq_rad_s" for j in joints),
        *(f"gravity_{a}" for a in "xyz"),
        *(f"gyro_{a}_rad_s" for a in "xyz"),
        *("last_s_x", "last_s_y", "last_s_psi", "last_height_m"),
    ]


@dataclass(frozen=True)
class Proprioception:
    """What the robot's body measures in one instant.

    Attributes:
        q_rad, dq_rad_s: joint positions and velocities, shape (J,), in the robot's joint order.
        gyro_rad_s: angular velocity in the pelvis frame, shape (3,).
        gravity: unit gravity direction in the pelvis frame, shape (3,); upright is (0, 0, -1).
        quaternion: orientation w, x, y, z, shape (4,). accelerometer_m_s2: pelvis frame, shape (3,). foot_contacts:
            left heel and toe, right heel and toe, shape (4,), 1 = on the ground. Only some policies need these.
    """

    q_rad: np.ndarray
    dq_rad_s: np.ndarray
    gyro_rad_s: np.ndarray
    gravity: np.ndarray
    quaternion: np.ndarray | None = None
    accelerometer_m_s2: np.ndarray | None = None
    foot_contacts: np.ndarray | None = None

    def to_state(self, last: LocoCommand) -> np.ndarray:
        """Return the float32 `observation.state` vector (2 J + 10,); see `state_names`."""
        tail = np.array([last.s_x, last.s_y, last.s_psi, last.height_m])
        parts = (self.q_rad, self.dq_rad_s, self.gravity, self.gyro_rad_s, tail)
        return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True)
class Observation:
    """What a policy may see: head image (H, W, 3) uint8, state (S,) float32, task text, capture time in seconds.

    pictures: what else was taken with the image, by their names in PICTURES; depth is (H, W, 1) uint16 mm, 0 = unknown.
    """

    image: np.ndarray
    state: np.ndarray
    task: str
    t_capture_s: float
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def check_action_rate(action_hz: float) -> None:
    """Raise ValueError if the simulated world cannot play so many actions a second."""
    if not 10.0 <= action_hz <= 50.0:
        raise ValueError(f"action rate: got {action_hz} Hz, expected 10 to 50")


def check_pictures(names: tuple[str, ...]) -> None:
    """Raise ValueError unless these are different names of PICTURES."""
    if isinstance(names, str):
        raise ValueError(f"pictures: got the text {names!r}, expected several names, as in ({names!r},)")
    if not set(names) <= set(PICTURES) or len(set(names)) < len(names):
        raise ValueError(f"pictures: got {', '.join(names)}, expected different ones of {', '.join(PICTURES)}")


@dataclass(frozen=True)
class LatentCode:
    """The codebook indices (N,) that one latent action model (`mani` or `loco`) assigns to a frame pair."""

    family: str
    indices: np.ndarray
