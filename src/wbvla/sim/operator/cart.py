"""The operator of cart pushing. In: CartState at 20 Hz. Out: WholeBodyAction."""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.ik import ArmSolver
from wbvla.sim.operator.motion import PERIOD_S, MinimumJerk, Walker, wrap
from wbvla.sim.tasks.cart_pushing import LINE_M, CartState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

PALM_AHEAD_M, PALM_ASIDE_M = 0.36, 0.15  # palm centres in front of and beside the pelvis while pushing
WATCH_S, PALM_OK_M, AIM_LIMIT_M, FREE_GAP_M = 0.7, 0.02, 0.06, 0.05  # one stride; corrections of the palms' place
STOP_S = 0.8  # from the last step to the hands' leaving the handle
STANDOFF_M = 0.75  # pelvis behind the handle before it walks on with the palms up
AT_M, AT_RAD = 0.12, 0.16  # near enough to push; on the way the legs correct the rest
LOST_M, GONE_M = 0.20, 0.60  # off the cart's axis, and so far from its handle: align again
STEER_MOST_RAD = 0.12  # that the robot's heading leaves the cart's: both palms stay on


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
        self._solver = ArmSolver(robot)
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._standoff_m = STANDOFF_M + rng.uniform(-0.03, 0.03)
        self._stop_m = LINE_M + rng.uniform(-0.05, 0.05)
        self._walker = Walker(self.robot.name)
        self._aligned = self._released = False
        self._stood_s = 0.0
        self._path: MinimumJerk | None = None
        self._miss, self._watched_s = np.zeros((2, 3)), 0.0

    def act(self, state: CartState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        if self._path is None:
            self._aim = self._places = self.wanted_palms(state.handle_m - self.robot.nominal_height_m)
            self._path = MinimumJerk(self._rest, self._solver.solve(*self._aim))
        self._walker.see(state)
        self._update_phase(state)
        if self._stood_s > 0.0:
            stand = self._walker.pose
        elif self._aligned:
            stand = self._push(state)
        else:
            stand = self._behind(state)
        loco = LocoCommand(*self._walker.flags(*stand), self.robot.nominal_height_m)
        self._correct_palms(state)
        return WholeBodyAction(ArmTarget(self._path.step()), loco)

    @staticmethod
    def wanted_palms(height_m: float) -> np.ndarray:
        """Both palm centres (2, 3) relative to the pelvis, level with a handle that much above it."""
        return np.array([[PALM_AHEAD_M, PALM_ASIDE_M, height_m], [PALM_AHEAD_M, -PALM_ASIDE_M, height_m]])

    def _correct_palms(self, state: CartState) -> None:
        """Look at the raised hands for a stride and, off the handle, move them by what they miss.

        The legs' policy leans the trunk in its own way; a teleoperator would correct for that by eye.
        """
        if self._released or not self._path.done or np.min(state.palm_gap_m) < FREE_GAP_M:
            self._miss, self._watched_s = np.zeros((2, 3)), 0.0
            return
        c, s = np.cos(state.yaw_rad), np.sin(state.yaw_rad)
        to_pelvis = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        seen = (state.palm_m - state.pelvis_m) @ to_pelvis.T
        self._miss = self._miss + self.wanted_palms(state.handle_m - state.pelvis_m[2]) - seen
        self._watched_s += PERIOD_S
        if self._watched_s < WATCH_S - 1e-9:
            return
        miss = self._miss / round(WATCH_S / PERIOD_S)
        self._miss, self._watched_s = np.zeros((2, 3)), 0.0
        if np.abs(miss).max() > PALM_OK_M:
            aim = np.clip(self._aim + miss, self._places - AIM_LIMIT_M, self._places + AIM_LIMIT_M)
            try:
                pose = self._solver.solve(*aim)
            except ValueError:  # out of reach: the hands are as near as they get
                return
            self._aim, self._path = aim, MinimumJerk(self._path.step(), pose)

    def _update_phase(self, state: CartState) -> None:
        if state.cart_m[0] > self._stop_m or self._stood_s > 0.0:
            self._stood_s += PERIOD_S
            if self._stood_s > STOP_S and not self._released:
                self._released = True
                self._path = MinimumJerk(self._path.step(), self._rest)
        elif not self._aligned:
            self._aligned = self._path.done and self._walker.at(*self._behind(state), AT_M, AT_RAD)
        else:
            behind, beside = self._in_cart(state)
            self._aligned = abs(beside) < LOST_M or behind < GONE_M

    def _behind(self, state: CartState) -> tuple[float, float, float]:
        """Return where to stand, and how, before the hands go to the handle."""
        yaw = state.cart_yaw_rad
        x, y = state.cart_m - self._standoff_m * np.array([np.cos(yaw), np.sin(yaw)])
        return x, y, yaw

    def _push(self, state: CartState) -> tuple[float, float, float]:
        """Return a place ahead: on the cart's axis, with a heading that keeps the cart on its first line."""
        x, y, yaw = self._walker.pose
        _, beside = self._in_cart(state)
        cart_yaw = state.cart_yaw_rad
        steer = np.clip(wrap(-0.4 * state.cart_m[1] - cart_yaw), -STEER_MOST_RAD, STEER_MOST_RAD)
        x += np.cos(yaw) + np.sin(cart_yaw) * beside
        y += np.sin(yaw) - np.cos(cart_yaw) * beside
        return x, y, cart_yaw + float(steer)

    def _in_cart(self, state: CartState) -> tuple[float, float]:
        """How far the pelvis is behind the handle and left of the cart's axis, m."""
        c, s = np.cos(state.cart_yaw_rad), np.sin(state.cart_yaw_rad)
        dx, dy = self._walker.pose[:2] - state.cart_m
        return float(-(c * dx + s * dy)), float(-s * dx + c * dy)
