"""The operator of box loading and bag packing: both palms on the object, there and back.

In: CarryState at 20 Hz. Out: WholeBodyAction.
It walks to the object, squats, squeezes, lifts, backs off, faces the goal, walks there, squats, opens its hands.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from wbvla.robots.base import Robot
from wbvla.sim.ik import FINGERS_AHEAD, ArmSolver
from wbvla.sim.operator.motion import ARM_SPEED_RAD_S, PERIOD_S, STRIDE_S, Walker
from wbvla.sim.tasks.carrying import CarryState
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

REACH_M = 0.30  # pelvis behind the object's middle while handling it
STAND_OFF_M = 0.38  # how far to back off from the support, and where to face the goal
HAND_M_S = 0.30
PALM_HALF_M = 0.012
RAISED_M = (0.26, 0.22, 0.16)  # left palm before the pelvis, hands apart above the object
CARRIED_AHEAD_M, CARRIED_M, CARRIED_MOST_M = 0.31, 0.10, 0.24  # ahead of the pelvis; least and most above it
RIM_CLEAR_M, PALM_UP_M = 0.08, 0.045  # what the object's bottom keeps from a rim; half a palm's height
OVER_M, STANDS_M = 0.05, 0.01  # from goal to object while lowering; above the goal when it stands
AIM_GAIN = 0.03
CLEAR_M, HOVER_M, INSET_M, LIFT_M = 0.09, 0.10, 0.012, 0.09
BELOW_M = 0.075  # palm centres below the ledges while grasping: half a palm and 3 cm to spare
SQUAT_M = -0.10  # pelvis below the palms
OPEN_M, OPENED_M = 0.11, 0.04  # palms off the sides when letting go; off everything when that is done
BESIDE_OK_M = (0.05, 0.04, 0.025)  # ahead, aside, above
AT_M, AT_RAD = 0.09, 0.16
SQUEEZE_N, SQUEEZE_N_KG = 15.0, 5.0
AIM_LIMIT_M = 0.05
TOUCH_M, LOST_M = 0.03, 0.04  # both palms hold; one has lost it
GRAVITY = 9.81
HOLDING = ("lift", "retreat", "face", "deliver", "over", "lower")


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
        n = robot.n_lmo
        self._rest = robot.array("default")[n : n + 14]
        self._solver = ArmSolver(robot)
        contract = load_contract(weights_folder(robot.name) / "contract.json", "lmo")
        self._speed = contract["shaping"]["goal"]
        self._lowest_m = contract["height_range_m"][0]
        self.reset(rng)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin a new episode."""
        self._reach_m = REACH_M + rng.uniform(-0.01, 0.01)
        self._carried_m = CARRIED_M + rng.uniform(-0.02, 0.02)
        self._walker = Walker(self._speed)
        self._joints, self._sent = self._rest.copy(), self._rest.copy()
        self._hands: np.ndarray | None = None  # where the palms are told to be, trunk frame
        self._aim = np.zeros((2, 3))
        self._press_N = 0.0
        self._enter("approach")

    def act(self, state: CarryState) -> WholeBodyAction:
        """Return the action for the next 50 ms; call at 20 Hz."""
        self._phase_s += PERIOD_S
        if self._hands is None:
            self._hands = self._to_trunk(state, state.palm_m)
            self._places = deque([self._hands], round(STRIDE_S / PERIOD_S))
        self._walker.see(state)
        stand, height_m, hands, press = getattr(self, f"_{self.phase}")(state)
        flags = self._walker.flags(*stand)
        loco = LocoCommand(*flags, float(np.clip(height_m, self._lowest_m, self.robot.nominal_height_m)))
        return WholeBodyAction(ArmTarget(self._move_arms(state, hands, press)), loco)

    # One method a phase: where to stand (x, y, heading), how high, palms (2, 3) in the trunk frame, whether to press.

    def _approach(self, state: CarryState):
        stand = self._grasp_stand(state)
        if self._walker.at(*stand, AT_M, AT_RAD):
            self._enter("squat")
        return stand, self.robot.nominal_height_m, self._apart(), False

    def _squat(self, state: CarryState):
        height_m = self._grasp_height(state)
        above = self._beside(state, CLEAR_M)
        above[:, 2] += BELOW_M - state.ledge_m + state.object_half_m[2] + HOVER_M
        down = self._phase_s > 1.0 + (self.robot.nominal_height_m - max(height_m, self._lowest_m)) / 0.3
        if down and np.abs(above - self._to_trunk(state, state.palm_m))[:, 1].max() < 0.025:
            self._enter("reach")
        return self._grasp_stand(state), height_m, above, False

    def _reach(self, state: CarryState):
        beside = self._beside(state, CLEAR_M)
        off = np.abs(beside - self._to_trunk(state, state.palm_m)).max(0)
        if self._phase_s > 1.0 and np.all(off < BESIDE_OK_M):
            self._enter("close")
        elif self._phase_s > 6.0:
            self._enter("free")
        return self._grasp_stand(state), self._grasp_height(state), beside, False

    def _close(self, state: CarryState):
        places = (state.palm_m - state.object_m) @ state.object_rotation
        touching = np.abs(places[:, 1]) - state.object_half_m[1] - PALM_HALF_M < TOUCH_M
        under = places[:, 2] + PALM_UP_M < state.ledge_m
        self._contact_s = self._contact_s + PERIOD_S if np.all(touching & under) else 0.0
        if self._contact_s > 0.3:
            self._enter("lift")
        elif self._phase_s > 5.0:
            self._enter("free")
        beside = self._beside(state, -INSET_M if np.all(under) else CLEAR_M)
        return self._stand, self._grasp_height(state), beside, bool(np.all(under))

    def _lift(self, state: CarryState):
        hands = self._held(state)
        hands[:, 2] = self._grasp_height(state) - SQUAT_M + LIFT_M - state.pelvis_m[2]
        if state.lowest_m > state.support_m + 0.05:
            self._enter("retreat")
        elif self._phase_s > 4.0 or self._lost(state):
            self._enter("free")
        return self._stand, self._grasp_height(state), hands, True

    def _free(self, state: CarryState):
        """Try again: hands off to the sides first, or they would lift the object by its ledges."""
        if np.all(state.palm_gap_m > OPENED_M) or self._phase_s > 2.0:
            self._enter("approach")
        return self._grasp_stand(state), self._grasp_height(state), self._beside(state, OPEN_M), False

    def _retreat(self, state: CarryState):
        x, y, heading = self._stand
        back = x - STAND_OFF_M * np.cos(heading), y - STAND_OFF_M * np.sin(heading), heading
        if self._walker.at(*back, 0.15, 0.3):
            self._enter("face")
        return back, self._carry_height(), self._carried(state), True

    def _face(self, state: CarryState):
        before = self._goal_stand(state, STAND_OFF_M)
        if self._walker.at(*before, 0.12, AT_RAD):
            self._enter("deliver")
        return before, self._carry_height(), self._carried(state), True

    def _deliver(self, state: CarryState):
        stand = self._goal_stand(state)
        if self._walker.at(*stand, AT_M, AT_RAD):
            self._enter("over")
        return stand, self._carry_height(), self._carried(state), True

    def _over(self, state: CarryState):
        hands = self._over_goal(state)
        hands[:, 2] = self._carried(state)[:, 2]
        off = np.abs(self._to_trunk(state, np.array([state.goal_m, state.object_m])) @ [[1, 0], [0, 1], [0, 0]])
        self._contact_s = self._contact_s + PERIOD_S if np.ptp(off, axis=0).max() < OVER_M else 0.0
        if self._contact_s > 0.3 or self._phase_s > 6.0:
            self._enter("lower")
        return self._goal_stand(state), self._goal_height(state), hands, True

    def _lower(self, state: CarryState):
        stands = state.lowest_m < state.goal_m[2] + STANDS_M
        self._contact_s = self._contact_s + PERIOD_S if stands else 0.0
        if self._contact_s > 0.5 or self._phase_s > 6.0:
            self._enter("open")
        return self._goal_stand(state), self._goal_height(state), self._over_goal(state), not stands

    def _open(self, state: CarryState):
        if np.all(state.palm_gap_m > OPENED_M) or self._phase_s > 4.0:
            self._enter("leave")
        return self._goal_stand(state), self._goal_height(state), self._beside(state, OPEN_M), False

    def _leave(self, state: CarryState):
        return self._goal_stand(state, STAND_OFF_M), self.robot.nominal_height_m, self._apart(), False

    def _enter(self, phase: str) -> None:
        self.phase, self._phase_s, self._contact_s, self._lost_s = phase, 0.0, 0.0, 0.0

    def _lost(self, state: CarryState) -> bool:
        self._lost_s = self._lost_s + PERIOD_S if np.any(state.palm_gap_m > LOST_M) else 0.0
        return self._lost_s > 0.4

    def _grasp_stand(self, state: CarryState) -> tuple[float, float, float]:
        """Where to stand to handle the object: behind it, along its own heading."""
        heading = float(np.arctan2(state.object_rotation[1, 0], state.object_rotation[0, 0]))
        x, y = state.object_m[:2] - self._reach_m * np.array([np.cos(heading), np.sin(heading)])
        self._stand = x, y, heading
        return self._stand

    def _goal_stand(self, state: CarryState, back_m: float = 0.0) -> tuple[float, float, float]:
        heading = state.goal_yaw_rad
        x, y = state.goal_m[:2] - (self._reach_m + back_m) * np.array([np.cos(heading), np.sin(heading)])
        return x, y, heading

    def _grasp_height(self, state: CarryState) -> float:
        return state.support_m + state.object_half_m[2] + state.ledge_m - BELOW_M + SQUAT_M

    def _goal_height(self, state: CarryState) -> float:
        return state.goal_m[2] + state.object_half_m[2] + state.ledge_m - BELOW_M + SQUAT_M

    def _carry_height(self) -> float:
        return self.robot.nominal_height_m - 0.02

    def _apart(self) -> np.ndarray:
        x, y, z = RAISED_M
        return np.array([[x, y, z], [x, -y, z]])

    def _beside(self, state: CarryState, clear_m: float) -> np.ndarray:
        """Palms on both sides of the object where it is, this far from its sides."""
        side = (state.object_half_m[1] + PALM_HALF_M + clear_m) * state.object_rotation[:, 1]
        middle = state.object_m + [0.0, 0.0, state.ledge_m - BELOW_M]
        return self._to_trunk(state, np.array([middle + side, middle - side]))

    def _held(self, state: CarryState) -> np.ndarray:
        """Palms that hold the object where it is before the trunk."""
        apart = state.object_half_m[1] + PALM_HALF_M - INSET_M
        hands = np.tile(self._hands.mean(0), (2, 1))
        hands[:, 1] = [apart, -apart]
        return hands

    def _carried(self, state: CarryState) -> np.ndarray:
        """Palms that carry the object near the trunk, its bottom above the goal's rim."""
        hands = self._held(state)
        bottom_m = state.object_half_m[2] + state.ledge_m - PALM_UP_M  # below the palms' centres
        over_rim_m = state.rim_m + RIM_CLEAR_M + bottom_m - self._carry_height()
        hands[:, 0], hands[:, 2] = CARRIED_AHEAD_M, np.clip(over_rim_m, self._carried_m, CARRIED_MOST_M)
        return hands

    def _over_goal(self, state: CarryState) -> np.ndarray:
        """Palms that put the held object down at the goal, and sink off its ledges when it stands."""
        ledge = state.goal_m + [0.0, 0.0, state.object_half_m[2] + state.ledge_m - BELOW_M]
        (ahead, aside, above) = self._to_trunk(state, ledge[None])[0]
        hands = self._held(state)
        hands[:, 0] = ahead
        hands[:, 1] += np.clip(aside, -0.06, 0.06)
        hands[:, 2] = above
        return hands

    def _move_arms(self, state: CarryState, hands: np.ndarray, press: bool) -> np.ndarray:
        """Move the palms towards their place, smoothly, and return the joint targets (14,)."""
        if self._phase_s <= PERIOD_S + 1e-9:  # a new phase has a new place: let the memory jump with it
            self._places = deque((p + hands - self._places[-1] for p in self._places), self._places.maxlen)
        self._places.append(hands)
        wanted = np.mean(self._places, axis=0)
        self._hands = self._hands + np.clip(wanted - self._hands, -HAND_M_S * PERIOD_S, HAND_M_S * PERIOD_S)
        drift = AIM_GAIN * (self._hands - self._to_trunk(state, state.palm_m))
        if press:
            drift[:, 1] = 0.0
            drift[:, 2] = drift[:, 2].mean()
        self._aim = np.clip(self._aim + drift, -AIM_LIMIT_M, AIM_LIMIT_M)
        full = SQUEEZE_N + SQUEEZE_N_KG * state.object_kg
        near = press and bool(np.all(state.palm_gap_m < 0.03))
        self._press_N += float(np.clip((full if near else 0.0) - self._press_N, -6.0, 3.0))
        weight = state.object_kg * GRAVITY / 2 if self.phase in HOLDING else 0.0
        forces = np.array([[0.0, -self._press_N, weight], [0.0, self._press_N, weight]])
        self._joints, targets = self._solver.follow(self._joints, self._hands + self._aim, FINGERS_AHEAD, forces)
        limit = ARM_SPEED_RAD_S * PERIOD_S
        self._sent = self._sent + np.clip(targets - self._sent, -limit, limit)
        return self._sent

    def _to_trunk(self, state: CarryState, points_m: np.ndarray) -> np.ndarray:
        """World points (N, 3) in the frame of a pelvis straight below the trunk, as the arm solver wants them."""
        return (points_m - state.torso_m) @ state.torso_rotation + self._solver.torso_m
