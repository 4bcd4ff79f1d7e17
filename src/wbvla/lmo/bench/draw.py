"""What happens to one world, drawn before it starts: start pose, commands, arm targets, pushes, jumps, robot and floor.

In: the world's own random generator, seeded by (seed, world). Out: a `Plan`. So a world's fate depends neither on how
many worlds there are nor on the policy, and two policies with one seed meet the same troubles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from wbvla.lmo.bench.model import NOMINAL, Body
from wbvla.lmo.command import STEP_S, feedforward
from wbvla.robots.base import Robot

CRUISE = np.array([0.5, 0.3, 0.5])  # m/s, m/s, rad/s of a flag
REACH = 0.6  # share of the joint range that random arm motion uses
MOVING_BELOW_M, POSE_BELOW_M = 0.09, 0.19  # under the robot's nominal height: lowest while translating; standing poses
NOISE = {"q": 0.01, "dq": 0.5, "gyro": 0.15, "gravity": 0.03}  # uniform, +- rad, rad/s, rad/s, 1


@dataclass(frozen=True)
class Setting:
    """What the draws of a protocol share: the robot, the policy's pose and heights, the recorded arm motion."""

    robot: Robot
    default: np.ndarray
    nominal_m: float
    arm_clip: np.ndarray  # (T, 14) rad at 50 Hz

    @property
    def arms(self) -> slice:
        """The arm joints in joint order."""
        return slice(self.robot.n_lmo, self.robot.n_lmo + 14)


class Push(NamedTuple):
    """A force on the torso's centre of mass along the world's x and y, N, and a torque about z, N m."""

    start_s: float
    length_s: float
    fx: float
    fy: float
    torque: float = 0.0

    def during(self, step: int) -> float:
        """Return the share of a 20 ms step in which the push acts; impulses are exact for any length."""
        end = min(self.start_s + self.length_s, (step + 1) * STEP_S)
        return max(0.0, end - max(self.start_s, step * STEP_S)) / STEP_S


@dataclass
class Plan:
    """One world's script, T steps of 20 ms.

    Attributes:
        command: (T, 4) m/s, m/s, rad/s, m. arms: (T, 14) rad.
        q, quat, qvel: start pose, rad; orientation w, x, y, z; generalised velocity.
        body: what differs in the robot and the floor.
        jumps: (step, dvx, dvy) of the pelvis, m/s. pushes: on the torso.
        noise: (T, 2 J + 6) added to q, dq, gyroscope, gravity, or None. delayed: targets act one step late.
    """

    command: np.ndarray
    arms: np.ndarray
    q: np.ndarray
    quat: np.ndarray
    qvel: np.ndarray
    body: Body = NOMINAL
    jumps: list[tuple[int, float, float]] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    noise: np.ndarray | None = None
    delayed: bool = False


def steps_of(seconds: float) -> int:
    """Return the number of 20 ms steps."""
    return round(seconds / STEP_S)


def plan(rng: np.random.Generator, setting: Setting, command: np.ndarray, arms: np.ndarray | None = None) -> Plan:
    """Return a plan that starts in the policy's pose, nearly at rest: joints +-0.05 rad, tilt +-0.02, any heading.

    arms: (T, 14), or the default pose when left out.
    """
    default = setting.default
    if arms is None:
        arms = np.tile(default[setting.arms], (len(command), 1))
    q = default + rng.uniform(-0.05, 0.05, len(default))
    heading, tilt = rng.uniform(-np.pi, np.pi), rng.uniform(-0.02, 0.02, 2)
    return Plan(command, arms, q, _quaternion(heading, *tilt), np.zeros(6 + len(default)))


def constant(seconds: float, vx: float, vy: float, wz: float, height_m: float) -> np.ndarray:
    """Return one command held, (T, 4)."""
    return np.tile([vx, vy, wz, height_m], (steps_of(seconds), 1))


def sequence(*parts: np.ndarray) -> np.ndarray:
    """Return commands one after the other."""
    return np.concatenate(parts)


def flag_commands(rng: np.random.Generator, setting: Setting, seconds: float, rest_s: float = 0.0) -> np.ndarray:
    """Draw flags every 2-4 s, (T, 4) at cruise speed: 30 % the exact reverse of the last, else any of the 27 sets.

    A quarter of the fresh sets do not translate (stand, turn left or right). Half of the draws change the height too:
    down to 9 cm under the robot's nominal one while the robot translates, to its lowest while it does not (G1: 0.65 and
    0.45 m). When a translation begins lower, that first height is commanded. The first `rest_s` are standing.
    """
    nominal_m, robot = setting.nominal_m, setting.robot
    moving_low, lowest = robot.nominal_height_m - MOVING_BELOW_M, robot.height_range_m[0]
    steps, flags, height, parts, total = steps_of(seconds), np.zeros(3), nominal_m, [], 0
    if rest_s:
        parts.append(constant(rest_s, 0, 0, 0, nominal_m))
        total = len(parts[0])
    while total < steps:
        reverse, in_place, fresh = rng.random() < 0.3, rng.random() < 0.25, rng.integers(-1, 2, 3)
        fresh[:2] *= not in_place
        flags = -flags if reverse and flags.any() else fresh.astype(float)
        low = moving_low if flags[:2].any() else lowest
        change, drawn = rng.random() < 0.5, rng.uniform(low, nominal_m)
        height = drawn if change else max(height, low)
        count = steps_of(rng.uniform(2.0, 4.0))
        parts.append(np.tile([*(flags * CRUISE), height], (count, 1)))
        total += count
    return np.concatenate(parts)[:steps]


def random_arms(rng: np.random.Generator, setting: Setting, steps: int) -> np.ndarray:
    """Draw arm targets (T, 14): a new goal every 0.6-3 s, approached at 0.5-3 rad/s, within 60 % of the joint range.

    A third of the goals reach forward (shoulder pitch -1.5 to -0.3 rad); half are symmetric, as when both hands hold
    one thing.
    """
    robot, arms = setting.robot, setting.arms
    default, limits = setting.default[arms], REACH * robot.range_rad[arms]
    index, sign = robot.mirror()
    index, sign = index[arms][:7] - robot.n_lmo, sign[arms][:7]
    target, out, done = default.copy(), np.empty((steps, 14)), 0
    wait = int(rng.integers(20, 100))  # steps until the first goal
    out[:wait] = default
    done = min(wait, steps)
    while done < steps:
        goal = rng.uniform(limits[:, 0], limits[:, 1])
        reach, pitch, both, size = rng.random(), rng.uniform(-1.5, -0.3), rng.random(), np.sqrt(rng.random())
        if reach < 1 / 3:
            goal[0] = goal[7] = pitch
        if both < 0.5:
            goal[:7] = goal[index] * sign
        goal = default + (goal - default) * size
        speed, count = rng.uniform(0.5, 3.0), int(rng.integers(30, 150))
        travelled = speed * STEP_S * np.arange(1, count + 1)[:, None]
        path = target + np.clip(goal - target, -travelled, travelled)
        part = path[: steps - done]
        out[done : done + len(part)], target = part, path[-1]
        done += len(part)
    return out


def replayed_arms(rng: np.random.Generator, setting: Setting, steps: int, speed: float, size: float) -> np.ndarray:
    """Return the recorded arm motion (T, 14) from a random moment on, `speed` times as fast, `size` times as wide.

    Amplitude is taken about the recording's mean pose and cut at the joint limits. The recording runs forth and back;
    the arms come from the default pose within the first second.
    """
    clip, arms = setting.arm_clip, setting.arms
    last = len(clip) - 1
    at = (rng.uniform(0, 2 * last) + speed * np.arange(steps)) % (2 * last)
    at = np.where(at > last, 2 * last - at, at)
    low = np.minimum(at.astype(int), last - 1)
    motion = clip[low] + (at - low)[:, None] * (clip[low + 1] - clip[low])
    motion = np.clip(clip.mean(0) + size * (motion - clip.mean(0)), *setting.robot.range_rad[arms].T)
    blend = np.minimum(1.0, np.arange(1, steps + 1) * STEP_S)[:, None]
    return blend * motion + (1 - blend) * setting.default[arms]


def torso_pushes(rng: np.random.Generator, seconds: float, first_s: float, length_s: float) -> list[Push]:
    """Draw pushes from `first_s` on: U(0, 150) N in any horizontal direction, U(-30, 30) N m, gaps of 1.5-3 s."""
    pushes, t = [], first_s
    while True:
        gap, force, direction, torque = rng.uniform((1.5, 0, -np.pi, -30), (3.0, 150, np.pi, 30))
        t += gap
        if t + length_s > seconds:
            return pushes
        pushes.append(Push(t, length_s, force * np.cos(direction), force * np.sin(direction), torque))
        t += length_s


def jumps(rng: np.random.Generator, times_s: tuple[float, ...], size_m_s: float) -> list[tuple[int, float, float]]:
    """Draw jumps of the pelvis' horizontal velocity by exactly `size_m_s`, each in any direction."""
    angles = rng.uniform(-np.pi, np.pi, len(times_s))
    return [(steps_of(t), size_m_s * np.cos(a), size_m_s * np.sin(a)) for t, a in zip(times_s, angles)]


def sensor_noise(rng: np.random.Generator, steps: int, joints: int) -> np.ndarray:
    """Draw uniform noise of q, dq, gyroscope and gravity, (T, 2 J + 6)."""
    widths = {"q": joints, "dq": joints, "gyro": 3, "gravity": 3}
    size = np.concatenate([np.full(n, NOISE[name]) for name, n in widths.items()])
    return (size * rng.uniform(-1, 1, (steps, len(size)))).astype(np.float32)


def standing_pose(rng: np.random.Generator, setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a pose that another controller may leave behind, both soles flat: (q, quat, qvel).

    Pelvis from 19 cm under nominal (G1: 0.55 m) to nominal, feet up to 0.1 rad apart and 0.1 rad of hip pitch fore and
    aft each, waist +-0.2 rad, arms anywhere within 60 % of their range, tilt +-0.05, speeds +-0.2 m/s and +-0.3 rad/s.
    """
    robot = setting.robot
    q = robot.array("default")
    nominal = robot.nominal_height_m
    height = rng.uniform(nominal - POSE_BELOW_M, nominal)
    q[:12] += feedforward(np.zeros((1, 2)), np.array([height]), nominal, robot.leg_m, 0.0)[0]
    apart, stagger, waist = rng.uniform(0, 0.1), rng.uniform(-0.1, 0.1), rng.uniform(-0.2, 0.2, robot.n_lmo - 12)
    for start, side in ((0, 1.0), (6, -1.0)):
        q[start + 1] += side * apart
        q[start + 5] -= side * apart
        q[start] += side * stagger
        q[start + 4] -= side * stagger
    q[12 : robot.n_lmo] = waist
    limits = REACH * robot.range_rad[setting.arms]
    q[setting.arms] = rng.uniform(limits[:, 0], limits[:, 1])
    heading, tilt = rng.uniform(-np.pi, np.pi), rng.uniform(-0.05, 0.05, 2)
    qvel = np.zeros(6 + len(q))
    qvel[:6] = rng.uniform(-1, 1, 6) * [0.2, 0.2, 0.0, 0.3, 0.3, 0.3]
    return q, _quaternion(heading, *tilt), qvel


def _quaternion(heading: float, roll: float, pitch: float) -> np.ndarray:
    """Return (w, x, y, z) of a heading and a small tilt."""
    tilt = np.array([1.0, roll / 2, pitch / 2, 0.0])
    tilt /= np.linalg.norm(tilt)
    c, s = np.cos(heading / 2), np.sin(heading / 2)
    w, x, y, z = tilt
    return np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])
