"""Cart pushing: walk up to a 50 kg cart, put both palms on its handle, push it at least 2 m ahead.

In: plant, random generator. Out: scene, start pose, `CartState`, verdicts.
The cart rolls on planar joints (x, y, yaw) whose friction loss is its rolling resistance; only contact moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from wbvla.sim.plant import TICK_S, Plant
from wbvla.sim.tasks.base import (
    Axis,
    Outcome,
    add_room,
    box_gap,
    draw,
    has_fallen,
    hsv_to_rgb,
    palm_geoms,
    randomise_room,
)

CART_MASS_KG = 50.0
# Rolling coefficient 0.016 of the weight, as good casters on a hard floor, along each axis; drag adds to it in motion.
ROLLING_N, ROLLING_YAW_NM = 8.0, 1.5
DRAG_NS_M, DRAG_YAW_NMS = 3.0, 3.0
HANDLE_HEIGHT_M, HANDLE_HALF_M = 0.90, (0.012, 0.30, 0.10)  # panel: 0.6 m wide, 0.2 m tall
DECK_AHEAD_M = 0.5  # deck centre ahead of the panel

AXES = {
    "distance_m": Axis((1.0, 1.5), ((0.85, 1.0), (1.5, 1.75))),  # pelvis behind the handle
    "lateral_m": Axis((-0.5, 0.5), ((-0.75, -0.5), (0.5, 0.75))),
    "yaw_rad": Axis((-np.pi / 4, np.pi / 4), ((-np.pi / 3, -np.pi / 4), (np.pi / 4, np.pi / 3))),
}
PAPER = {"Grab Handle": "grab", "Push Ahead": "push"}

GRAB_GAP_M, GRAB_HOLD_S = 0.02, 0.3
PUSH_M, PUSH_LATERAL_M = 2.0, 0.8


@dataclass(frozen=True)
class CartState:
    """Privileged state; the world's x is the cart's first heading, the origin its handle's first place.

    Attributes:
        t_s: time since reset.
        pelvis_m: position (3,). yaw_rad, tilt_rad: its heading and lean.
        cart_m: handle centre (2,) on the floor plane. cart_yaw_rad: the cart's heading.
        palm_m: centres of the left and right palm (2, 3).
        palm_gap_m: distance of the left and right palm to the handle panel (2,), 0 in contact.
    """

    t_s: float
    pelvis_m: np.ndarray
    yaw_rad: float
    tilt_rad: float
    cart_m: np.ndarray
    cart_yaw_rad: float
    palm_m: np.ndarray
    palm_gap_m: np.ndarray


class CartPushing:
    """The task; see the module's first lines."""

    name = "cart-pushing"
    text = "walk to the cart, grab the handle and push the cart forward"
    subgoals = ("grab", "push")
    paper = PAPER
    axes = AXES
    time_limit_s = 30.0

    def __init__(self) -> None:
        self._ids: tuple[int, int, int, int] | None = None

    def add_scene(self, spec: mujoco.MjSpec) -> None:
        """Add the room and the cart."""
        add_room(spec)
        box = mujoco.mjtGeom.mjGEOM_BOX
        cart = spec.worldbody.add_body(name="cart")
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        rolling = {"frictionloss": ROLLING_N, "damping": DRAG_NS_M}
        cart.add_joint(name="cart_x", type=slide, axis=[1, 0, 0], **rolling)
        cart.add_joint(name="cart_y", type=slide, axis=[0, 1, 0], **rolling)
        cart.add_joint(name="cart_yaw", type=hinge, axis=[0, 0, 1], pos=[DECK_AHEAD_M, 0, 0],
                       frictionloss=ROLLING_YAW_NM, damping=DRAG_YAW_NMS)  # fmt: skip
        solid = {"contype": 1, "conaffinity": 3, "condim": 3, "friction": [0.8, 0.005, 0.0001]}

        def part(name, half, pos, mass):
            cart.add_geom(name=name, type=box, size=half, pos=pos, mass=mass, **solid)

        part("cart_handle", HANDLE_HALF_M, [0, 0, HANDLE_HEIGHT_M], 2.0)
        part("cart_deck", [0.40, 0.28, 0.03], [DECK_AHEAD_M, 0, 0.24], 30.0)
        part("cart_load", [0.28, 0.22, 0.14], [DECK_AHEAD_M + 0.08, 0, 0.41], 15.0)
        for i, y in enumerate((0.27, -0.27)):
            part(f"cart_post{i}", [0.015, 0.015, 0.31], [0.115, y, 0.58], 1.0)
            part(f"cart_arm{i}", [0.05, 0.012, 0.02], [0.06, y, 0.88], 0.5)
        for i, (x, y) in enumerate(((0.16, 0.22), (0.16, -0.22), (0.84, 0.22), (0.84, -0.22))):
            cart.add_geom(name=f"cart_wheel{i}", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.09, 0.025, 0], mass=0,
                          pos=[x, y, 0.09], quat=[0.70710678, 0.70710678, 0, 0], rgba=[0.1, 0.1, 0.1, 1],
                          contype=0, conaffinity=0)  # fmt: skip

    def start(self, plant: Plant, rng: np.random.Generator, unseen: tuple[str, ...] = (), **fixed: float) -> None:
        """Draw the robot's start pose behind the handle and the looks of cart and room, and reset the plant."""
        model = plant.model
        v = draw(self.axes, rng, unseen, fixed)
        randomise_room(model, rng)
        frame = hsv_to_rgb(rng.uniform(0.5, 1.02), rng.uniform(0.8, 1.0), rng.uniform(0.6, 0.95))
        handle = hsv_to_rgb(rng.uniform(0.03, 0.09), 1.0, rng.uniform(0.85, 1.0))
        load = hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9))
        for geom in range(model.ngeom):
            name = model.geom(geom).name
            if name in ("cart_deck", "cart_post0", "cart_post1", "cart_arm0", "cart_arm1"):
                model.geom_rgba[geom, :3] = frame
        model.geom("cart_handle").rgba[:3] = handle
        model.geom("cart_load").rgba[:3] = load
        plant.reset(-v["distance_m"], v["lateral_m"], v["yaw_rad"])

    def state(self, plant: Plant) -> CartState:
        """Return the privileged state of this instant."""
        model, data = plant.model, plant.data
        if self._ids is None:
            self._ids = (*palm_geoms(model), model.geom("cart_handle").id, model.body("cart").id)
        left, right, handle, cart = self._ids
        pelvis, yaw, tilt = plant.pelvis_pose()
        gaps = [box_gap(model, data, palm, handle) for palm in (left, right)]
        return CartState(
            t_s=float(data.time),
            pelvis_m=pelvis,
            yaw_rad=yaw,
            tilt_rad=tilt,
            cart_m=data.xpos[cart, :2].copy(),
            cart_yaw_rad=float(data.joint("cart_yaw").qpos[0]),
            palm_m=data.geom_xpos[[left, right]],
            palm_gap_m=np.array(gaps),
        )

    def rules(self) -> CartRules:
        """Return a fresh judge."""
        return CartRules(self.time_limit_s)


class CartRules:
    """Success: both palms were on the handle for 0.3 s, then the cart is 2 m ahead, and the robot stands.

    - grab: both palms within 2 cm of the handle panel for 0.3 s without a break.
    - push: after grab, the handle is at least 2 m ahead of its first place along the cart's first heading and less
      than 0.8 m beside that line, while the robot has not fallen.
    - failure: a fall (pelvis below 0.45 m or lean above 60 degrees), or the time limit.
    """

    def __init__(self, time_limit_s: float) -> None:
        self._time_limit_s = time_limit_s
        self._held_s = 0.0
        self._grabbed = self._pushed = self._fallen = False

    def judge(self, state: CartState) -> Outcome:
        """Return the verdict after this state; call once per 50 Hz tick."""
        self._fallen |= bool(has_fallen(state.pelvis_m[2], state.tilt_rad))
        on_handle = bool(np.all(state.palm_gap_m <= GRAB_GAP_M))
        self._held_s = self._held_s + TICK_S if on_handle else 0.0
        self._grabbed |= self._held_s >= GRAB_HOLD_S - 1e-9
        ahead_m, beside_m = state.cart_m
        arrived = ahead_m >= PUSH_M and abs(beside_m) < PUSH_LATERAL_M
        self._pushed |= bool(self._grabbed and arrived and not self._fallen)
        success = self._grabbed and self._pushed and not self._fallen
        late = state.t_s >= self._time_limit_s - 1e-9
        failure = "" if success else "fall" if self._fallen else "timeout" if late else ""
        subgoals = {"grab": bool(self._grabbed), "push": bool(self._pushed)}
        return Outcome(subgoals, success, self._fallen, success or failure != "", failure)
