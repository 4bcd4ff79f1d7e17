"""The model behind the plant: our primitive robot or mjlab's G1 on a floor, with the sensors that the figures need.

In: robot, `Physics`, gains and limits. Out: a compiled model; and copies in which a `Body` differs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np

from wbvla.lmo.command import STEP_S
from wbvla.robots.base import Robot, Shape

FOOT_FRICTION = 0.8
PUSHED = "torso_link"


@dataclass(frozen=True)
class Physics:
    """How the world is simulated; written into every result.

    Attributes:
        model: "own" (the project's primitive robot) or "mjlab" (mjlab's G1 with its feet and capsules).
        step_s: physics step; the control step of 20 ms must be a multiple.
        iterations: solver iterations. ls_iterations: line search iterations.
        feet: "capsules" or "spheres", of the own model. collisions: "full" (links against links and floor) or "feet".
    """

    model: str = "own"
    step_s: float = 0.005
    iterations: int = 10
    ls_iterations: int = 20
    feet: str = "capsules"
    collisions: str = "full"

    def __post_init__(self) -> None:
        if self.model not in ("own", "mjlab"):
            raise ValueError(f"model: got {self.model!r}, expected 'own' or 'mjlab'")
        if self.feet not in ("capsules", "spheres"):
            raise ValueError(f"feet: got {self.feet!r}, expected 'capsules' or 'spheres'")
        if self.collisions not in ("full", "feet"):
            raise ValueError(f"collisions: got {self.collisions!r}, expected 'full' or 'feet'")
        if not 0.0005 <= self.step_s <= STEP_S or abs(self.substeps * self.step_s - STEP_S) > 1e-9:
            raise ValueError(f"physics step: got {1e3 * self.step_s:g} ms, expected a whole part of 20 ms, 0.5 or more")

    @property
    def substeps(self) -> int:
        """Physics steps in a control step."""
        return round(STEP_S / self.step_s)


@dataclass(frozen=True)
class Body:
    """What differs in one world's robot and floor. Masses in kg, lengths in m, the rest are factors.

    Attributes:
        friction: of the feet. torso_kg, torso_shift_m: added to the torso. hands_kg: held in each palm.
        link_mass: factor of every link's mass and inertia, (bodies,) or 1. kp, kd: factors of the gains, (J,) or 1.
    """

    friction: float = FOOT_FRICTION
    torso_kg: float = 0.0
    torso_shift_m: np.ndarray | float = 0.0
    hands_kg: tuple[float, float] = (0.0, 0.0)
    link_mass: np.ndarray | float = 1.0
    kp: np.ndarray | float = 1.0
    kd: np.ndarray | float = 1.0


NOMINAL = Body()


def build_model(robot: Robot, physics: Physics, kp, kd, effort) -> mujoco.MjModel:
    """Compile the nominal model. kp, kd, effort: PD gains and torque limits in joint order, (J,)."""
    spec = (_mjlab_spec if physics.model == "mjlab" else _own_spec)(robot, physics)
    return _finish(spec, robot, physics, kp, kd, effort)


def feet_geoms(model: mujoco.MjModel) -> list[int]:
    """Return the ids of the geoms that touch the ground."""
    return [g for g in range(model.ngeom) if "_foot" in model.geom(g).name]


def variant(robot: Robot, model: mujoco.MjModel, body: Body, scratch: mujoco.MjData) -> mujoco.MjModel:
    """Return a copy of the model in which the body differs from nominal."""
    m = copy.copy(model)
    m.geom_friction[feet_geoms(m), 0] = body.friction
    m.body_mass[1:] *= body.link_mass
    m.body_inertia[1:] *= np.reshape(body.link_mass, (-1, 1))
    torso = m.body(PUSHED).id
    m.body_mass[torso] += body.torso_kg
    m.body_ipos[torso] += body.torso_shift_m
    for palm, load in zip(robot.palms, body.hands_kg):
        if load:
            _hold(m, palm, load)
    m.actuator_gainprm[:, 0] *= body.kp
    m.actuator_biasprm[:, 1] *= body.kp
    m.actuator_biasprm[:, 2] *= body.kd
    mujoco.mj_setConst(m, scratch)
    return m


def _hold(m: mujoco.MjModel, palm: Shape, load_kg: float) -> None:
    """Add a point mass to a hand: mass, centre of mass, inertia (the same about all axes)."""
    wrist = m.body(palm.body).id
    mass, centre = m.body_mass[wrist], m.body_ipos[wrist].copy()
    arm = np.array([palm.pos[0], 0.0, palm.pos[2]]) - centre  # beside the pad, in the hand's middle plane
    m.body_mass[wrist] = mass + load_kg
    m.body_ipos[wrist] = centre + arm * load_kg / (mass + load_kg)
    m.body_inertia[wrist] += mass * load_kg / (mass + load_kg) * (arm @ arm)


def _own_spec(robot: Robot, physics: Physics) -> mujoco.MjSpec:
    return robot.build(feet=physics.feet, collisions=physics.collisions, timestep_s=physics.step_s)


def _mjlab_spec(robot: Robot, physics: Physics) -> mujoco.MjSpec:
    """Return mjlab's G1 under the project's names, without meshes. mjlab is not imported: that takes seconds."""
    package = find_spec("mjlab")
    if robot.name != "g1" or package is None:
        why = "there is only a G1" if package else "mjlab is not installed: pip install 'wbvla[mjlab]'"
        raise ValueError(f"model: got 'mjlab' for robot {robot.name!r}, but {why}")
    folder = Path(package.submodule_search_locations[0]) / "asset_zoo" / "robots" / "unitree_g1" / "xmls"
    spec = mujoco.MjSpec.from_file(str(folder / "g1.xml"))
    for geom in list(spec.geoms):
        foot = "_foot" in geom.name
        if not geom.name.endswith("_collision"):
            spec.delete(geom)
        elif physics.collisions == "full" or foot:
            geom.contype, geom.conaffinity = (2, 3) if physics.collisions == "full" else (2, 1)
            geom.condim, geom.priority = (3, 1) if foot else (1, 0)
        else:
            geom.contype = geom.conaffinity = 0
    for item in [*spec.meshes, *spec.sensors, *spec.sites]:
        spec.delete(item)
    for joint in spec.joints:
        if joint.name.endswith("_joint") and joint.name != "floating_base_joint":
            joint.name = joint.name.removesuffix("_joint")
            joint.armature = robot.motors[joint.name].armature
    for side in ("left", "right"):
        spec.body(f"{side}_ankle_roll_link").add_site(name=f"{side}_foot", pos=robot.foot_site)
    option = spec.option
    option.timestep, option.integrator = physics.step_s, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    for name in robot.joints:
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=1.0, kv=1.0)
        actuator.inheritrange, actuator.ctrllimited, actuator.forcelimited = 0, False, True
        actuator.forcerange = [-1.0, 1.0]  # gains and limits are set on the compiled model
    return spec


def _finish(spec: mujoco.MjSpec, robot: Robot, physics: Physics, kp, kd, effort) -> mujoco.MjModel:
    """Add floor, gains, friction and the sensors that the figures need, and compile."""
    floor = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(name="floor", type=floor, size=[0, 0, 0.05], contype=1, conaffinity=2)
    spec.option.iterations, spec.option.ls_iterations = physics.iterations, physics.ls_iterations
    for geom in spec.geoms:
        if "_foot" in geom.name:
            geom.friction[0] = FOOT_FRICTION
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    kind, obj = mujoco.mjtSensor, mujoco.mjtObj
    spec.add_sensor(name="com", type=kind.mjSENS_SUBTREECOM, objtype=obj.mjOBJ_BODY, objname="pelvis")
    low, high = (f(np.array(robot.foot_corners), axis=0) for f in (np.min, np.max))
    for side in ("left", "right"):
        spec.add_sensor(
            name=f"{side}_velocity", type=kind.mjSENS_FRAMELINVEL, objtype=obj.mjOBJ_SITE, objname=f"{side}_foot"
        )
        box = [*(high - low)[:2] / 2 + 0.05, 0.05]  # a touch sensor adds up the contacts inside its site
        spec.body(f"{side}_ankle_roll_link").add_site(
            name=f"{side}_touch", type=mujoco.mjtGeom.mjGEOM_BOX, size=box, pos=(low + high) / 2
        )
        spec.add_sensor(name=f"{side}_touch", type=kind.mjSENS_TOUCH, objtype=obj.mjOBJ_SITE, objname=f"{side}_touch")
    for joint in robot.joints:
        spec.add_sensor(name=joint, type=kind.mjSENS_ACTUATORFRC, objtype=obj.mjOBJ_ACTUATOR, objname=joint)
    model = spec.compile()
    order = [model.joint(j).qposadr[0] for j in robot.joints]
    if order != list(range(7, 7 + len(robot.joints))):
        raise ValueError(f"the model's joints are not in the order of robot {robot.name!r}")
    model.actuator_gainprm[:, 0], model.actuator_biasprm[:, 1] = kp, -np.asarray(kp)
    model.actuator_biasprm[:, 2] = -np.asarray(kd)
    model.actuator_forcerange[:, 0], model.actuator_forcerange[:, 1] = -np.asarray(effort), effort
    return model
