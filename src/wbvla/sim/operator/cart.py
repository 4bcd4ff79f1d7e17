"""The operator of cart pushing. In: CartState at 20 Hz. Out: WholeBodyAction."""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.operator.hands import Hands
from wbvla.sim.operator.motion import PERIOD_S, MinimumJerk, TernaryFlag, wrap
from wbvla.sim.tasks.cart_pushing import HANDLE_HALF_M, LINE_M, CartState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

PALM_AHEAD_M, PALM_ASIDE_M = 0.36, 0.15  # palm centres in front of and beside the pelvis before they push
REACH_M = (0.28, 0.41)  # and while they push: the hands stay on the handle while every stride goes a little to and fro
PRESS_M, READY_M = 0.03, 0.03  # palms aim behind the handle's face; nearer than that to their place they are up
STOP_S = 0.8  # from the last step to the hands' leaving the handle
STANDOFF_M = 0.75  # pelvis behind the handle before it walks on with the palms up
LATERAL_OK_M, HEADING_OK_RAD = 0.13, 0.20  # near enough to push, a little more than what raises a flag
LOST_M, TOO_CLOSE_M = 0.25, 0.60  # off the cart's axis, and so far from its handle: align again; nearer: back off
TURN_FIRST_RAD = 0.35
STEER_MOST_RAD = 0.06  # robot to cart while pushing: both palms are to stay on
# Errors at which a flag is raised and dropped. Legs go on for a third of a second: it is dropped before they are there.
AHEAD_M, ASIDE_M, TURN_RAD = (0.15, 0.10), (0.12, 0.09), (0.16, 0.12)


class CartOperator:
    """Pushes the cart: raise both palms on the way, align behind the handle, walk on with the palms on the panel.

    At the line it stands and takes the hands down.

    Args:
        robot: with whom.
        rng: varies where it aligns and where it stops.
    """

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        self.robot = robot
        n = robot.n_lmo
        self._rest = robot.array("default")[n : n + 14]
        self._palm_long_m = robot.palms[0].size[0]  # half
        self._hands = Hands(robot)
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._standoff_m = STANDOFF_M + rng.uniform(-0.03, 0.03)
        self._stop_m = LINE_M + rng.uniform(-0.05, 0.05)
        self._flags = [TernaryFlag(*errors) for errors in (AHEAD_M, ASIDE_M, TURN_RAD)]
        self._hands.reset()
        self._aligned = self._retreating = False
        self._stood_s = 0.0
        self._arms, self._down = self._rest, None

    def act(self, state: CartState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        self._hands.see(state)
        behind, beside = _in_cart(state)
        raised = self._raised(state)
        was_aligned = self._aligned
        self._update_phase(state, behind, beside, bool(np.abs(self._hands.place - raised).max() < READY_M))
        if self._stood_s > 0.0:
            errors = 0.0, 0.0, 0.0
        elif self._aligned:
            errors = 1.0, -beside, self._steer(state)
        else:
            errors = self._align(state, behind, beside)
        flags = (flag.update(error) for flag, error in zip(self._flags, errors))
        loco = LocoCommand(*flags, self.robot.nominal_height_m)
        if self._down is None:
            palms = self._on_handle(state) if self._aligned else raised
            self._arms = self._hands.step(palms, self._aligned != was_aligned, self._aligned, 0.0, 0.0)
        else:
            self._arms = self._down.step()
        return WholeBodyAction(ArmTarget(self._arms), loco)

    def _raised(self, state: CartState) -> np.ndarray:
        """Palms (2, 3) in the trunk frame before they push, level with the handle."""
        height_m = state.handle_m - self.robot.nominal_height_m
        return np.array([[PALM_AHEAD_M, PALM_ASIDE_M, height_m], [PALM_AHEAD_M, -PALM_ASIDE_M, height_m]])

    def _on_handle(self, state: CartState) -> np.ndarray:
        """Palms (2, 3) in the trunk frame on the handle's face, as far as the arms go."""
        c, s = np.cos(state.cart_yaw_rad), np.sin(state.cart_yaw_rad)
        back_m = HANDLE_HALF_M[0] + self._palm_long_m - PRESS_M
        middle = np.array([*(state.cart_m - back_m * np.array([c, s])), state.handle_m])
        aside = PALM_ASIDE_M * np.array([-s, c, 0.0])
        palms = self._hands.to_trunk(np.array([middle + aside, middle - aside]))
        palms[:, 0] = np.clip(palms[:, 0], *REACH_M)
        return palms

    def _update_phase(self, state: CartState, behind: float, beside: float, ready: bool) -> None:
        if state.cart_m[0] > self._stop_m or self._stood_s > 0.0:
            self._stood_s += PERIOD_S
            if self._stood_s > STOP_S and self._down is None:
                self._down = MinimumJerk(self._arms, self._rest)
            return
        if self._aligned:
            self._aligned = abs(beside) < LOST_M or behind < TOO_CLOSE_M
        else:
            facing = abs(wrap(state.cart_yaw_rad - state.yaw_rad)) < HEADING_OK_RAD
            self._aligned = ready and facing and abs(beside) < LATERAL_OK_M
        if self._aligned or behind > self._standoff_m:
            self._retreating = False
        elif behind < TOO_CLOSE_M:
            self._retreating = True

    def _align(self, state: CartState, behind: float, beside: float) -> tuple[float, float, float]:
        """Face along the cart first, then step aside and ahead, no nearer than the stand-off; back off if too near."""
        turn = wrap(state.cart_yaw_rad - state.yaw_rad)
        if abs(turn) > TURN_FIRST_RAD:
            return 0.0, 0.0, turn
        if self._retreating:
            return -1.0, 0.0, turn
        return behind - self._standoff_m, -beside, turn

    def _steer(self, state: CartState) -> float:
        """How far to turn so that the cart comes back to its first line and both palms stay on it, rad."""
        off = wrap(-0.4 * state.cart_m[1] - state.cart_yaw_rad)
        return wrap(state.cart_yaw_rad + np.clip(off, -STEER_MOST_RAD, STEER_MOST_RAD) - state.yaw_rad)


def _in_cart(state: CartState) -> tuple[float, float]:
    """How far the pelvis is behind the handle and left of the cart's axis, m."""
    c, s = np.cos(state.cart_yaw_rad), np.sin(state.cart_yaw_rad)
    dx, dy = state.pelvis_m[:2] - state.cart_m
    return float(-(c * dx + s * dy)), float(-s * dx + c * dy)
