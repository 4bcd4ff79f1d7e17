"""What varies in training: model variants, arm motion, pushes and hand forces, commands.

In: robot, configuration, random generator. Out: compiled models and batched disturbances.
"""

from __future__ import annotations

import mujoco
import numpy as np

from wbvla.lmo.arrays import namespace
from wbvla.lmo.command import STEP_S
from wbvla.lmo.terrain import CELLS, add_ground, roughen
from wbvla.recipes.lmo import LmoConfig
from wbvla.robots.base import Robot

PAUSE_STEPS, SHOVE_STEPS = (75, 200), 10
TRANSLATING_BELOW_M = 0.12  # commands to translate stay within this of the nominal height
NET_FORCE = 3  # MuJoCo's code for a contact sensor that sums the forces of all contacts, in world axes


def on_ground(robot: Robot, config: LmoConfig) -> mujoco.MjModel:
    """Compile the robot on a floor, see `on_ground_spec`."""
    spec = on_ground_spec(robot, config)
    # A diverged world must be seen, not quietly put back to its start.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return spec.compile()


def on_ground_spec(robot: Robot, config: LmoConfig) -> mujoco.MjSpec:
    """Put the robot on a floor, with the sensors that the reward rows need."""
    rows = dict(config.rewards)
    spec = robot.build(feet="spheres", collisions=config.collisions, timestep_s=config.physics_s)
    if config.roughness_m:
        add_ground(spec)
    else:
        floor = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(name="floor", type=floor, size=[0, 0, 0.05], contype=1, conaffinity=2)
    if "com_stability" in rows:
        kinds = mujoco.mjtSensor.mjSENS_SUBTREECOM, mujoco.mjtObj.mjOBJ_BODY
        spec.add_sensor(name="com", type=kinds[0], objtype=kinds[1], objname="pelvis")
    if "foot_stumble" in rows:
        what = 1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE)
        for side in ("left", "right"):
            spec.add_sensor(
                name=f"{side}_foot_force", type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=f"{side}_ankle_roll_link", intprm=[what, NET_FORCE, 1],
            )  # fmt: skip
    spec.option.iterations, spec.option.ls_iterations = 10, 20
    return spec


def model_variants(robot: Robot, config: LmoConfig, rng: np.random.Generator | None) -> list[mujoco.MjModel]:
    """Compile the nominal model and, given `rng`, `config.variants - 1` randomised ones.

    Ranges are the configuration's.
    """
    models = [on_ground(robot, config)]
    for i in range(1, config.variants if rng is not None else 1):
        severity = i / (config.variants - 1)  # of loads: some worlds are to be easy
        m = on_ground(robot, config)
        if config.roughness_m:
            roughen(m, severity * config.roughness_m * rng.random((CELLS, CELLS)))
        feet = [g for g in range(m.ngeom) if "foot" in m.geom(g).name]
        m.geom_friction[feet, 0] = rng.uniform(*config.friction)
        m.geom_solref[feet, 0] = rng.uniform(*config.softness_s)
        middle = (m.geom_pos[feet].max(0) + m.geom_pos[feet].min(0)) / 2
        m.geom_pos[feet, :2] = middle[:2] + rng.uniform(*config.soles) * (m.geom_pos[feet, :2] - middle[:2])
        torso = m.body("torso_link").id
        m.body_mass[torso] += severity * rng.uniform(*config.torso_kg)
        m.body_ipos[torso] += rng.uniform(-config.com_m, config.com_m, 3)
        both, alike = rng.uniform(*config.wrist_kg), rng.random() < 0.5
        for palm in robot.palms:
            each = both if alike else rng.uniform(*config.wrist_kg)
            m.body_mass[m.body(palm.body).id] += severity * each
        m.body_mass[1:] *= rng.uniform(1 - config.link_mass, 1 + config.link_mass, m.nbody - 1)
        scale = rng.uniform(1 - config.gains, 1 + config.gains, m.nu)
        m.actuator_gainprm[:, 0] *= scale
        m.actuator_biasprm[:, 1] *= scale
        m.actuator_biasprm[:, 2] *= rng.uniform(1 - config.gains, 1 + config.gains, m.nu)
        mujoco.mj_setConst(m, mujoco.MjData(m))
        models.append(m)
    return models


def variant_facts(robot: Robot, models: list[mujoco.MjModel]) -> np.ndarray:
    """Return what the critic is told of each model, about 1 each: the feet's friction, mass added to torso and hands.

    Shape (variants, 4).
    """
    bodies = ("torso_link", *(palm.body for palm in robot.palms))
    foot = next(g for g in range(models[0].ngeom) if "foot" in models[0].geom(g).name)
    nominal = np.array([models[0].body(b).mass[0] for b in bodies])
    masses = np.array([[m.body(b).mass[0] for b in bodies] for m in models])
    friction = np.array([m.geom_friction[foot, 0] for m in models])
    return np.column_stack([friction, (masses - nominal) / 2])


def command_sample(rng: np.random.Generator, level: np.ndarray, config: LmoConfig, nominal_m: float):
    """Draw k commands for worlds of levels (k,): flags (k, 3) and heights (k,), the farther from nominal the higher.

    A share of the recipe's are any of the 27 sets of flags; of the others 30 % stand, 36 % walk forward or back, 20 %
    turn, 14 % go sideways. As velocities, 25 % stand and the rest are drawn uniformly up to the goal of each axis.
    """
    k, xp = len(level), namespace(level)
    kind, flags = rng.random(k), xp.zeros((k, 3))
    change = level * (rng.uniform(*config.heights_m, k) - nominal_m)
    heights = nominal_m + change * (rng.random(k) >= config.nominal_share)
    if config.shaping.kind == "velocity":
        return rng.uniform(-1, 1, (k, 3)) * (kind >= 0.25)[:, None], heights
    sign = lambda size: rng.choice([-1.0, 1.0], size)  # noqa: E731
    mixed = rng.random(k) < config.mixed_share
    walk, turn, side = ((kind >= low) & (kind < high) & ~mixed for low, high in ((0.3, 0.66), (0.66, 0.86), (0.86, 1)))
    flags[walk, 0] = xp.where(rng.random(int(walk.sum())) < 0.7, 1.0, -1.0)
    flags[turn, 2], flags[side, 1] = sign(int(turn.sum())), sign(int(side.sum()))
    flags[mixed] = xp.asarray(rng.integers(-1, 2, (int(mixed.sum()), 3)), float)
    lowest = xp.where(flags[:, :2].any(1), nominal_m - TRANSLATING_BELOW_M, 0.0)
    return flags, xp.maximum(heights, lowest)


class ArmMotion:
    """Smooth random arm targets: new goals every 0.6-3 s, approached at 0.5-4 rad/s, up to 60 % of the joint range.

    Half of the goals are symmetric, as when both hands hold one thing; a third of them reach forward.
    """

    STATE = ("target", "goal", "speed", "left")  # what a world's next step depends on, beside the generator

    def __init__(self, robot: Robot, n: int, rng: np.random.Generator, xp=np) -> None:
        self.rng, self.n, self.xp = rng, n, xp
        arms = slice(robot.n_lmo, robot.n_lmo + 14)
        self.default, self.range = xp.array(robot.array("default")[arms]), xp.array(0.6 * robot.range_rad[arms])
        self.target = xp.tile(self.default, (n, 1))
        index, sign = robot.mirror()
        self._mirror = xp.array(index[arms][:7] - robot.n_lmo), xp.array(sign[arms][:7])
        self.goal, self.speed, self.left = xp.copy(self.target), xp.ones(n), xp.zeros(n, int)

    def reset(self, mask: np.ndarray) -> None:
        """Put the masked worlds' arms into the default pose."""
        self.target[mask] = self.goal[mask] = self.default
        self.left[mask] = self.rng.integers(20, 100, int(mask.sum()))

    def begin_at(self, mask: np.ndarray, pose: np.ndarray) -> None:
        """Put the masked worlds' arms into poses (k, 14), where they stay until their first goal."""
        self.target[mask] = self.goal[mask] = pose

    @property
    def ahead(self) -> np.ndarray:
        """Where the arms are heading (n, 14), rad."""
        return self.goal

    def step(self, amplitude: np.ndarray) -> np.ndarray:
        """Advance 20 ms; return the targets (n, 14), rad. amplitude: (n,), or one number for all."""
        self.left -= 1
        new = self.left <= 0
        k = int(new.sum())
        if k:
            drawn = self.rng.uniform(self.range[:, 0], self.range[:, 1], (k, 14))
            reach = self.rng.random(k) < 0.33
            drawn[reach, 0] = drawn[reach, 7] = self.rng.uniform(-1.5, -0.3, int(reach.sum()))  # shoulder pitch
            both = self.rng.random(k) < 0.5
            drawn[both, :7] = drawn[both][:, self._mirror[0]] * self._mirror[1]
            size = self.xp.broadcast_to(amplitude, self.n)[new, None] * self.xp.sqrt(self.rng.random((k, 1)))
            self.goal[new] = self.default + (drawn - self.default) * size
            self.speed[new], self.left[new] = self.rng.uniform(0.5, 4.0, k), self.rng.integers(30, 150, k)
        limit = (self.speed * STEP_S)[:, None]
        self.target = self.target + self.xp.clip(self.goal - self.target, -limit, limit)
        return self.target


class Disturbance:
    """What happens to robots every 1.5-4 s: the base's velocity jumps, or somebody shoves the trunk for 0.2 s.

    A share of the worlds also feels a steady force against the forward motion.
    """

    def __init__(self, n: int, rng: np.random.Generator, share: float, xp=np) -> None:
        self.rng, self.n, self.xp = rng, n, xp
        self.left = rng.integers(*PAUSE_STEPS, n)
        self.share = xp.where(rng.random(n) < share, rng.random(n), 0.0)
        self.shove, self.shove_left = xp.zeros((n, 3)), xp.zeros(n, int)

    def reset(self, mask: np.ndarray) -> None:
        """End the shoves in the masked worlds."""
        self.shove_left[mask] = 0

    def push(self, velocity_xy: np.ndarray, level: np.ndarray, config: LmoConfig) -> None:
        """Where something is due, begin a shove or add a jump, in place, to the base velocity (n, 2); level: (n,)."""
        xp = self.xp
        self.left -= 1
        self.shove_left = xp.clip(self.shove_left - 1, 0, None)
        due = self.left <= 0
        k = int(due.sum())
        if k == 0:
            return
        angle, size, jumps = (
            self.rng.uniform(-np.pi, np.pi, k),
            level[due] * self.rng.random(k),
            self.rng.random(k) < 0.5,
        )
        direction = xp.stack([xp.cos(angle), xp.sin(angle)], axis=1)
        velocity_xy[due] += direction * (jumps * size * config.push_m_s)[:, None]
        torque = level[due] * self.rng.uniform(-1, 1, k) * config.shove_nm
        self.shove[due] = xp.column_stack([direction * (size * config.shove_n)[:, None], torque])
        self.shove_left[due] = xp.where(jumps, 0, SHOVE_STEPS)
        self.left[due] = self.rng.integers(*PAUSE_STEPS, k)

    def shoves(self) -> np.ndarray:
        """Return force along x and y of the world, N, and torque about z, N m, on the trunk now: (n, 3)."""
        return self.shove * (self.shove_left > 0)[:, None]

    def hand_force(self, forward_ref: np.ndarray, size_n: np.ndarray) -> np.ndarray:
        """Return the force on the hands along the heading (n,), N: against walking forward, as a pushed cart is."""
        return -self.share * size_n * self.xp.clip(forward_ref / 0.3, 0, 1)
