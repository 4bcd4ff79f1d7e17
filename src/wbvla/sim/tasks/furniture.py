"""Tables, carts and the boxes that are carried: added once to a scene, resized from episode to episode.

In: MjSpec; then the compiled model with sizes, masses, places. Out: the scene's parts, changed in place.
An edit after compiling costs nothing; `allow_edits` says what must be off for it to be right.
"""

from __future__ import annotations

from itertools import product

import mujoco
import numpy as np

from wbvla.sim.plant import Plant

TOP_HALF_M, LEG_HALF_M = 0.01, 0.018  # half thickness of a stand's top and of its legs
STAND_PARTS = ("top", "leg0", "leg1", "leg2", "leg3")
STILL = {"contype": 1, "conaffinity": 2, "friction": [0.8, 0.005, 0.0001], "priority": 1, "solref": [0.01, 1.0]}
LEDGE_HALF_M = (0.0175, 0.0075)  # half of how far a ledge stands out, and of its thickness
EDGE_M = 0.01  # radius of an object's edges
# The twelve edges of a box: along which axis, and on which side of the other two.
EDGES = [(axis, np.insert(np.array(s, float), axis, 0.0)) for axis in range(3) for s in product((-1, 1), repeat=2)]


def allow_edits(spec: mujoco.MjSpec) -> None:
    """Prepare a scene for `set_box`: MuJoCo's mid-phase would go on with the bounding boxes of compile time."""
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE


def set_box(
    model: mujoco.MjModel, geom: str, half_m: tuple | np.ndarray, pos_m: tuple | np.ndarray | None = None
) -> None:
    """Give a box geom of the compiled model other half sizes (3,) and, if given, another place in its body."""
    g = model.geom(geom)
    g.size[:] = half_m
    model.geom_rbound[g.id] = np.linalg.norm(half_m)
    model.geom_aabb[g.id] = [0, 0, 0, *half_m]
    if pos_m is not None:
        g.pos[:] = pos_m
        model.geom_sameframe[g.id] = 0  # else MuJoCo goes on taking it for the body's own frame


def add_stand(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """Add a top on four thin legs: a table, a cart with its brakes on; see `set_stand`."""
    body = spec.worldbody.add_body(name=name)
    for part in STAND_PARTS:
        body.add_geom(name=f"{name}_{part}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1] * 3, **STILL)
    return body


def set_stand(model, body: str, half_m: tuple, height_m: float, place_m: tuple, yaw_rad: float) -> None:
    """Stand a top on four legs: the top's half sizes, its surface's height, its middle on the floor, its heading."""
    b = model.body(body)
    b.pos[:] = [*place_m, 0.0]
    b.quat[:] = [np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)]
    set_box(model, f"{body}_top", (*half_m, TOP_HALF_M), (0.0, 0.0, height_m - TOP_HALF_M))
    leg = height_m / 2 - TOP_HALF_M
    for i, (x, y) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        place = (x * (half_m[0] - LEG_HALF_M), y * (half_m[1] - LEG_HALF_M), leg)
        set_box(model, f"{body}_leg{i}", (LEG_HALF_M, LEG_HALF_M, leg), place)


def paint_stand(model, body: str, rgb: np.ndarray) -> None:
    """Colour a stand."""
    for part in STAND_PARTS:
        model.geom(f"{body}_{part}").rgba[:3] = rgb


def add_object(spec: mujoco.MjSpec, name: str, material: str) -> None:
    """Add a free box with a ledge along its left and its right side, under which two palms can lift it.

    Box and ledges meet the robot; twelve invisible rounded edges meet everything else: MuJoCo's test of box against
    box finds, once in some thousand seconds of a box at rest on a box, a contact half a metre deep. Friction is the
    object's own, whatever touches it.
    """
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    kind = mujoco.mjtGeom
    own = {"priority": 3, "friction": [0.8, 0.05, 0.001], "solref": [0.01, 1.0]}
    face = {"type": kind.mjGEOM_BOX, "contype": 1, "conaffinity": 2, "condim": 4, "material": material, **own}
    body.add_geom(name=name, size=[0.1] * 3, mass=1.0, **face)
    for i in range(2):
        body.add_geom(name=f"{name}_ledge{i}", size=[0.1] * 3, mass=0, **face)
    edge = {"type": kind.mjGEOM_CAPSULE, "contype": 0, "conaffinity": 1, "condim": 3, "group": 3, "mass": 0, **own}
    for i, (axis, _) in enumerate(EDGES):
        quat = ([0.70710678, 0, 0.70710678, 0], [0.70710678, 0.70710678, 0, 0], [1, 0, 0, 0])[axis]
        body.add_geom(name=f"{name}_edge{i}", size=[EDGE_M, 0.1, 0], quat=quat, **edge)


def set_object(model: mujoco.MjModel, name: str, half_m: np.ndarray, mass_kg: float, friction: float, top_m: float):
    """Give an object of `add_object` its half sizes (3,), mass and friction, its ledges' upper sides `top_m` above its
    centre. Call `mujoco.mj_setConst` afterwards."""
    set_box(model, name, half_m)
    set_mass(model, name, mass_kg, half_m)
    for i, side in enumerate((1, -1)):
        place = (0.0, side * (half_m[1] + LEDGE_HALF_M[0]), top_m - LEDGE_HALF_M[1])
        set_box(model, f"{name}_ledge{i}", (half_m[0], *LEDGE_HALF_M), place)
    inner = half_m - EDGE_M
    for i, (axis, signs) in enumerate(EDGES):
        edge = model.geom(f"{name}_edge{i}")
        edge.size[:2] = EDGE_M, inner[axis]
        edge.pos[:] = inner * signs
        model.geom_rbound[edge.id] = inner[axis] + EDGE_M
        model.geom_aabb[edge.id, 3:] = EDGE_M, EDGE_M, inner[axis] + EDGE_M
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == model.body(name).id:
            model.geom_friction[geom, 0] = friction


def set_mass(model: mujoco.MjModel, body: str, mass_kg: float, half_m: tuple | np.ndarray) -> None:
    """Give a body the mass and the inertia of a uniform solid box; call `mujoco.mj_setConst` after the last one."""
    x, y, z = np.asarray(half_m) ** 2
    b = model.body(body)
    b.mass[:] = mass_kg
    b.inertia[:] = mass_kg / 3 * np.array([y + z, x + z, x + y])


def place_free(plant: Plant, body: str, pos_m: tuple | np.ndarray, yaw_rad: float = 0.0) -> None:
    """Put a free body at a position (3,) and heading, at rest."""
    joint = plant.data.joint(body)
    joint.qpos[:] = [*pos_m, np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)]
    joint.qvel[:] = 0.0
