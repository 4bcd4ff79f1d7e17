"""The operator of box loading and bag packing: both palms under the object's ledges, there and back.

In: CarryState at 20 Hz. Out: WholeBodyAction.
It walks to the object, squats, closes its hands, lifts, backs off, faces the goal, walks there, squats, opens its
hands. Where the legs leave it within a hand's breadth of where it wants to be, the arms make up for it.
"""

from __future__ import annotations

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.operator.hands import Hands
from wbvla.sim.operator.motion import PERIOD_S, Walker
from wbvla.sim.tasks.carrying import CarryState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

REACH_M, FURTHER_M = 0.34, 0.02  # pelvis behind the object's middle to lift it; more than that to put it down
STAND_OFF_M = 0.38  # how far to back off from the support, and where to face the goal
AT_M, AT_RAD = 0.09, 0.16  # near enough to handle; on the way half as much again will do
SQUAT_M = 0.10  # pelvis below the palms while handling
CARRY_BELOW_M, SQUAT_M_S = 0.02, 0.3  # pelvis below nominal while carrying; the legs' slew of heights

RAISED_M = (0.26, 0.22, 0.16)  # left palm before the pelvis, hands apart above the object
CARRIED_AHEAD_M, CARRIED_M, CARRIED_MOST_M = 0.31, 0.10, 0.36  # ahead of the pelvis; least and most above it
RIM_CLEAR_M = 0.08  # what the object's bottom keeps from a rim
CLEAR_M, HOVER_M, OPEN_M = 0.12, 0.20, 0.11  # palms off the sides before closing, above the top, off when letting go
SPARE_M = 0.03  # palms below the ledges before lifting
INSET_M, LIFT_M = 0.012, 0.10  # palms into the sides while holding; how far to lift
BESIDE_OK_M = (0.05, 0.04, 0.025)  # ahead, aside, above
TOUCH_M, LOST_M, OPENED_M = 0.03, 0.04, 0.04  # palm to side: holds; palm to object: has lost it; lets it go
LIFTED_M, OVER_M, STANDS_M = 0.04, 0.06, 0.01  # above the support; from the goal on the floor plane; above the goal
SQUEEZE_N, SQUEEZE_N_KG, GRAVITY = 15.0, 5.0, 9.81
LOST_S = 0.4  # how long a palm must be off the object for it to be lost
CARRYING = ("lift", "retreat", "face", "deliver", "over")  # phases in which a lost object is picked up again
HOLDING = (*CARRYING, "lower")

Aims = tuple[tuple[float, float, float], float, np.ndarray, bool]


class CarryOperator:
    """See the module's first lines.

    Args:
        robot: with whom.
        rng: varies where it stands and how high it carries.
    """

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        from wbvla.contract import load_contract
        from wbvla.lmo.controller import weights_folder

        self.robot = robot
        _, self._palm_thick_m, self._palm_high_m = robot.palm_half_m
        self._hands = Hands(robot)
        self._lowest_m = load_contract(weights_folder(robot.name) / "contract.json", "lmo")["height_range_m"][0]
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._reach_m = REACH_M + rng.uniform(-0.01, 0.01)
        self._carried_m = CARRIED_M + rng.uniform(-0.02, 0.02)
        self._walker = Walker(self.robot.name)
        self._hands.reset()
        self._lost_s = 0.0
        self._enter("approach")

    def act(self, state: CarryState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        self._phase_s += PERIOD_S
        is_new = self._phase_s < 1.5 * PERIOD_S
        self._walker.see(state)
        self._hands.see(state)
        stand, height_m, palms, holds = getattr(self, f"_{self.phase}")(state)
        self._notice_loss(state)
        loco = LocoCommand(*self._walker.flags(*stand), self._reachable(height_m))
        squeezes = holds and bool(np.all(state.palm_gap_m < TOUCH_M))
        press_N = SQUEEZE_N + SQUEEZE_N_KG * state.object_kg if squeezes else 0.0
        load_N = GRAVITY * state.object_kg / 2 if self.phase in HOLDING else 0.0
        return WholeBodyAction(ArmTarget(self._hands.step(palms, is_new, holds, press_N, load_N)), loco)

    # One method a phase. It returns where to stand (x, y, heading), how high the pelvis, where the palms (2, 3) in the
    # trunk frame, and whether they hold the object.

    def _approach(self, state: CarryState) -> Aims:
        stand = self._grasp_stand(state)
        if self._walker.at(*stand, AT_M, AT_RAD):
            self._enter("squat")
        return stand, self.robot.nominal_height_m, self._apart(state), False

    def _squat(self, state: CarryState) -> Aims:
        """Hands above both sides of the object."""
        height_m = self._grasp_height(state)
        above = self._above(state, CLEAR_M)
        down = self._phase_s > 1.0 + (self.robot.nominal_height_m - self._reachable(height_m)) / SQUAT_M_S
        aside = np.abs(above - self._hands.to_trunk(state.palm_m))[:, 1].max()
        stand = self._grasp_stand(state)
        if down and aside < SPARE_M and self._walker.at(*stand, AT_M, AT_RAD):
            self._enter("reach")
        return stand, height_m, above, False

    def _reach(self, state: CarryState) -> Aims:
        """Hands down to both sides."""
        beside = self._beside(state, CLEAR_M)
        off = np.abs(beside - self._hands.to_trunk(state.palm_m)).max(0)
        if self._phase_s > 1.0 and np.all(off < BESIDE_OK_M):
            self._enter("close")
        elif self._phase_s > 6.0:
            self._enter("free")
        return self._grasp_stand(state), self._grasp_height(state), beside, False

    def _close(self, state: CarryState) -> Aims:
        """Hands together, but only while both are below the ledges."""
        places = (state.palm_m - state.object_m) @ state.object_rotation
        touching = np.abs(places[:, 1]) - state.object_half_m[1] - self._palm_thick_m < TOUCH_M
        under = bool(np.all(places[:, 2] + self._palm_high_m < state.ledge_m))
        if self._lasts(under and bool(np.all(touching)), 0.3):
            self._enter("lift")
        elif self._phase_s > 5.0:
            self._enter("free")
        return self._stand, self._grasp_height(state), self._beside(state, -INSET_M if under else CLEAR_M), under

    def _lift(self, state: CarryState) -> Aims:
        palms = self._held(state)
        height_m = state.support_m + state.object_half_m[2] + self._grip_m(state) + LIFT_M
        palms[:, 2] = self._hands.to_trunk(np.array([[*state.palm_m[:, :2].mean(0), height_m]]))[0, 2]
        if state.lowest_m > state.support_m + LIFTED_M:
            self._enter("retreat")
        elif self._phase_s > 4.0:
            self._enter("free")
        return self._stand, self._grasp_height(state), palms, True

    def _free(self, state: CarryState) -> Aims:
        """Try again: hands off to the sides first, or they would lift the object by its ledges."""
        if np.all(state.palm_gap_m > OPENED_M) or self._phase_s > 2.0:
            self._enter("approach")
        return self._grasp_stand(state), self._grasp_height(state), self._beside(state, OPEN_M), False

    def _retreat(self, state: CarryState) -> Aims:
        x, y, heading = self._stand
        back = x - STAND_OFF_M * np.cos(heading), y - STAND_OFF_M * np.sin(heading), heading
        if self._walker.at(*back, 1.5 * AT_M, 2 * AT_RAD):
            self._enter("face")
        return back, self._carry_height(), self._carried(state), True

    def _face(self, state: CarryState) -> Aims:
        before = self._goal_stand(state, STAND_OFF_M)
        if self._walker.at(*before, 1.5 * AT_M, AT_RAD):
            self._enter("deliver")
        return before, self._carry_height(), self._carried(state), True

    def _deliver(self, state: CarryState) -> Aims:
        stand = self._goal_stand(state)
        if self._walker.at(*stand, AT_M, AT_RAD):
            self._enter("over")
        return stand, self._carry_height(), self._carried(state), True

    def _over(self, state: CarryState) -> Aims:
        """Object above the goal, still high."""
        palms = self._at_goal(state)
        palms[:, 2] = self._carried(state)[:, 2]
        above = float(np.hypot(*(state.goal_m - state.object_m)[:2])) < OVER_M
        if self._lasts(above, 0.3) or self._phase_s > 6.0:
            self._enter("lower")
        return self._goal_stand(state), self._goal_height(state), palms, True

    def _lower(self, state: CarryState) -> Aims:
        stands = state.lowest_m < state.goal_m[2] + STANDS_M
        if self._lasts(stands, 0.5) or self._phase_s > 6.0:
            self._enter("open")
        return self._goal_stand(state), self._goal_height(state), self._at_goal(state), not stands

    def _open(self, state: CarryState) -> Aims:
        if np.all(state.palm_gap_m > OPENED_M) or self._phase_s > 4.0:
            self._enter("leave")
        return self._goal_stand(state), self._goal_height(state), self._beside(state, OPEN_M), False

    def _leave(self, state: CarryState) -> Aims:
        """Hands up beside the object, or a ledge would hang on them."""
        above = self._above(state, OPEN_M)
        return self._goal_stand(state, STAND_OFF_M), self.robot.nominal_height_m, above, False

    def _notice_loss(self, state: CarryState) -> None:
        """Try again when the object has slipped from a hand on its way; on the floor it would end the episode."""
        lost = self.phase in CARRYING and bool(np.any(state.palm_gap_m > LOST_M))
        self._lost_s = self._lost_s + PERIOD_S if lost else 0.0
        if self._lost_s > LOST_S:
            self._enter("free")

    def _enter(self, phase: str) -> None:
        self.phase, self._phase_s, self._lasted_s = phase, 0.0, 0.0

    def _lasts(self, now: bool, seconds: float) -> bool:
        """Whether something has been so for a while; one thing a phase."""
        self._lasted_s = self._lasted_s + PERIOD_S if now else 0.0
        return self._lasted_s > seconds

    def _grasp_stand(self, state: CarryState) -> tuple[float, float, float]:
        """Where to stand to handle the object: behind it, along its own heading."""
        heading = float(np.arctan2(state.object_rotation[1, 0], state.object_rotation[0, 0]))
        x, y = state.object_m[:2] - self._reach_m * np.array([np.cos(heading), np.sin(heading)])
        self._stand = x, y, heading
        return self._stand

    def _goal_stand(self, state: CarryState, back_m: float = 0.0) -> tuple[float, float, float]:
        heading = state.goal_yaw_rad
        x, y = state.goal_m[:2] - (self._reach_m + FURTHER_M + back_m) * np.array([np.cos(heading), np.sin(heading)])
        return x, y, heading

    def _grip_m(self, state: CarryState) -> float:
        """Height of the palms above the object's centre before they lift and after they let go."""
        return state.ledge_m - self._palm_high_m - SPARE_M

    def _grasp_height(self, state: CarryState) -> float:
        return state.support_m + state.object_half_m[2] + self._grip_m(state) - SQUAT_M

    def _goal_height(self, state: CarryState) -> float:
        return state.goal_m[2] + state.object_half_m[2] + self._grip_m(state) - SQUAT_M

    def _carry_height(self) -> float:
        return self.robot.nominal_height_m - CARRY_BELOW_M

    def _reachable(self, height_m: float) -> float:
        """The nearest pelvis height that these legs can take."""
        return float(np.clip(height_m, self._lowest_m, self.robot.nominal_height_m))

    def _apart(self, state: CarryState) -> np.ndarray:
        """Palms on the way there, above the object's top: whoever is bumped into must not knock it over."""
        x, y, z = RAISED_M
        z = max(z, state.object_m[2] + state.object_half_m[2] + HOVER_M - self.robot.nominal_height_m)
        return np.array([[x, y, z], [x, -y, z]])

    def _beside(self, state: CarryState, clear_m: float) -> np.ndarray:
        """Palms on both sides of the object where it is, this far from its sides."""
        side = (state.object_half_m[1] + self._palm_thick_m + clear_m) * state.object_rotation[:, 1]
        middle = state.object_m + [0.0, 0.0, self._grip_m(state)]
        return self._hands.to_trunk(np.array([middle + side, middle - side]))

    def _above(self, state: CarryState, clear_m: float) -> np.ndarray:
        """The same, higher than the object's top."""
        palms = self._beside(state, clear_m)
        palms[:, 2] += state.object_half_m[2] + HOVER_M - self._grip_m(state)
        return palms

    def _held(self, state: CarryState) -> np.ndarray:
        """Palms that hold the object where it is before the trunk."""
        apart = state.object_half_m[1] + self._palm_thick_m - INSET_M
        palms = np.tile(self._hands.place.mean(0), (2, 1))
        palms[:, 1] = [apart, -apart]
        return palms

    def _carried(self, state: CarryState) -> np.ndarray:
        """Palms that carry the object near the trunk, its bottom above the goal's rim."""
        palms = self._held(state)
        bottom_m = state.object_half_m[2] + state.ledge_m - self._palm_high_m  # below the palms' centres
        over_rim_m = state.rim_m + RIM_CLEAR_M + bottom_m - self._carry_height()
        palms[:, 0], palms[:, 2] = CARRIED_AHEAD_M, np.clip(over_rim_m, self._carried_m, CARRIED_MOST_M)
        return palms

    def _at_goal(self, state: CarryState) -> np.ndarray:
        """Palms that put the held object down at the goal, and sink off its ledges when it stands."""
        middle = state.goal_m + [0.0, 0.0, state.object_half_m[2] + self._grip_m(state)]
        ahead, aside, above = self._hands.to_trunk(middle[None])[0]
        palms = self._held(state)
        palms[:, 0], palms[:, 2] = ahead, above
        palms[:, 1] += np.clip(aside, -OVER_M, OVER_M)
        return palms
