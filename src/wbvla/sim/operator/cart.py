"""The operator of cart pushing. In: CartState at 20 Hz. Out: WholeBodyAction."""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.ik import ArmSolver
from wbvla.sim.operator.motion import PERIOD_S, MinimumJerk, TernaryFlag, wrap
from wbvla.sim.tasks.cart_pushing import LINE_M, CartState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

PALM_AHEAD_M, PALM_ASIDE_M = 0.36, 0.15  # palm centres in front of and beside the pelvis while pushing
WATCH_S, PALM_OK_M, AIM_LIMIT_M, FREE_GAP_M = 0.7, 0.02, 0.06, 0.05  # one stride; corrections of the palms' place
STOP_S = 0.8  # from the last step to the hands' leaving the handle
STANDOFF_M = 0.75  # pelvis behind the handle while aligning and until both palms are up
LATERAL_OK_M, HEADING_OK_RAD = 0.12, 0.18  # wider than the flags' thresholds: they always get there
TURN_FIRST_RAD, LATERAL_LOST_M, TOO_CLOSE_M = 0.35, 0.20, 0.60


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
        self._forward = TernaryFlag(0.10, 0.02)
        self._side, self._turn = TernaryFlag(0.07, 0.03), TernaryFlag(0.12, 0.03)
        self._stop_m = LINE_M + rng.uniform(-0.05, 0.05)
        self._aligned = self._retreating = self._released = False
        self._stood_s = 0.0
        self._path: MinimumJerk | None = None
        self._miss, self._watched_s = np.zeros((2, 3)), 0.0

    def act(self, state: CartState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        behind, beside = _pelvis_in_cart(state)
        if self._path is None:
            self._aim = self._places = self.wanted_palms(state.handle_m - self.robot.nominal_height_m)
            self._path = MinimumJerk(self._rest, self._solver.solve(*self._aim))
        self._update_phase(state, behind, beside)
        if self._stood_s > 0.0:
            ahead, aside, heading = 0.0, 0.0, state.yaw_rad
        elif self._aligned:
            ahead, aside, heading = self._push(state, beside)
        else:
            ahead, aside, heading = self._align(state, behind, beside)
        turn = self._turn.update(wrap(heading - state.yaw_rad))
        loco = LocoCommand(self._forward.update(ahead), self._side.update(aside), turn, self.robot.nominal_height_m)
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

    def _update_phase(self, state: CartState, behind: float, beside: float) -> None:
        if state.cart_m[0] > self._stop_m or self._stood_s > 0.0:
            self._stood_s += PERIOD_S
            if self._stood_s > STOP_S and not self._released:
                self._released = True
                self._path = MinimumJerk(self._path.step(), self._rest)
            return
        facing = abs(wrap(state.cart_yaw_rad - state.yaw_rad)) < HEADING_OK_RAD
        if not self._aligned:
            self._aligned = facing and abs(beside) < LATERAL_OK_M and self._path.done
        elif abs(beside) > LATERAL_LOST_M and behind > TOO_CLOSE_M:
            self._aligned = False
        if self._aligned or behind > self._standoff_m:
            self._retreating = False
        elif behind < TOO_CLOSE_M:
            self._retreating = True

    def _align(self, state: CartState, behind: float, beside: float) -> tuple[float, float, float]:
        """Face along the cart first, then step aside and ahead, no nearer than the stand-off; back off if too near."""
        heading = state.cart_yaw_rad
        if abs(wrap(heading - state.yaw_rad)) > TURN_FIRST_RAD:
            return 0.0, 0.0, heading
        if self._retreating:
            return -1.0, 0.0, heading
        return behind - self._standoff_m, -beside, heading

    def _push(self, state: CartState, beside: float) -> tuple[float, float, float]:
        """Walk on; steer so that the robot stays behind the handle's middle and the cart on its first line."""
        centring = float(np.clip(0.8 * beside, -0.2, 0.2))
        if np.all(state.palm_gap_m < 0.05):
            return 1.0, -beside, float(np.clip(-0.4 * state.cart_m[1] - centring, -0.3, 0.3))
        return 1.0, -beside, state.cart_yaw_rad - centring


def _pelvis_in_cart(state: CartState) -> tuple[float, float]:
    """How far the pelvis is behind the handle and left of the cart's axis, m."""
    c, s = np.cos(state.cart_yaw_rad), np.sin(state.cart_yaw_rad)
    dx, dy = state.pelvis_m[:2] - state.cart_m
    return float(-(c * dx + s * dy)), float(-s * dx + c * dy)
