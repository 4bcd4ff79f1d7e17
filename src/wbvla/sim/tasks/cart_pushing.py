"""Cart pushing: walk up to a loaded cart, put both palms on its handle, push it to the line, let go, hands down.

In: plant, random generator. Out: scene, start pose, `CartState`, verdicts.
The cart rolls on planar joints (x, y, yaw) whose friction loss is its rolling resistance; only contact moves it. Arms
that keep one pose cannot do the task: the hands are on the handle first, and down beside the body at last.
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
from wbvla.sim.tasks.carrying import FACING_RAD, SIGHT_AXES, START_AXES, set_sight
from wbvla.sim.tasks.furniture import allow_edits, set_box, set_mass

HANDLE_HALF_M = (0.012, 0.30, 0.10)  # panel: 0.6 m wide, 0.2 m tall
DECK_AHEAD_M, DECK_TOP_M = 0.5, 0.27  # deck's middle ahead of the panel, its surface above the floor
LOAD_HALF_M = (0.28, 0.22)
FRAME_KG = 35.0  # all but the load
# What stands about, so far beside the cart's way that nothing meets it: a box, a bin, a ball.
THINGS = (
    (mujoco.mjtGeom.mjGEOM_BOX, [0.20, 0.25, 0.20]),
    (mujoco.mjtGeom.mjGEOM_CYLINDER, [0.15, 0.30, 0.0]),
    (mujoco.mjtGeom.mjGEOM_SPHERE, [0.20, 0.0, 0.0]),
)
ASIDE_M = (1.3, 2.6)
YAW_ARM_M = 0.19  # rolling resistance to turning on the spot, as a lever of the one to rolling

AXES = {
    **START_AXES,  # pelvis behind the handle
    "handle_m": Axis((0.86, 0.94), ((0.82, 0.86), (0.94, 0.98))),  # height of the panel's middle
    "cart_kg": Axis((50.0, 65.0), ((65.0, 80.0),)),
    "rolling_N": Axis((10.0, 16.0), ((6.0, 10.0), (16.0, 22.0))),  # 0.016 to 0.03 of the weight: casters
    "load_height_m": Axis((0.20, 0.32), ((0.12, 0.20), (0.32, 0.40))),
    "load_hue": Axis((0.05, 0.60), ((0.60, 1.05),)),
    **SIGHT_AXES,
}
SUBGOALS = ("approach", "grasp", "push", "release")
PAPER = {"Grab Handle": "grasp", "Push Ahead": "release"}

NEAR_M = 0.80  # approach: pelvis to the handle's middle on the floor plane
GRASP_GAP_M, GRASP_HOLD_S = 0.02, 0.3
PUSH_M, PUSH_LATERAL_M, PUSH_GAP_M, PUSH_SHARE = 2.0, 0.8, 0.05, 0.7
FREE_GAP_M, LOWERED_M, REST_M_S, RELEASE_HOLD_S = 0.03, 0.15, 0.02, 0.5
LINE_M = 2.2  # how far to push until the deck's far edge is at the line on the floor


@dataclass(frozen=True)
class CartState:
    """Privileged state; the world's x is the cart's first heading, the origin its handle's first place.

    Attributes:
        t_s: time since reset.
        pelvis_m: position (3,). yaw_rad, tilt_rad: its heading and lean.
        torso_m: position (3,). torso_rotation: R_world_torso (3, 3).
        cart_m: handle centre (2,) on the floor plane. cart_yaw_rad: the cart's heading. cart_m_s: its speed.
        handle_m: height of the handle panel's middle.
        palm_m: centres of the left and right palm (2, 3).
        palm_gap_m: distance of the left and right palm to the handle panel (2,), 0 in contact.
    """

    t_s: float
    pelvis_m: np.ndarray
    yaw_rad: float
    tilt_rad: float
    torso_m: np.ndarray
    torso_rotation: np.ndarray
    cart_m: np.ndarray
    cart_yaw_rad: float
    cart_m_s: float
    handle_m: float
    palm_m: np.ndarray
    palm_gap_m: np.ndarray


class CartPushing:
    """The task; see the module's first lines."""

    name = "cart-pushing"
    text = "walk to the cart, grab the handle, push the cart forward to the line and let go"
    subgoals = SUBGOALS
    paper = PAPER
    axes = AXES
    time_limit_s = 25.0  # the operator takes 14 at most

    def __init__(self) -> None:
        self._ids: tuple[int, int, int, int] | None = None

    def add_scene(self, spec: mujoco.MjSpec) -> None:
        """Add the room, the line on the floor and the cart."""
        add_room(spec)
        allow_edits(spec)
        box = mujoco.mjtGeom.mjGEOM_BOX
        far_edge_m = LINE_M + DECK_AHEAD_M + 0.40
        spec.worldbody.add_geom(name="line", type=box, size=[0.15, 2.0, 0.001], pos=[far_edge_m + 0.15, 0, 0.0008],
                                contype=0, conaffinity=0)  # fmt: skip
        for i, (kind, size) in enumerate(THINGS):
            spec.worldbody.add_geom(name=f"thing{i}", type=kind, size=size, contype=0, conaffinity=0)
        cart = spec.worldbody.add_body(name="cart")
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        cart.add_joint(name="cart_x", type=slide, axis=[1, 0, 0], frictionloss=1.0)
        cart.add_joint(name="cart_y", type=slide, axis=[0, 1, 0], frictionloss=1.0)
        cart.add_joint(name="cart_yaw", type=hinge, axis=[0, 0, 1], pos=[DECK_AHEAD_M, 0, 0], frictionloss=1.0)
        solid = {"contype": 1, "conaffinity": 3, "condim": 3, "friction": [0.8, 0.005, 0.0001]}

        def part(body, name, half, pos, mass):
            body.add_geom(name=name, type=box, size=half, pos=pos, mass=mass, **solid)

        part(cart, "cart_handle", HANDLE_HALF_M, [0, 0, 0.9], 2.0)
        part(cart, "cart_deck", [0.40, 0.28, 0.03], [DECK_AHEAD_M, 0, DECK_TOP_M - 0.03], 30.0)
        for i, y in enumerate((0.27, -0.27)):
            part(cart, f"cart_post{i}", [0.015, 0.015, 0.31], [0.115, y, 0.58], 1.0)
            part(cart, f"cart_arm{i}", [0.05, 0.012, 0.02], [0.06, y, 0.88], 0.5)
        for i, (x, y) in enumerate(((0.16, 0.22), (0.16, -0.22), (0.84, 0.22), (0.84, -0.22))):
            cart.add_geom(name=f"cart_wheel{i}", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.09, 0.025, 0], mass=0,
                          pos=[x, y, 0.09], quat=[0.70710678, 0.70710678, 0, 0], rgba=[0.1, 0.1, 0.1, 1],
                          contype=0, conaffinity=0)  # fmt: skip
        load = cart.add_body(name="cart_load", pos=[DECK_AHEAD_M + 0.08, 0, DECK_TOP_M])
        part(load, "cart_load", [*LOAD_HALF_M, 0.14], [0, 0, 0.14], 15.0)

    def start(self, plant: Plant, rng: np.random.Generator, unseen: tuple[str, ...] = (), **fixed: float) -> None:
        """Draw the robot's place behind the handle, the cart's size, mass and resistance, and how all looks."""
        model = plant.model
        v = draw(self.axes, rng, unseen, fixed)
        randomise_room(model, rng)
        set_sight(plant, v)
        self._set_cart(model, v)
        frame = hsv_to_rgb(rng.uniform(0.5, 1.02), rng.uniform(0.8, 1.0), rng.uniform(0.6, 0.95))
        for part in ("deck", "post0", "post1", "arm0", "arm1"):
            model.geom(f"cart_{part}").rgba[:3] = frame
        model.geom("cart_handle").rgba[:3] = hsv_to_rgb(rng.uniform(0.03, 0.09), 1.0, rng.uniform(0.85, 1.0))
        model.geom("cart_load").rgba[:3] = hsv_to_rgb(v["load_hue"], rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9))
        model.geom("line").rgba[:3] = hsv_to_rgb(rng.uniform(0.95, 1.02), rng.uniform(0.8, 1.0), rng.uniform(0.7, 1.0))
        for i, (_, size) in enumerate(THINGS):
            thing = model.geom(f"thing{i}")
            thing.pos[:] = [rng.uniform(0.5, 4.5), rng.choice([-1, 1]) * rng.uniform(*ASIDE_M), size[2 - i]]
            thing.rgba[:3] = hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))
        mujoco.mj_setConst(model, plant.data)
        plant.reset(-v["distance_m"], v["lateral_m"], v["yaw_rad"])

    def _set_cart(self, model: mujoco.MjModel, v: dict[str, float]) -> None:
        """Give the cart its handle's height, its load's height and mass, and its rolling resistance."""
        top, load = v["handle_m"] - 0.01, v["load_height_m"] / 2
        set_box(model, "cart_handle", HANDLE_HALF_M, (0.0, 0.0, v["handle_m"]))
        for i, y in enumerate((0.27, -0.27)):
            set_box(model, f"cart_post{i}", (0.015, 0.015, (top - DECK_TOP_M) / 2), (0.115, y, (top + DECK_TOP_M) / 2))
            set_box(model, f"cart_arm{i}", (0.05, 0.012, 0.02), (0.06, y, top - 0.01))
        set_box(model, "cart_load", (*LOAD_HALF_M, load), (0.0, 0.0, load))
        body = model.body("cart_load")
        body.ipos[:] = [0.0, 0.0, load]
        set_mass(model, "cart_load", v["cart_kg"] - FRAME_KG, (*LOAD_HALF_M, load))
        for axis, lever in (("x", 1.0), ("y", 1.0), ("yaw", YAW_ARM_M)):
            model.dof_frictionloss[model.joint(f"cart_{axis}").dofadr[0]] = lever * v["rolling_N"]

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
            torso_m=data.body("torso_link").xpos.copy(),
            torso_rotation=data.body("torso_link").xmat.reshape(3, 3).copy(),
            cart_m=data.xpos[cart, :2].copy(),
            cart_yaw_rad=float(data.joint("cart_yaw").qpos[0]),
            cart_m_s=float(np.hypot(data.joint("cart_x").qvel[0], data.joint("cart_y").qvel[0])),
            handle_m=float(data.geom_xpos[handle, 2]),
            palm_m=data.geom_xpos[[left, right]],
            palm_gap_m=np.array(gaps),
        )

    def rules(self) -> CartRules:
        """Return a fresh judge."""
        return CartRules(self.time_limit_s)


class CartRules:
    """The subgoals in their order.

    - approach: the pelvis is within 0.8 m of the handle's middle on the floor plane and turned to it within 0.5 rad.
    - grasp: both palms are within 2 cm of the handle panel for 0.3 s without a break.
    - push: after grasp, the handle is at least 2 m ahead of its first place along the cart's first heading and less
      than 0.8 m beside that line, and over at least 70 % of these 2 m both palms were within 5 cm of it (a cart that
      rolls easily runs a little ahead of the hands with every stride).
    - release: still there, the cart stands (slower than 2 cm/s) and both palms are at least 3 cm off the handle and,
      as the trunk sees them, 15 cm lower than they were at most on it, for 0.5 s. This is success. Arms that
      never move do not get there, whatever the cart and the trunk do.
    - failure: a fall (pelvis below 0.35 m or lean above 60 degrees), or the time limit.
    """

    def __init__(self, time_limit_s: float) -> None:
        self._time_limit_s = time_limit_s
        self._reached = dict.fromkeys(SUBGOALS, False)
        self._held_s = self._free_s = self._ahead_m = self._pushed_m = 0.0
        self._held_m = np.full(2, -np.inf)  # the palms' greatest height above the trunk's origin while on the handle
        self._fallen = False

    def judge(self, state: CartState) -> Outcome:
        """Return the verdict after this state; call once per 50 Hz tick."""
        reached = self._reached
        self._fallen |= bool(has_fallen(state.pelvis_m[2], state.tilt_rad))
        to_handle = state.cart_m - state.pelvis_m[:2]
        off = np.arctan2(to_handle[1], to_handle[0]) - state.yaw_rad
        facing = abs((off + np.pi) % (2 * np.pi) - np.pi) < FACING_RAD
        reached["approach"] |= bool(np.hypot(*to_handle) < NEAR_M and facing)
        on_handle = bool(np.all(state.palm_gap_m <= GRASP_GAP_M))
        self._held_s = self._held_s + TICK_S if on_handle else 0.0
        reached["grasp"] |= reached["approach"] and self._held_s >= GRASP_HOLD_S - 1e-9
        palms_m = (state.palm_m - state.torso_m) @ state.torso_rotation[:, 2]
        pushing = bool(np.all(state.palm_gap_m <= PUSH_GAP_M))
        if pushing:
            self._held_m = np.maximum(self._held_m, palms_m)
        ahead_m, beside_m = state.cart_m
        if ahead_m > self._ahead_m:
            self._pushed_m += pushing * float(ahead_m - self._ahead_m)
            self._ahead_m = ahead_m
        arrived = bool(ahead_m >= PUSH_M and abs(beside_m) < PUSH_LATERAL_M and not self._fallen)
        reached["push"] |= reached["grasp"] and arrived and bool(self._pushed_m >= PUSH_SHARE * PUSH_M)
        lowered = np.all(palms_m <= self._held_m - LOWERED_M)
        free = bool(lowered and np.all(state.palm_gap_m >= FREE_GAP_M) and state.cart_m_s < REST_M_S)
        self._free_s = self._free_s + TICK_S if free and arrived else 0.0
        reached["release"] |= reached["push"] and self._free_s >= RELEASE_HOLD_S - 1e-9
        success = reached["release"] and not self._fallen
        late = state.t_s >= self._time_limit_s - 1e-9
        failure = "" if success else "fall" if self._fallen else "timeout" if late else ""
        return Outcome(dict(reached), success, self._fallen, success or failure != "", failure)
