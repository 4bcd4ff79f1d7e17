"""What a task is, and what every task shares: falling, outcomes, the room's floor, walls and light.

In: MjSpec, random generators. Out: scene elements, `Outcome`.
World geoms carry contact bit 1; static ones meet the robot (2), movable objects meet both (3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np

FALL_HEIGHT_M = 0.35  # the legs may be told to squat to 0.45 m
FALL_TILT_RAD = np.radians(60.0)

N_FLOORS, N_WALLS = 4, 3
LANE_HALF_WIDTH_M = 0.85

_GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 3), -1).reshape(-1, 3)


@dataclass(frozen=True)
class Outcome:
    """The verdict so far: subgoals reached, success, fallen, done, why it failed ("", "fall", "drop" or "timeout")."""

    subgoals: dict[str, bool]
    success: bool
    fallen: bool
    done: bool
    failure: str


@dataclass(frozen=True)
class Axis:
    """One way in which episodes differ: the interval (low, high) of training, and intervals never trained on."""

    trained: tuple[float, float]
    unseen: tuple[tuple[float, float], ...]

    def at(self, share: float, unseen: bool = False) -> float:
        """Return the value at a share in [0, 1] of the trained interval, or of the unseen ones laid end to end."""
        intervals = self.unseen if unseen else (self.trained,)
        place = share * sum(high - low for low, high in intervals)
        for low, high in intervals[:-1]:
            if place <= high - low:
                return low + place
            place -= high - low
        return intervals[-1][0] + place


def draw(axes: dict[str, Axis], rng: np.random.Generator, unseen: tuple[str, ...], fixed: dict[str, float]):
    """Draw a value for every axis: from its unseen range if named there, and as given if fixed.

    Each axis takes one random number, whatever its range, so the rest of an episode does not depend on the choice.
    Raises ValueError on an unknown axis.
    """
    check_axes([*unseen, *fixed], axes)
    values = {name: axis.at(rng.random(), name in unseen) for name, axis in axes.items()}
    return values | fixed


def check_axes(names: Iterable[str], axes: dict[str, Axis]) -> None:
    """Raise ValueError unless all of these are axes of a task."""
    if isinstance(names, str):
        raise ValueError(f"axes: got the text {names!r}, expected several names, as in ({names!r},)")
    if unknown := sorted(set(names) - set(axes)):
        raise ValueError(f"axes: got {', '.join(unknown)}, expected some of {', '.join(axes)}")


class Rules(Protocol):
    """The judge of one episode; remembers what must hold for a while."""

    def judge(self, state: Any) -> Outcome:
        """Return the verdict after this state; call once per 50 Hz tick."""


class Task(Protocol):
    """A scene with a start distribution, a privileged state and rules."""

    name: str
    text: str
    subgoals: tuple[str, ...]
    paper: dict[str, str]  # the paper's two subgoals, and which of ours completes each
    axes: dict[str, Axis]
    time_limit_s: float

    def add_scene(self, spec: mujoco.MjSpec) -> None:
        """Add objects, room and cameras to the robot's spec."""

    def start(self, plant: Any, rng: np.random.Generator, unseen: tuple[str, ...] = (), **fixed: float) -> None:
        """Draw looks and start poses of one episode and reset the plant to them.

        Args:
            unseen: axes to draw from their unseen ranges.
            fixed: values of axes that are not drawn.
        """

    def state(self, plant: Any) -> Any:
        """Return the privileged state that the operator and the rules see."""

    def rules(self) -> Rules:
        """Return a fresh judge for one episode."""


def has_fallen(pelvis_height_m: float, tilt_rad: float) -> bool:
    """A humanoid has fallen when its pelvis is below 0.35 m or it leans more than 60 degrees."""
    return pelvis_height_m < FALL_HEIGHT_M or tilt_rad > FALL_TILT_RAD


def add_room(spec: mujoco.MjSpec) -> None:
    """Add a textured floor with a marked lane along +x, four walls, lights and the third-person camera "side"."""
    for i in range(N_FLOORS):
        checker, grey = mujoco.mjtBuiltin.mjBUILTIN_CHECKER, 0.45 + 0.07 * i
        add_material(spec, f"floor{i}", checker, (grey + 0.05,) * 3, (grey - 0.03,) * 3, 16 + 8 * i)
    for i in range(N_WALLS):
        builtin = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT if i else mujoco.mjtBuiltin.mjBUILTIN_FLAT
        add_material(spec, f"wall{i}", builtin, (0.9, 0.9, 0.9), (0.7, 0.7, 0.75), 1)
    world = spec.worldbody
    kinds = mujoco.mjtGeom
    world.add_geom(name="floor", type=kinds.mjGEOM_PLANE, size=[12, 12, 0.1], material="floor0",
                   contype=1, conaffinity=2, friction=[0.8, 0.005, 0.0001])  # fmt: skip
    for i, (x, y) in enumerate(((7, 0), (-4, 0), (1.5, 4), (1.5, -4))):
        size = [0.05, 4, 1.4] if y == 0 else [5.5, 0.05, 1.4]
        world.add_geom(name=f"wall_{i}", type=kinds.mjGEOM_BOX, size=size, pos=[x, y, 1.4], material="wall0",
                       contype=1, conaffinity=2)  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):  # floor paint: seen, never felt
        world.add_geom(name=f"lane_{side}", type=kinds.mjGEOM_BOX, size=[5.4, 0.04, 0.001], contype=0, conaffinity=0,
                       pos=[1.5, sign * LANE_HALF_WIDTH_M, 0.0005], rgba=[0.9, 0.8, 0.1, 1])  # fmt: skip
    world.add_light(name="lamp", pos=[0, 0, 4], castshadow=False, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0, 0, 0]
    world.add_camera(name="side", pos=[0.6, -3.4, 1.9], fovy=48, mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
                     targetbody="pelvis")  # fmt: skip


def randomise_room(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """Draw floor and wall materials and tints, lane colour and the lamp's direction and strength."""
    model.geom("floor").matid = model.material(f"floor{rng.integers(N_FLOORS)}").id
    wall = model.material(f"wall{rng.integers(N_WALLS)}").id
    for i in range(4):
        model.geom(f"wall_{i}").matid = wall
    for kind, n in (("floor", N_FLOORS), ("wall", N_WALLS)):
        tint = rng.uniform(0.75, 1.0, 3)
        for i in range(n):
            model.material(f"{kind}{i}").rgba[:3] = tint
    lane = hsv_to_rgb(rng.uniform(0.12, 0.17), rng.uniform(0.7, 1.0), rng.uniform(0.75, 1.0))
    for side in ("left", "right"):
        model.geom(f"lane_{side}").rgba[:3] = lane
    direction = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), -1.0])
    model.light("lamp").dir[:] = direction / np.linalg.norm(direction)
    model.light("lamp").diffuse[:] = rng.uniform(0.4, 0.75)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert hue, saturation and value in [0, 1] to rgb (3,)."""
    import colorsys

    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def add_material(spec, name, builtin, rgb1, rgb2, repeat) -> None:
    """Add a material with a builtin two-colour texture, repeated that often."""
    spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=builtin, rgb1=rgb1, rgb2=rgb2,
                     width=64, height=64)  # fmt: skip
    material = spec.add_material(name=name, texrepeat=[repeat, repeat], specular=0, shininess=0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def box_gap(model: mujoco.MjModel, data: mujoco.MjData, inner: int, outer: int) -> float:
    """Return the distance in m from a grid of 125 points of box geom `inner` to the solid box geom `outer`, 0 inside.

    mj_geomDistance answers 0 for some box pairs that are centimetres apart.
    """
    world = data.geom_xpos[inner] + (_GRID * model.geom_size[inner]) @ data.geom_xmat[inner].reshape(3, 3).T
    local = (world - data.geom_xpos[outer]) @ data.geom_xmat[outer].reshape(3, 3)
    outside = np.maximum(np.abs(local) - model.geom_size[outer], 0.0)
    return float(np.sqrt((outside**2).sum(1)).min())


def palm_geoms(model: mujoco.MjModel) -> list[int]:
    """Return the ids of the left and the right palm pad."""
    names = {model.geom(i).name: i for i in range(model.ngeom)}
    return [next(i for n, i in names.items() if n.startswith(f"{s}_") and "_palm" in n) for s in ("left", "right")]
