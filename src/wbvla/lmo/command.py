"""Command shaping: ternary flags and height in; reference velocity, reference height, gait phase and swing out.

Batched over worlds, numpy or torch; the training engines and the robot's controller run the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wbvla.lmo.arrays import clip, columns, namespace
from wbvla.lmo.odometry import STEP_S, Odometry

SHAPINGS = ("gate", "paper-literal", "velocity")


@dataclass(frozen=True)
class ShapingConfig:
    """Constants of the command shaping; they travel in the contract.

    Attributes:
        kind: how flags become a reference velocity, with sbar <- sbar + rate (s - sbar) each step:
            "gate": goal * tanh(alpha * sbar) / tanh(alpha), monotone, exact in steady state;
            "paper-literal": goal * tanh(alpha * (s - sbar)), the pulse that the paper prints (see docs/log.md);
            "velocity": goal * sbar, for continuous commands, where s is the wanted velocity over goal.
        goal: cruise speed of each axis at flag 1: m/s, m/s, rad/s.
        alpha, rate: see kind.
        height_rate_m_s: slew limit of the reference height.
        gait_hz: stride frequency of the phase clock. swing: share of a stride that a foot is in the air.
        pushed_hz: stride frequency while and shortly after something pushes the robot; 0 is gait_hz.
        rests: the clock stops, both feet down, while no motion is commanded and nothing disturbs the robot.
    """

    kind: str = "gate"
    goal: tuple[float, float, float] = (0.5, 0.3, 0.5)
    alpha: float = 1.5
    rate: float = 0.08
    height_rate_m_s: float = 0.3
    gait_hz: float = 1.4
    swing: float = 0.42
    pushed_hz: float = 0.0
    rests: bool = False

    def __post_init__(self) -> None:
        if self.kind not in SHAPINGS:
            raise ValueError(f"shaping kind: got {self.kind!r}, expected one of {', '.join(SHAPINGS)}")


DISTURBED = np.array([[0.3], [0.1], [0.2], [0.25]])  # pushed, drifting (m/s), misplaced (m), tilted
MISPLACED_RAD, PUSHED_M_S, ALARM_STEPS = 0.25, 0.3, 40


def is_disturbed(odometry: Odometry, gravity: np.ndarray) -> np.ndarray:
    """Tell which robots are pushed, drifting, tilted or misplaced enough to need steps, (n,) bool.

    gravity: (n, 3) unit vectors in the pelvis frame.
    """
    xp, error = namespace(gravity), odometry.error
    seen = xp.concatenate([odometry.velocity, odometry.drift, error, gravity]).reshape(4, -1, 3)
    too_far = xp.hypot(seen[..., 0], seen[..., 1]) > xp.array(DISTURBED)
    return too_far.any(0) | (abs(error[:, 2]) > MISPLACED_RAD)


def is_pushed(odometry: Odometry, v_ref: np.ndarray) -> np.ndarray:
    """Tell which robots move so much otherwise than they are told, v_ref (n, 3), that they need quick steps, (n,) bool.

    A stride of 1.4 Hz sets a foot down every 0.36 s, too late to catch a push.
    """
    beside = odometry.velocity - v_ref
    return namespace(v_ref).hypot(beside[:, 0], beside[:, 1]) > PUSHED_M_S


class CommandShaper:
    """State of the command shaping for `n` worlds, in arrays of the namespace `xp`."""

    def __init__(self, n: int, height_m: float, config: ShapingConfig, xp=np) -> None:
        self.config, self.height_m, self.xp = config, height_m, xp
        self.goal = xp.tile(xp.array(config.goal), (n, 1))
        self.sbar = xp.zeros((n, 3))
        self.v_ref = xp.zeros((n, 3))
        self.height_ref = xp.full(n, height_m)
        self.phase = xp.zeros(n)
        self.alarm = xp.zeros(n, int)  # steps for which the clock runs on after a disturbance
        self.quick = xp.zeros(n, int)  # steps for which it runs fast after a push

    def reset(self, worlds: np.ndarray, phase: np.ndarray | float = 0.0) -> None:
        """Put worlds (bool mask or indices) at rest at the nominal height."""
        self.sbar[worlds] = 0.0
        self.v_ref[worlds] = 0.0
        self.height_ref[worlds] = self.height_m
        self.phase[worlds] = phase
        self.alarm[worlds] = 0
        self.quick[worlds] = 0

    @property
    def moving(self) -> np.ndarray:
        """Worlds whose command is not rest, shape (n,) bool."""
        return self.xp.amax(abs(self.sbar), axis=1) > 0.1

    def step(
        self,
        flags: np.ndarray,
        height_m: np.ndarray,
        disturbed: np.ndarray | bool = False,
        pushed: np.ndarray | bool = False,
    ) -> None:
        """Advance by one 20 ms step.

        flags: (n, 3) in {-1, 0, 1}, or velocities over goal for kind "velocity". height_m: (n,) commanded pelvis
        height. disturbed, pushed: (n,) from `is_disturbed` and `is_pushed`.
        """
        c, xp = self.config, self.xp
        self.sbar += c.rate * (flags - self.sbar)
        if c.kind == "gate":
            self.v_ref = self.goal * xp.tanh(c.alpha * self.sbar) / np.tanh(c.alpha)
        elif c.kind == "paper-literal":
            self.v_ref = self.goal * xp.tanh(c.alpha * (flags - self.sbar))
        else:
            self.v_ref = self.goal * self.sbar
        limit = c.height_rate_m_s * STEP_S
        self.height_ref += clip(height_m - self.height_ref, -limit, limit)
        self.alarm = xp.where(disturbed, ALARM_STEPS, xp.maximum(self.alarm - 1, 0))
        self.quick = xp.where(pushed, ALARM_STEPS, xp.maximum(self.quick - 1, 0))
        both_down = self.phase % 0.5 >= c.swing
        held = c.rests & both_down & ~self.moving & (self.alarm == 0)
        stride_hz = xp.where(self.quick > 0, c.pushed_hz or c.gait_hz, c.gait_hz)
        self.phase = xp.where(held, self.phase, (self.phase + stride_hz * STEP_S) % 1.0)

    def clock(self) -> np.ndarray:
        """Return sine and cosine of the gait phase, shape (n, 2)."""
        angle, xp = 2 * np.pi * self.phase, self.xp
        return columns(xp.sin(angle), xp.cos(angle))

    def swing(self) -> np.ndarray:
        """Return the swing signal of the left and right foot in [0, 1], shape (n, 2); 0 = on the ground."""
        xp, share = self.xp, self.config.swing
        phases = columns(self.phase, (self.phase + 0.5) % 1.0)
        return xp.where(phases < share, xp.sin(np.pi * clip(phases / share, 0.0, 1.0)), 0.0)


def feedforward(swing: np.ndarray, height_ref: np.ndarray, height_m: float, leg_m: float, lift_rad: float):
    """Return the open-loop part of the 12 leg targets, offsets from the default pose, shape (n, 12), rad.

    swing: (n, 2) from `CommandShaper.swing`; height_ref: (n,) m; leg_m: length of thigh plus shank; lift_rad: hip lift.
    The knee follows the law of cosines for a leg of two equal segments; hip and ankle keep the foot below and flat.
    """
    xp = namespace(height_ref)
    offset = xp.zeros((len(height_ref), 12))

    def knee(height):
        reach = clip((height - (height_m - 0.97 * leg_m * 0.93)) / leg_m, 0.35, 0.99)
        return 2.0 * xp.arccos(reach)

    bend = knee(height_ref) - knee(xp.full(1, height_m))
    for side, start in enumerate((0, 6)):
        up = lift_rad * swing[:, side]
        offset[:, start] = -up - 0.5 * bend
        offset[:, start + 3] = 2 * up + bend
        offset[:, start + 4] = -up - 0.5 * bend
    return offset
