"""Bag packing: grasp the paper bag with both hands, sidestep to the right, squat and put it into the carton.

In: plant, random generator. Out: scene, start pose, `CarryState`, verdicts.
The origin is the middle of the table's near edge, x points across the table; an open carton of five walls stands to its
right on a stool. The bag is one rigid body with a stiff handle along its left and its right side.
"""

from __future__ import annotations

import mujoco
import numpy as np

from wbvla.sim.plant import Plant
from wbvla.sim.tasks.base import Axis, add_material, add_room, draw, hsv_to_rgb, randomise_room
from wbvla.sim.tasks.carrying import (
    SIGHT_AXES,
    START_AXES,
    SUBGOALS,
    CarryRules,
    CarryState,
    StateReader,
    set_sight,
)
from wbvla.sim.tasks.furniture import (
    STILL,
    add_object,
    add_stand,
    allow_edits,
    paint_stand,
    place_free,
    set_object,
    set_stand,
)

TABLE_HALF_M, STOOL_HALF_M = (0.20, 0.34), (0.15, 0.20)
OVERHANG_M = 0.03  # how far the bag stands out over the table's near edge
HANDLE_M = 0.02  # top of the handles below the bag's top
INNER_HALF_M, WALL_HALF_M = (0.15, 0.20, 0.07), 0.005  # the carton's inside, and its walls' half thickness

AXES = {
    **START_AXES,
    "table_m": Axis((0.48, 0.58), ((0.45, 0.48), (0.58, 0.64))),
    # A carton on the floor needs legs that squat below 0.45 m with the knees out of its way.
    "carton_m": Axis((0.46, 0.52), ((0.44, 0.46), (0.52, 0.58))),  # height of its floor
    "carton_aside_m": Axis((0.75, 0.95), ((0.68, 0.75), (0.95, 1.10))),  # its middle, right of the table's
    "bag_length_m": Axis((0.13, 0.16), ((0.11, 0.13), (0.16, 0.18))),
    "bag_width_m": Axis((0.20, 0.25), ((0.18, 0.20), (0.25, 0.28))),
    "bag_height_m": Axis((0.29, 0.34), ((0.27, 0.29), (0.34, 0.37))),
    "bag_kg": Axis((0.3, 1.0), ((1.0, 1.5),)),
    "bag_friction": Axis((0.6, 1.0), ((0.4, 0.6),)),
    "bag_y_m": Axis((-0.06, 0.06), ((-0.10, -0.06), (0.06, 0.10))),
    "bag_yaw_rad": Axis((-0.12, 0.12), ((-0.25, -0.12), (0.12, 0.25))),
    "bag_hue": Axis((0.05, 0.60), ((0.60, 1.05),)),
    **SIGHT_AXES,
}
PAPER = {"Grasp Bags": "lift", "Move & Squat": "release"}


class BagPacking:
    """The task; see the module's first lines."""

    name = "bag-packing"
    text = "grasp the bag with both hands, step to the right, squat down and put the bag into the carton"
    subgoals = SUBGOALS
    paper = PAPER
    axes = AXES
    time_limit_s = 40.0  # the operator takes 26 at most

    def __init__(self) -> None:
        self._reader: StateReader | None = None
        self._table_m, self._goal_m = 0.0, np.zeros(3)

    def add_scene(self, spec: mujoco.MjSpec) -> None:
        """Add the room, the table with the bag, the carton on its stool, and things that only stand about."""
        add_room(spec)
        allow_edits(spec)
        kind = mujoco.mjtGeom
        for i, builtin in enumerate((mujoco.mjtBuiltin.mjBUILTIN_FLAT, mujoco.mjtBuiltin.mjBUILTIN_CHECKER)):
            add_material(spec, f"bag{i}", builtin, (1, 1, 1), (0.8, 0.8, 0.8), 2)
        add_stand(spec, "table")
        add_stand(spec, "stool")
        carton = spec.worldbody.add_body(name="carton")
        x, y, z = INNER_HALF_M
        t = WALL_HALF_M
        for i, (half, pos) in enumerate((
            ((x + 2 * t, y + 2 * t, t), (0, 0, -t)),
            ((t, y + 2 * t, z), (x + t, 0, z)),
            ((t, y + 2 * t, z), (-x - t, 0, z)),
            ((x, t, z), (0, y + t, z)),
            ((x, t, z), (0, -y - t, z)),
        )):  # fmt: skip
            carton.add_geom(name=f"carton{i}", type=kind.mjGEOM_BOX, size=half, pos=pos, **STILL)
        add_object(spec, "bag", "bag0")
        for i, (shape, size) in enumerate(
            ((kind.mjGEOM_SPHERE, [0.05, 0, 0]), (kind.mjGEOM_CYLINDER, [0.04, 0.06, 0]), (kind.mjGEOM_BOX, [0.2] * 3))
        ):
            spec.worldbody.add_geom(name=f"thing{i}", type=shape, size=size, pos=[3, 2, 1], **STILL)

    def start(self, plant: Plant, rng: np.random.Generator, unseen: tuple[str, ...] = (), **fixed: float) -> None:
        """Draw one episode's sizes, places and looks, and reset the plant to them."""
        model = plant.model
        v = draw(self.axes, rng, unseen, fixed)
        randomise_room(model, rng)
        set_sight(plant, v)
        half = np.array([v["bag_length_m"], v["bag_width_m"], v["bag_height_m"]]) / 2
        self._table_m = v["table_m"]
        self._goal_m = np.array([INNER_HALF_M[0], -v["carton_aside_m"], v["carton_m"]])
        set_stand(model, "table", TABLE_HALF_M, v["table_m"], (TABLE_HALF_M[0], 0.0), 0.0)
        set_stand(model, "stool", STOOL_HALF_M, v["carton_m"] - 2 * WALL_HALF_M, tuple(self._goal_m[:2]), 0.0)
        model.body("carton").pos[:] = self._goal_m
        set_object(model, "bag", half, v["bag_kg"], v["bag_friction"], half[2] - HANDLE_M)
        self._dress(model, rng, v["bag_hue"])
        mujoco.mj_setConst(model, plant.data)
        plant.reset(-v["distance_m"], v["lateral_m"], v["yaw_rad"])
        back_m = half[0] * np.cos(v["bag_yaw_rad"]) + half[1] * abs(np.sin(v["bag_yaw_rad"]))
        place_free(plant, "bag", (back_m - OVERHANG_M, v["bag_y_m"], v["table_m"] + half[2]), v["bag_yaw_rad"])
        mujoco.mj_forward(model, plant.data)

    def _dress(self, model: mujoco.MjModel, rng: np.random.Generator, bag_hue: float) -> None:
        """Draw colours and what stands about: two things on the table's far end, one beside the wall."""
        look = model.material(f"bag{rng.integers(2)}").id
        colour = hsv_to_rgb(bag_hue, rng.uniform(0.25, 0.7), rng.uniform(0.6, 0.95))
        for name, shade in (("bag", 1.0), ("bag_ledge0", 0.6), ("bag_ledge1", 0.6)):
            model.geom(name).matid, model.geom(name).rgba[:3] = look, shade * colour
        for body, hue in (("table", rng.uniform(0.05, 0.12)), ("stool", rng.uniform(0.5, 0.75))):
            paint_stand(model, body, hsv_to_rgb(hue, rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9)))
        cardboard = hsv_to_rgb(rng.uniform(0.07, 0.10), rng.uniform(0.35, 0.55), rng.uniform(0.55, 0.8))
        for i in range(5):
            model.geom(f"carton{i}").rgba[:3] = cardboard * rng.uniform(0.85, 1.0)
        for i, sign in enumerate(rng.permutation([-1, 1])):
            thing = model.geom(f"thing{i}")
            thing.pos[:] = [TABLE_HALF_M[0] * 2 - 0.06, sign * rng.uniform(0.24, 0.28), self._table_m + thing.size[i]]
        model.geom("thing2").pos[:] = [rng.uniform(1.2, 3.0), rng.uniform(-2.0, 2.0), 0.2]
        for i in range(3):
            model.geom(f"thing{i}").rgba[:3] = hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))

    def state(self, plant: Plant) -> CarryState:
        """Return the privileged state of this instant."""
        if self._reader is None:
            self._reader = StateReader(plant, "bag")
        return self._reader.read(plant, self._table_m, self._goal_m, 0.0, self._goal_m[2] + 2 * INNER_HALF_M[2])

    def rules(self) -> BagRules:
        """Return a fresh judge."""
        return BagRules(self.time_limit_s)


class BagRules(CarryRules):
    """`CarryRules`, and: the bag is placed when it stands in the carton.

    It stands there when its lowest corner is within 1.5 cm of the carton's floor, its centre is between the carton's
    walls, and it leans less than 20 degrees.
    """

    def placed(self, state: CarryState) -> bool:
        """Return whether the bag stands in the carton."""
        inside = np.all(np.abs(state.object_m - state.goal_m)[:2] < INNER_HALF_M[:2])
        level = abs(state.lowest_m - state.goal_m[2]) < 0.015 and state.lean_rad < np.radians(20.0)
        return bool(inside and level)
