"""The simulated robot of every protocol: one model a world, stepped in batches by `mujoco.rollout`.

In: joint targets (n, J) and pushes on the torso (n, 3). Out: the state of n worlds and what the sensors felt on the way.
Nobody is assisted here: actuators are PD within torque limits, arms hang free, gravity is not compensated.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np
from mujoco import rollout

from wbvla.lmo.command import STEP_S
from wbvla.robots.base import Robot

FOOT_FRICTION = 0.8
PALM_POS = (0.1, 0.0, 0.0)  # where a load is held, in the wrist_yaw_link frame
PARENT_OF_PUSHES = "torso_link"


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


class Plant:
    """Compiles the models and steps batches of worlds. Use as a context manager: it owns the threads.

    Args:
        kp, kd, effort: PD gains and torque limits in the robot's joint order, (J,).
    """

    def __init__(self, robot: Robot, physics: Physics, kp, kd, effort, threads: int = 2) -> None:
        self.robot, self.physics = robot, physics
        build = _mjlab_spec if physics.model == "mjlab" else _own_spec
        self.model = _finish(build(robot, physics), robot, physics, kp, kd, effort)
        self.effort = np.asarray(effort, float)
        self.weight_n = float(self.model.body_subtreemass[1]) * 9.81
        m = self.model
        self.nq, self.nv, self.nu = m.nq, m.nv, m.nu
        self._size = mujoco.mj_stateSize(m, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._sensor_of = {
            m.sensor(i).name: slice(m.sensor_adr[i], m.sensor_adr[i] + m.sensor_dim[i]) for i in range(m.nsensor)
        }
        self._feet = [g for g in range(m.ngeom) if "_foot" in m.geom(g).name]
        self._push = 6 * m.body(PARENT_OF_PUSHES).id + np.array([0, 1, 5])
        self._datas = [mujoco.MjData(m) for _ in range(max(1, threads))]
        self._pool = rollout.Rollout(nthread=max(1, threads))

    def __enter__(self) -> Plant:
        self._pool.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.__exit__(*exc)

    def start(self, bodies: list[Body], qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Begin an episode in n worlds. qpos: (n, nq), qvel: (n, nv)."""
        n = len(bodies)
        self.models = [self.model if body is NOMINAL else self._variant(body) for body in bodies]
        self.state = np.zeros((n, self._size))
        self.qpos[:], self.qvel[:] = qpos, qvel
        self._control = np.zeros((n, self.physics.substeps, self.nu + 6 * self.model.nbody))
        self.sensors = np.zeros((n, self.physics.substeps, self.model.nsensordata))

    def standing_height(self, qpos: np.ndarray) -> float:
        """Return the pelvis height at which the lowest point of the feet is 2 mm above the floor. qpos: (nq,)."""
        d = self._datas[0]
        d.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, d)
        sizes, half = self.model.geom_size[self._feet], np.abs(d.geom_xmat[self._feet, 8])
        kind = self.model.geom_type[self._feet]
        half = np.where(kind == mujoco.mjtGeom.mjGEOM_CAPSULE, half * sizes[:, 1], 0.0)
        return float(qpos[2] + 0.002 - (d.geom_xpos[self._feet, 2] - half - sizes[:, 0]).min())

    @property
    def qpos(self) -> np.ndarray:
        """Generalised positions (n, nq), a view."""
        return self.state[:, 1 : 1 + self.nq]

    @property
    def qvel(self) -> np.ndarray:
        """Generalised velocities (n, nv), a view."""
        return self.state[:, 1 + self.nq : 1 + self.nq + self.nv]

    @property
    def gravity(self) -> np.ndarray:
        """Unit gravity in the pelvis frame, (n, 3)."""
        w, x, y, z = self.qpos[:, 3:7].T
        return np.stack([-2 * (x * z - w * y), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))], axis=1)

    @property
    def yaw(self) -> np.ndarray:
        """Heading (n,), rad."""
        w, x, y, z = self.qpos[:, 3:7].T
        return np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))

    def sensor(self, name: str) -> np.ndarray:
        """All readings of a sensor during the last control step, (n, substeps, dim)."""
        return self.sensors[:, :, self._sensor_of[name]]

    def step(self, targets: np.ndarray, push: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Advance the worlds in `alive` (bool, n) by 20 ms; the others are frozen.

        targets: (n, J) rad; push: (n, 3) force on the torso along x and y of the world, N, and torque about z, N m.
        Returns the worlds whose physics broke (bool, n); they keep their last finite state.
        """
        index = np.flatnonzero(alive)
        broken = np.zeros(len(alive), bool)
        if len(index) == 0:
            return broken
        self._control[:, :, : self.nu] = targets[:, None]
        self._control[:, :, self.nu + self._push] = push[:, None]
        states = np.empty((len(index), self.physics.substeps, self._size))
        sensors = np.empty((len(index), self.physics.substeps, self.model.nsensordata))
        kinds = mujoco.mjtState
        self._pool.rollout(
            [self.models[i] for i in index], self._datas, self.state[index], self._control[index],
            control_spec=int(kinds.mjSTATE_CTRL) | int(kinds.mjSTATE_XFRC_APPLIED), state=states, sensordata=sensors,
            skip_checks=True, nstep=self.physics.substeps, chunk_size=max(1, len(index) // 16),
        )  # fmt: skip
        fine = np.isfinite(states).all((1, 2)) & (np.abs(states[:, -1, 1 : 1 + self.nq]).max(1) < 1e3)
        broken[index[~fine]] = True
        self.state[index[fine]], self.sensors[index[fine]] = states[fine, -1], sensors[fine]
        return broken

    def _variant(self, body: Body) -> mujoco.MjModel:
        m = copy.copy(self.model)
        m.geom_friction[self._feet, 0] = body.friction
        m.body_mass[1:] *= body.link_mass
        m.body_inertia[1:] *= np.reshape(body.link_mass, (-1, 1))
        torso = m.body(PARENT_OF_PUSHES).id
        m.body_mass[torso] += body.torso_kg
        m.body_ipos[torso] += body.torso_shift_m
        for side, load in zip(("left", "right"), body.hands_kg):
            if load:
                _hold(m, m.body(f"{side}_wrist_yaw_link").id, load)
        m.actuator_gainprm[:, 0] *= body.kp
        m.actuator_biasprm[:, 1] *= body.kp
        m.actuator_biasprm[:, 2] *= body.kd
        mujoco.mj_setConst(m, self._datas[0])
        return m


def _hold(m: mujoco.MjModel, wrist: int, load_kg: float) -> None:
    """Add a point mass in the palm to a wrist: mass, centre of mass, inertia (the same about all axes)."""
    mass, centre = m.body_mass[wrist], m.body_ipos[wrist].copy()
    arm = np.array(PALM_POS) - centre
    m.body_mass[wrist] = mass + load_kg
    m.body_ipos[wrist] = centre + arm * load_kg / (mass + load_kg)
    m.body_inertia[wrist] += mass * load_kg / (mass + load_kg) * (arm @ arm)


def _own_spec(robot: Robot, physics: Physics) -> mujoco.MjSpec:
    spec = robot.build(feet=physics.feet, collisions=physics.collisions, timestep_s=physics.step_s)
    if physics.collisions == "full":
        for geom in spec.geoms:
            if "_foot" in geom.name:
                geom.conaffinity = 3  # one foot meets the other
    return spec


def _mjlab_spec(robot: Robot, physics: Physics) -> mujoco.MjSpec:
    """Return mjlab's G1 under the project's names, without meshes; mjlab itself is not imported (that takes seconds)."""
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
