"""What box loading and bag packing share: an object between two palms, from a support to a goal.

In: plant, names of the scene's parts. Out: `CarryState`, verdicts on the sequence of subgoals, shared axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np

from wbvla.sim.plant import TICK_S, Plant
from wbvla.sim.tasks.base import Axis, Outcome, box_gap, has_fallen, palm_geoms

START_AXES = {
    "distance_m": Axis((1.0, 1.5), ((0.85, 1.0), (1.5, 1.75))),  # pelvis before the table's near edge
    "lateral_m": Axis((-0.5, 0.5), ((-0.75, -0.5), (0.5, 0.75))),
    "yaw_rad": Axis((-np.pi / 4, np.pi / 4), ((-np.pi / 3, -np.pi / 4), (np.pi / 4, np.pi / 3))),
}
SIGHT_AXES = {
    "light": Axis((0.40, 0.75), ((0.25, 0.40), (0.75, 0.95))),  # the lamp's strength
    "camera_tilt_rad": Axis((-0.02, 0.02), ((-0.05, -0.02), (0.02, 0.05))),  # error of the head camera's mount
    "camera_noise": Axis((0.0, 0.02), ((0.02, 0.05),)),  # std of a picture's values, whose range is 0 to 1
}

SUBGOALS = ("approach", "grasp", "lift", "carry", "place", "release")

NEAR_M, FACING_RAD = 0.60, 0.5  # approach: pelvis to object on the floor plane, and heading to its direction
GRASP_GAP_M, GRASP_HOLD_S = 0.02, 0.3
LIFT_M, LIFT_HOLD_S = 0.03, 0.3  # lowest point above the support it stood on
OVER_GOAL_M = 0.45  # carry: object to goal on the floor plane
FREE_GAP_M, RELEASE_HOLD_S = 0.03, 0.5
DROPPED_M = 0.12  # an object whose lowest point is nearer to the floor than this was dropped


@dataclass(frozen=True)
class CarryState:
    """Privileged state of a robot, an object and the place where the object shall stand.

    Attributes:
        t_s: time since reset.
        pelvis_m: position (3,). yaw_rad, tilt_rad: its heading and lean.
        torso_m: position (3,). torso_rotation: R_world_torso (3, 3).
        palm_m: centres of the left and right palm (2, 3). palm_gap_m: their distances to the object (2,), 0 in contact.
        object_m: centre (3,). object_rotation: R_world_object (3, 3). object_half_m: half sizes (3,). object_kg: mass.
        ledge_m: height of the undersides of its two ledges, left and right, above its centre.
        support_m: height of the surface that the object stood on at first.
        goal_m: where the centre of the object's bottom shall stand (3,). goal_yaw_rad: heading to face it from.
        rim_m: height to lift the object over on its way there.
    """

    t_s: float
    pelvis_m: np.ndarray
    yaw_rad: float
    tilt_rad: float
    torso_m: np.ndarray
    torso_rotation: np.ndarray
    palm_m: np.ndarray
    palm_gap_m: np.ndarray
    object_m: np.ndarray
    object_rotation: np.ndarray
    object_half_m: np.ndarray
    object_kg: float
    ledge_m: float
    support_m: float
    goal_m: np.ndarray
    goal_yaw_rad: float
    rim_m: float

    @property
    def lowest_m(self) -> float:
        """Height of the object's lowest corner."""
        return float(self.object_m[2] - np.abs(self.object_rotation[2]) @ self.object_half_m)

    @property
    def lean_rad(self) -> float:
        """How far the object leans from upright."""
        return float(np.arccos(np.clip(self.object_rotation[2, 2], -1.0, 1.0)))


class StateReader:
    """Reads CarryState of a plant whose scene has a free body `body` with a box geom of that name and ledges."""

    def __init__(self, plant: Plant, body: str) -> None:
        model = plant.model
        self._body, self._box = model.body(body).id, model.geom(body).id
        self._ledges = [model.geom(f"{body}_ledge{i}").id for i in range(2)]
        self._palms, self._torso = palm_geoms(model), model.body("torso_link").id

    def read(self, plant: Plant, support_m: float, goal_m: np.ndarray, goal_yaw_rad: float, rim_m: float):
        """Return the state of this instant."""
        model, data = plant.model, plant.data
        pelvis, yaw, tilt = plant.pelvis_pose()
        return CarryState(
            t_s=float(data.time),
            pelvis_m=pelvis,
            yaw_rad=yaw,
            tilt_rad=tilt,
            torso_m=data.xpos[self._torso].copy(),
            torso_rotation=data.xmat[self._torso].reshape(3, 3).copy(),
            palm_m=data.geom_xpos[self._palms],
            palm_gap_m=np.array([self._gap(model, data, *pair) for pair in zip(self._palms, self._ledges)]),
            object_m=data.geom_xpos[self._box].copy(),
            object_rotation=data.geom_xmat[self._box].reshape(3, 3).copy(),
            object_half_m=model.geom_size[self._box].copy(),
            object_kg=float(model.body_mass[self._body]),
            ledge_m=float(model.geom_pos[self._ledges[0], 2] - model.geom_size[self._ledges[0], 2]),
            support_m=support_m,
            goal_m=goal_m,
            goal_yaw_rad=goal_yaw_rad,
            rim_m=rim_m,
        )

    def _gap(self, model: mujoco.MjModel, data: mujoco.MjData, palm: int, ledge: int) -> float:
        return min(box_gap(model, data, palm, part) for part in (self._box, ledge))


class CarryRules(ABC):
    """The subgoals in their order; a task's own rules say when its object is placed.

    - approach: the pelvis is within 0.6 m of the object on the floor plane and turned to it within 0.5 rad.
    - grasp: both palms, on opposite sides, are within 2 cm of the object for 0.3 s.
    - lift: still grasped, the object's lowest corner is 3 cm above its support for 0.3 s.
    - carry: after lift, the object is still grasped and within 0.45 m of its goal on the floor plane.
    - place: after carry, `placed` holds.
    - release: `placed` holds and both palms are at least 3 cm away from the object for 0.5 s. This is success.
    - failure: a fall, an object dropped (lowest corner below 12 cm while not placed), or the time limit.
    """

    def __init__(self, time_limit_s: float) -> None:
        self._time_limit_s = time_limit_s
        self._reached = dict.fromkeys(SUBGOALS, False)
        self._held_s = {"grasp": 0.0, "lift": 0.0, "release": 0.0}
        self._fallen = self._dropped = False

    @abstractmethod
    def placed(self, state: CarryState) -> bool:
        """Return whether the object rests where the task wants it."""

    def judge(self, state: CarryState) -> Outcome:
        """Return the verdict after this state; call once per 50 Hz tick."""
        reached = self._reached
        self._fallen |= bool(has_fallen(state.pelvis_m[2], state.tilt_rad))
        placed = self.placed(state)
        self._dropped |= state.lowest_m < DROPPED_M and not placed
        to_object = state.object_m[:2] - state.pelvis_m[:2]
        off = np.arctan2(to_object[1], to_object[0]) - state.yaw_rad
        facing = abs((off + np.pi) % (2 * np.pi) - np.pi) < FACING_RAD
        reached["approach"] |= bool(np.hypot(*to_object) < NEAR_M and facing)
        sides = (state.palm_m - state.object_m) @ state.object_rotation[:, 1]
        grasped = bool(np.all(state.palm_gap_m <= GRASP_GAP_M) and sides[0] > 0 > sides[1])
        lifted = grasped and state.lowest_m >= state.support_m + LIFT_M
        reached["grasp"] |= reached["approach"] and self._held("grasp", grasped, GRASP_HOLD_S)
        reached["lift"] |= reached["grasp"] and self._held("lift", lifted, LIFT_HOLD_S)
        over_goal = float(np.hypot(*(state.object_m - state.goal_m)[:2])) < OVER_GOAL_M
        reached["carry"] |= reached["lift"] and grasped and over_goal
        reached["place"] |= reached["carry"] and placed
        free = placed and bool(np.all(state.palm_gap_m >= FREE_GAP_M))
        released = self._held("release", free, RELEASE_HOLD_S)
        reached["release"] |= bool(reached["place"] and released and not self._fallen)
        success = reached["release"] and not self._fallen
        late = state.t_s >= self._time_limit_s - 1e-9
        failure = "fall" if self._fallen else "drop" if self._dropped else "timeout" if late else ""
        failure = "" if success else failure
        return Outcome(dict(reached), success, self._fallen, success or failure != "", failure)

    def _held(self, name: str, now: bool, seconds: float) -> bool:
        self._held_s[name] = self._held_s[name] + TICK_S if now else 0.0
        return self._held_s[name] >= seconds - 1e-9


def set_sight(plant: Plant, values: dict[str, float]) -> None:
    """Set the lamp and disturb the head camera as SIGHT_AXES say."""
    plant.model.light("lamp").diffuse[:] = values["light"]
    plant.disturb_camera(values["camera_tilt_rad"], values["camera_noise"])
