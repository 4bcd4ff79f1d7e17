"""Box loading: squat before a low table, grasp the box with both palms, rise, turn left and put it on the cart.

In: plant, random generator. Out: scene, start pose, `CarryState`, verdicts.
The origin is the middle of the table's near edge, x points across the table; the cart stands to the robot's left.
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
    add_object,
    add_stand,
    allow_edits,
    paint_stand,
    place_free,
    set_object,
    set_stand,
)

TABLE_HALF_M = (0.20, 0.36)
CART_HALF_M = (0.26, 0.32)
OVERHANG_M = 0.05  # how far the box stands out over the table's near edge
GOAL_INSIDE_M, INSIDE_M = 0.02, 0.05  # from the deck's edges: the box's side at the goal, its centre to count as placed
CART_X_M = -0.62  # where the cart's axis crosses the robot's way back from the table
FARTHER_M = 0.05  # the cart is moved away by, again and again, while the robot would begin inside it

AXES = {
    **START_AXES,
    # The paper's 60/45/25 cm need legs that squat below 0.45 m, or a trunk that leans; so far 60 to 52.
    "table_m": Axis((0.52, 0.60), ((0.48, 0.52), (0.60, 0.65))),
    "cart_m": Axis((0.48, 0.58), ((0.45, 0.48), (0.58, 0.64))),  # height of the deck
    "cart_away_m": Axis(
        (0.70, 0.90), ((0.62, 0.70), (0.90, 1.05))
    ),  # origin's line to the cart's near edge, or farther
    "box_length_m": Axis((0.20, 0.26), ((0.17, 0.20), (0.26, 0.28))),
    "box_width_m": Axis((0.22, 0.28), ((0.19, 0.22), (0.28, 0.31))),
    "box_height_m": Axis((0.18, 0.22), ((0.16, 0.18), (0.22, 0.25))),
    "box_kg": Axis((0.5, 2.0), ((2.0, 3.0),)),
    "box_friction": Axis((0.7, 1.0), ((0.5, 0.7),)),
    "box_y_m": Axis((-0.06, 0.06), ((-0.10, -0.06), (0.06, 0.10))),
    "box_yaw_rad": Axis((-0.12, 0.12), ((-0.25, -0.12), (0.12, 0.25))),
    "box_hue": Axis((0.02, 0.60), ((0.60, 1.0),)),
    **SIGHT_AXES,
}
PAPER = {"Squat & Grasp": "lift", "Rise & Turn": "release"}


class BoxLoading:
    """The task; see the module's first lines."""

    name = "box-loading"
    text = "squat down, grasp the box, stand up, turn left and put the box on the cart"
    subgoals = SUBGOALS
    paper = PAPER
    axes = AXES
    time_limit_s = 40.0  # the operator takes 26 at most

    def __init__(self) -> None:
        self._reader: StateReader | None = None
        self._table_m, self._goal_m = 0.0, np.zeros(3)

    def add_scene(self, spec: mujoco.MjSpec) -> None:
        """Add the room, the table with the box, the cart with its brakes on, and things that only stand about."""
        add_room(spec)
        allow_edits(spec)
        for i, (rgb1, rgb2) in enumerate((((1, 1, 1), (0.85, 0.85, 0.85)), ((1, 1, 1), (0.6, 0.6, 0.6)))):
            add_material(spec, f"box{i}", mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1, rgb2, 1)
        kind = mujoco.mjtGeom
        still = {"contype": 1, "conaffinity": 2, "friction": [0.8, 0.005, 0.0001]}
        box, cylinder = kind.mjGEOM_BOX, kind.mjGEOM_CYLINDER
        add_stand(spec, "table")
        cart = add_stand(spec, "cart")
        for i in range(4):
            cart.add_geom(name=f"cart_wheel{i}", type=cylinder, size=[0.06, 0.02, 0], rgba=[0.1, 0.1, 0.1, 1],
                          pos=[0, 0, 0.06], quat=[0.70710678, 0.70710678, 0, 0], contype=0, conaffinity=0)  # fmt: skip
        add_object(spec, "box", "box0")
        for i, (shape, size) in enumerate(((box, [0.05, 0.04, 0.06]), (cylinder, [0.035, 0.07, 0]), (box, [0.2] * 3))):
            spec.worldbody.add_geom(name=f"thing{i}", type=shape, size=size, pos=[3, 2, 1], **still)

    def start(self, plant: Plant, rng: np.random.Generator, unseen: tuple[str, ...] = (), **fixed: float) -> None:
        """Draw one episode's sizes, places and looks, and reset the plant to them."""
        model = plant.model
        v = draw(self.axes, rng, unseen, fixed)
        randomise_room(model, rng)
        set_sight(plant, v)
        half = np.array([v["box_length_m"], v["box_width_m"], v["box_height_m"]]) / 2
        self._table_m = v["table_m"]
        self._goal_m = np.array([CART_X_M, v["cart_away_m"] + half[0] + GOAL_INSIDE_M, v["cart_m"]])
        set_stand(model, "table", TABLE_HALF_M, v["table_m"], (TABLE_HALF_M[0], 0.0), 0.0)
        set_stand(model, "cart", CART_HALF_M, v["cart_m"], (CART_X_M, v["cart_away_m"] + CART_HALF_M[0]), np.pi / 2)
        for i, (x, y) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
            wheel = model.geom(f"cart_wheel{i}")
            wheel.pos[:] = [x * (CART_HALF_M[0] - 0.07), y * (CART_HALF_M[1] - 0.04), 0.06]
        set_object(model, "box", half, v["box_kg"], v["box_friction"], half[2])
        self._dress(model, rng, v["box_hue"])
        mujoco.mj_setConst(model, plant.data)
        plant.reset(-v["distance_m"], v["lateral_m"], v["yaw_rad"])
        back_m = half[0] * np.cos(v["box_yaw_rad"]) + half[1] * abs(np.sin(v["box_yaw_rad"]))
        place_free(plant, "box", (back_m - OVERHANG_M, v["box_y_m"], v["table_m"] + half[2]), v["box_yaw_rad"])
        mujoco.mj_forward(model, plant.data)
        self._clear_cart(plant)

    def _clear_cart(self, plant: Plant) -> None:
        """Move the cart, and the goal with it, away from a robot that was drawn into it."""
        model, data = plant.model, plant.data
        cart = model.body("cart")
        while any(cart.id in model.geom_bodyid[contact.geom] for contact in data.contact):
            cart.pos[1] += FARTHER_M
            self._goal_m[1] += FARTHER_M
            mujoco.mj_forward(model, data)

    def _dress(self, model: mujoco.MjModel, rng: np.random.Generator, box_hue: float) -> None:
        """Draw colours and what stands about: two things on the table's far end, one beside the wall."""
        look = model.material(f"box{rng.integers(2)}").id
        colour = hsv_to_rgb(box_hue, rng.uniform(0.35, 0.8), rng.uniform(0.55, 0.95))
        for name, shade in (("box", 1.0), ("box_ledge0", 0.7), ("box_ledge1", 0.7)):
            model.geom(name).matid, model.geom(name).rgba[:3] = look, shade * colour
        for body, hue in (("table", rng.uniform(0.05, 0.12)), ("cart", rng.uniform(0.5, 0.75))):
            paint_stand(model, body, hsv_to_rgb(hue, rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9)))
        for i, sign in enumerate(rng.permutation([-1, 1])):
            thing = model.geom(f"thing{i}")
            top = self._table_m + thing.size[2 if i == 0 else 1]
            thing.pos[:] = [TABLE_HALF_M[0] * 2 - 0.06, sign * rng.uniform(0.26, 0.30), top]
        model.geom("thing2").pos[:] = [rng.uniform(1.2, 3.0), rng.uniform(-2.0, 2.0), 0.2]
        for i in range(3):
            model.geom(f"thing{i}").rgba[:3] = hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))

    def state(self, plant: Plant) -> CarryState:
        """Return the privileged state of this instant."""
        if self._reader is None:
            self._reader = StateReader(plant, "box")
        return self._reader.read(plant, self._table_m, self._goal_m, np.pi / 2, self._goal_m[2])

    def rules(self) -> BoxRules:
        """Return a fresh judge."""
        return BoxRules(self.time_limit_s)


class BoxRules(CarryRules):
    """`CarryRules`, and: the box is placed when it stands on the cart's deck.

    It stands there when its lowest corner is within 1 cm of the deck's height, its centre is above the deck and at
    least 5 cm inside its edges, and it leans less than 10 degrees.
    """

    def placed(self, state: CarryState) -> bool:
        """Return whether the box stands on the deck."""
        near_edge_m = state.goal_m[1] - state.object_half_m[0] - GOAL_INSIDE_M
        across, along = state.object_m[0] - CART_X_M, state.object_m[1] - near_edge_m - CART_HALF_M[0]
        inside = abs(across) < CART_HALF_M[1] - INSIDE_M and abs(along) < CART_HALF_M[0] - INSIDE_M
        level = abs(state.lowest_m - state.goal_m[2]) < 0.01 and state.lean_rad < np.radians(10.0)
        return bool(inside and level)
