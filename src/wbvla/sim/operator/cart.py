"""The operator of cart pushing. In: CartState at 20 Hz. Out: WholeBodyAction."""

from __future__ import annotations

from collections import deque

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.operator.hands import Hands
from wbvla.sim.operator.motion import PERIOD_S, STRIDE_S, MinimumJerk, Walker, wrap
from wbvla.sim.tasks.cart_pushing import HANDLE_HALF_M, LINE_M, CartState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

PALM_AHEAD_M, PALM_ASIDE_M = 0.36, 0.15  # palm centres in front of and beside the pelvis before they push
# While they push, in the trunk frame: from the pelvis ahead, and off those places left and up. The hands stay on the
# handle while every stride goes a little to and fro, but they do not follow a trunk that leans far: it would lean on.
REACH_M, OFF_M = (0.28, 0.41), ((-0.12, -0.06), (0.12, 0.15))
PRESS_M, READY_M = 0.03, 0.03  # palms aim behind the handle's face; nearer than that to their place they are up
STOP_S = 0.8  # from the last step to the hands' leaving the handle
STANDOFF_M = 0.75  # pelvis behind the handle before it walks on with the palms up
AT_M, AT_RAD = 0.12, 0.16  # near enough to push; on the way the legs correct the rest
LOST_M, GONE_M = 0.20, 0.60  # off the cart's axis, and so far from its handle: align again
# The forward flag drops while the robot lags so far behind it, and rises again at less: legs that were held up by the
# cart's inertia would run to make up for it, and the cart roll ahead of the palms.
WAIT_M, GO_ON_M = 0.2, 0.1
# Robot to cart: most that it steers by, and when it turns. Both palms are to stay on.
STEER_MOST_RAD, TURN_RAD = 0.06, 0.08


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
        self._palm_long_m = robot.palm_half_m[0]
        self._hands = Hands(robot)
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._standoff_m = STANDOFF_M + rng.uniform(-0.03, 0.03)
        self._stop_m = LINE_M + rng.uniform(-0.05, 0.05)
        self._walker = Walker(self.robot.name, on_rad=TURN_RAD)
        self._hands.reset()
        self._places_seen: deque[np.ndarray] = deque(maxlen=round(STRIDE_S / PERIOD_S))
        self._aligned = self._waits = False
        self._stood_s = 0.0
        self._arms, self._down = self._rest, None

    def act(self, state: CartState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        self._walker.see(state)
        self._hands.see(state)
        self._places_seen.append(_in_cart(state))
        raised = self._raised(state)
        was_aligned = self._aligned
        self._update_phase(state, bool(np.abs(self._hands.place - raised).max() < READY_M))
        if self._stood_s > 0.0:
            stand = self._walker.pose
        elif self._aligned:
            stand = self._push(state)
        else:
            stand = self._behind(state)
        loco = LocoCommand(*self._walker.flags(*stand), self.robot.nominal_height_m)
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
        level = self._raised(state)[:, 1:]
        palms[:, 1:] = level + np.clip(palms[:, 1:] - level, *OFF_M)
        return palms

    def _update_phase(self, state: CartState, ready: bool) -> None:
        if state.cart_m[0] > self._stop_m or self._stood_s > 0.0:
            self._stood_s += PERIOD_S
            if self._stood_s > STOP_S and self._down is None:
                self._down = MinimumJerk(self._arms, self._rest)
        elif not self._aligned:
            self._aligned = ready and self._walker.at(*self._behind(state), AT_M, AT_RAD)
        else:
            behind, beside = np.mean(self._places_seen, axis=0)
            self._aligned = bool(abs(beside) < LOST_M or behind < GONE_M)

    def _behind(self, state: CartState) -> tuple[float, float, float]:
        """Return where to stand, and how, before the hands go to the handle."""
        yaw = state.cart_yaw_rad
        x, y = state.cart_m - self._standoff_m * np.array([np.cos(yaw), np.sin(yaw)])
        return x, y, yaw

    def _push(self, state: CartState) -> tuple[float, float, float]:
        """Return a place ahead: on the cart's axis, with a heading that keeps the cart on its first line."""
        x, y, yaw = self._walker.pose
        beside = np.mean(self._places_seen, axis=0)[1]
        cart_yaw = state.cart_yaw_rad
        steer = np.clip(wrap(-0.4 * state.cart_m[1] - cart_yaw), -STEER_MOST_RAD, STEER_MOST_RAD)
        self._waits = self._walker.behind_m > (GO_ON_M if self._waits else WAIT_M)
        ahead_m = 0.0 if self._waits else 1.0
        x += ahead_m * np.cos(yaw) + np.sin(cart_yaw) * beside
        y += ahead_m * np.sin(yaw) - np.cos(cart_yaw) * beside
        return x, y, cart_yaw + float(steer)


def _in_cart(state: CartState) -> np.ndarray:
    """How far the pelvis is behind the handle and left of the cart's axis, (2,), m."""
    c, s = np.cos(state.cart_yaw_rad), np.sin(state.cart_yaw_rad)
    dx, dy = state.pelvis_m[:2] - state.cart_m
    return np.array([-(c * dx + s * dy), -s * dx + c * dy])
