"""The legs' task: in, actions (n, n_lmo); out, actor and critic observations, rewards, terminations, 20 ms at a time.

Vectorised over worlds, on arrays of the namespace `xp`. An engine puts physics under it: native MuJoCo with CPU
threads (wbvla.lmo.cpu_engine) or MuJoCo-Warp (wbvla.lmo.mjlab_engine).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import mujoco
import numpy as np

from wbvla.lmo.actuator import ActuatorNet, ActuatorState, use_torque
from wbvla.lmo.arm_clips import arm_motion
from wbvla.lmo.command import STEP_S, CommandShaper, feedforward, is_disturbed, is_pushed
from wbvla.lmo.latent import LatentIntent
from wbvla.lmo.observation import History, actor_observation, layout
from wbvla.lmo.odometry import LegKinematics, Odometry, base_velocity, pelvis_height, pose_error
from wbvla.lmo.randomisation import Disturbance, command_sample, model_variants, variant_facts
from wbvla.lmo.rewards import CONTACT_M, Step, rewards
from wbvla.lmo.terrain import CELLS
from wbvla.lmo.worlds import Worlds, in_pelvis_frame
from wbvla.recipes.lmo import LmoConfig
from wbvla.robots.base import Robot

FALL_TILT, FALL_BELOW_M = -0.7, 0.10  # gravity's z in the pelvis frame: 45 degrees; below the lowest command
LEVEL_UP, LEVEL_DOWN = 0.1, 0.4  # of a world whose episode lasted, or ended in a fall
START_BELOW_M = 0.2  # how far below the nominal height an episode may begin
SHOVE_ABOVE_M = 0.2  # shoves hit the trunk about so far above the pelvis
CALM_COMMANDS = 4  # how many times longer a command lasts in a calm episode
QUIET = 0.5  # share of the calm episodes in which the arms stay too
DRIFT_FILTER = 0.03  # a stride and a half: what is left is drift, not the gait's swing
# What a world is, besides its physics state: the engine's own arrays and those of its parts; arms and actuator list
# their own in STATE.
WORLD = ("state", "_sensors", "flags", "height", "command_left", "episode_steps", "age", "actions", "targets",
         "delayed", "yaw_rate", "disturbed", "pushed", "lagged", "drift", "misplaced", "level", "last_dq",
         "last_velocity", "air_s", "in_motion", "heading_from", "calm", "quiet", "held")  # fmt: skip
PARTS = {
    "shaper": ("goal", "sbar", "v_ref", "height_ref", "phase", "alarm", "quick"),
    "disturbance": ("left", "share", "shove", "shove_left"),
    "odometry": ("velocity", "drift", "error", "lift"),
    "history": ("frames",),
}
NOISE = {
    "base_velocity": 0.1, "height": 0.01, "gyro": 0.15, "gravity": 0.03, "q": 0.01, "dq": 0.5,
    "quaternion": 0.01, "accelerometer": 0.5, "foot_contacts": 0.0,
}  # fmt: skip


def action_scale(robot: Robot, config: LmoConfig) -> np.ndarray:
    """Return what an action of 1 adds to each target, (n_lmo,), rad: on stiff joints less, for the torque's sake."""
    effort, kp = (robot.array(field)[: robot.n_lmo] for field in ("effort", "kp"))
    return np.minimum(config.action_scale_rad, config.action_torque_share * effort / kp)


class LegsTask(Worlds, ABC):
    """n worlds of one robot.

    With `training=False` nothing is randomised or reset, and the caller sets the commands.
    """

    def __init__(
        self, robot: Robot, config: LmoConfig, worlds: int, seed: int, threads: int = 2, training: bool = True
    ):
        if robot.legs:
            raise ValueError(
                f"robot: got {robot.name!r}, which walks on the legs of {robot.legs!r}; use --robot {robot.legs}"
            )
        self.actuator: ActuatorState | None = None
        if config.actuator:
            net = ActuatorNet.load(config.actuator, robot.joints)
            self.actuator = ActuatorState(net, worlds, self.xp)
            config = replace(config, physics_s=1 / net.rate_hz, substeps=self.actuator.substeps)
        self.robot, self.config, self.n, self.training = robot, config, worlds, training
        self._build(seed, threads)
        self._begin()

    @abstractmethod
    def _build(self, seed: int, threads: int) -> None:
        """Make the random generator, the models and the arrays of the physics."""

    @abstractmethod
    def _physics(self) -> None:
        """Advance the physics by 20 ms under `_control`; fill `state` and `_sensors`."""

    @abstractmethod
    def set_harness(self, strength: float) -> None:
        """Set the assist forces, 0 to 1, and the damping of the pelvis' rotation that goes with them."""

    def _variants(self, rng: np.random.Generator | None) -> list[mujoco.MjModel]:
        models = model_variants(self.robot, self.config, rng)
        for model in models if self.actuator is not None else ():
            use_torque(model, self.robot.array("kp"))
        return models

    def _begin(self) -> None:
        """Make the task's arrays and the first episodes."""
        robot, config, worlds, xp = self.robot, self.config, self.n, self.xp
        self.default, limits = xp.array(robot.array("default")), xp.array(robot.range_rad[: robot.n_lmo])
        self.soft_limits = limits[:, 0] + 0.05, limits[:, 1] - 0.05
        fields = ("kp", "kd", "effort", "velocity")
        self.kp, self.kd, self.effort, self.max_speed = (xp.array(robot.array(f)[: robot.n_lmo]) for f in fields)
        self.action_scale_rad = xp.array(action_scale(robot, config))
        self.hips = [i for i, j in enumerate(robot.lmo_joints) if "hip_roll" in j or "hip_yaw" in j]
        self.ankles = [i for i, j in enumerate(robot.lmo_joints) if "ankle" in j]
        self.waist = [i for i, j in enumerate(robot.lmo_joints) if j.startswith("waist")]
        self.fall_height = robot.height_range_m[0] - FALL_BELOW_M
        self.shaper = CommandShaper(worlds, robot.nominal_height_m, config.shaping, xp)
        self.legs = LegKinematics(robot, xp)
        self.arms = arm_motion(robot, worlds, self.rng, config.arms if self.training else (), xp)
        self.disturbance = Disturbance(worlds, self.rng, config.hand_force_share, xp)
        self.flags, self.height = xp.zeros((worlds, 3)), xp.full(worlds, robot.nominal_height_m)
        self.command_left, self.episode_steps = xp.zeros(worlds, int), xp.zeros(worlds, int)
        self.age = xp.zeros(worlds, int)  # steps since the reset; episode_steps starts anywhere to spread the resets
        self.max_steps = int(config.episode_s / STEP_S)
        self.harness = 0.0
        self.level = xp.zeros(worlds)  # how hard each world is, 0 to 1: share of pushes and hand forces, see `opened`
        self.actions = xp.zeros((3, worlds, robot.n_lmo))  # newest first
        self.targets = xp.zeros((worlds, robot.n_lmo))
        self.delayed = xp.ones(worlds, bool)
        self.odometry, self.yaw_rate = Odometry(worlds, config.odometry, xp), xp.zeros(worlds)
        self.misplaced = xp.zeros((worlds, 3))  # the true pose error
        self.disturbed, self.pushed = xp.zeros(worlds, bool), xp.zeros(worlds, bool)
        self.calm, self.quiet = xp.zeros(worlds, bool), xp.zeros(worlds, bool)  # nobody pushes; and the arms stay
        self.held = xp.zeros((worlds, 14))  # where
        self.lagged = xp.zeros(worlds, bool)  # worlds whose joints and IMU arrive one step late
        self.drift = xp.zeros((worlds, 3))  # low-passed velocity minus reference: m/s, m/s, rad/s
        self.last_dq, self.last_velocity = xp.zeros((worlds, robot.n_lmo)), xp.zeros((worlds, 3))
        self.air_s = xp.zeros((worlds, 2))
        self.in_motion = xp.zeros(worlds, bool)  # from a first flag until all are 0 and the robot has settled
        self.heading_from = xp.zeros(worlds)  # heading at the start of the motion plus what the reference turned since
        self.measured: dict[str, np.ndarray] = {}
        self.history = History(worlds, config.history, sum(w for _, w, _ in layout(robot, config.terms)), xp)
        self.latent = LatentIntent(robot, worlds, self.rng, xp) if "latent" in config.terms else None
        self._relief_of = np.arange(worlds) % len(self.models)
        self._reliefs = np.stack(
            [m.hfield_data.reshape(CELLS, CELLS) for m in self.models if config.roughness_m] or [0]
        )
        self._body = xp.array(variant_facts(robot, self.models))[xp.arange(worlds) % len(self.models)]
        self.rows: dict[str, np.ndarray] = {}  # mean of each reward row over the worlds
        self.parts = PARTS | {"arms": self.arms.STATE}
        if self.actuator is not None:
            self.parts["actuator"] = self.actuator.STATE
        if self.latent is not None:
            self.parts["latent"] = self.latent.STATE
        self.reset(xp.ones(worlds, bool))
        if self.training:
            self.episode_steps = self.rng.integers(0, self.max_steps, worlds)

    @property
    def opened(self) -> np.ndarray:
        """Share of arm motion, heights and start poses, (n,): all from level 0.5 on, above it only pushes grow."""
        return self.xp.clip(2 * self.level, self.config.opened, 1) if self.training else self.level

    def reset(self, mask: np.ndarray) -> None:
        """Start new episodes in the masked worlds."""
        k = int(mask.sum())
        if k == 0:
            return
        state = self.xp.zeros((k, self.state.shape[1]))
        qpos, qvel = state[:, 1 : 1 + self.nq], state[:, 1 + self.nq : 1 + self.nq + self.nv]
        qpos[:, 2], qpos[:, 3], qpos[:, 7:] = self.robot.height_range_m[1], 1.0, self.default
        if self.training:
            qpos[:, 2] += 0.01
            self._pose(qpos, self.opened[mask])
            qpos[:, 2] += self.config.roughness_m
            qpos[:, 4:6] = self.rng.uniform(-0.05, 0.05, (k, 2))
            qpos[:, 3:7] /= self.xp.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
            qvel[:, :6] = self.rng.uniform(-0.3, 0.3, (k, 6))
            self.delayed[mask] = self.rng.random(k) < 0.7
            self.lagged[mask] = self.rng.random(k) < self.config.sensor_lag_share
            cruise = self.rng.random((k, 1)) < 0.5
            share = self.xp.where(cruise, 1.0, self.rng.uniform(self.config.slowest, 1.0, (k, 3)))
            self.shaper.goal[mask] = share * self.xp.array(self.config.shaping.goal)
            self.calm[mask] = self.rng.random(k) < self.config.calm
            self.quiet[mask] = self.calm[mask] & (self.rng.random(k) < QUIET)
            self.held[mask] = qpos[:, 7 + self.robot.n_lmo : 21 + self.robot.n_lmo]
            self.flags[mask] = 0.0
            self._new_commands(mask)
        self.state[mask] = state
        self._sensors[mask] = 0.0
        self.actions[:, mask] = 0.0
        self.targets[mask] = self.default[: self.robot.n_lmo]
        self.shaper.reset(mask, self.rng.random(k) * 0 if not self.training else 0.5 * self.rng.integers(0, 2, k))
        self.arms.reset(mask)
        if self.training:
            self.arms.begin_at(mask, self.held[mask])
        self.odometry.reset(mask)
        self.disturbance.reset(mask)
        if self.actuator is not None:
            self.actuator.reset(mask)
        self.episode_steps[mask] = self.age[mask] = 0
        self.misplaced[mask], self.yaw_rate[mask], self.drift[mask] = 0.0, 0.0, 0.0
        self.disturbed[mask], self.pushed[mask] = False, False
        self.last_dq[mask], self.last_velocity[mask], self.air_s[mask], self.in_motion[mask] = 0.0, 0.0, 0.0, False
        if self.latent is not None:
            self.latent.reset(mask)

    def _pose(self, qpos: np.ndarray, level: np.ndarray) -> None:
        """Spread start poses (k, nq) about the default: joints, and as levels rise squats and arms anywhere."""
        k, robot, lmo = len(qpos), self.robot, self.robot.n_lmo
        drop = level * self.rng.uniform(0, START_BELOW_M, k)
        qpos[:, 2] -= drop
        qpos[:, 7:19] += feedforward(
            self.xp.zeros((k, 2)), robot.nominal_height_m - drop, robot.nominal_height_m, robot.leg_m, 0.0
        )
        arms, limits = slice(7 + lmo, 21 + lmo), self.xp.array(0.6 * robot.range_rad[lmo : lmo + 14])
        anywhere = self.rng.uniform(limits[:, 0], limits[:, 1], (k, 14))
        qpos[:, arms] += level[:, None] * (anywhere - qpos[:, arms])
        qpos[:, 7:] += self.rng.uniform(-0.1, 0.1, (k, self.nu))

    def _new_commands(self, mask: np.ndarray) -> None:
        k = int(mask.sum())
        if k:
            flags, self.height[mask] = command_sample(
                self.rng, self.opened[mask], self.config, self.robot.nominal_height_m
            )
            back = self.rng.random((k, 1)) < self.config.reversals
            self.flags[mask] = self.xp.where(back & self.flags[mask].any(1, keepdims=True), -self.flags[mask], flags)
            first, last = self.config.redraw_s
            lasts = self.rng.integers(round(first / STEP_S), round(last / STEP_S), k)
            self.command_left[mask] = self.xp.where(self.calm[mask], CALM_COMMANDS * lasts, lasts)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advance 20 ms. action: (n, n_lmo). Returns reward (n,), terminated (n,) bool, timed out (n,) bool."""
        applied = self.act(action)
        self._physics()
        return self.judge(applied)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Set the controls and forces of a step; return the joint targets that the worlds' delays let through."""
        self.actions[2], self.actions[1] = self.actions[1], self.actions[0]
        self.actions[0] = self.xp.clip(action, -6, 6)
        self.shaper.step(self.flags, self.height, self.disturbed, self.pushed)
        targets = self.default[: self.robot.n_lmo] + self.action_scale_rad * self.actions[0]
        targets[:, :12] += feedforward(
            self.shaper.swing(), self.odometry.raised(self.shaper.height_ref), self.robot.nominal_height_m,
            self.robot.leg_m, self.config.lift_rad,
        )  # fmt: skip
        applied = self.xp.where(self.delayed[:, None], self.targets, targets)
        self.targets = targets
        self._control[:, :, : self.robot.n_lmo] = applied[:, None]
        arms = self.xp.where(self.quiet[:, None], self.held, self.arms.step(self.opened))
        self._control[:, :, self.robot.n_lmo : self.nu] = arms[:, None]
        self._external_forces()
        return applied

    def judge(self, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward what the physics did, then begin new commands, disturbances and episodes where due."""
        step = self._measure(applied)
        rows = rewards(step, self.config.rewards)
        self.rows = {name: row.mean() for name, row in rows.items()}
        fallen = (step.gravity[:, 2] > FALL_TILT) | (step.height < self.fall_height)
        reward = self.xp.clip(sum(rows.values()) * STEP_S * 5 - 2.0 * fallen, -4, 4)
        self.episode_steps += 1
        self.age += 1
        timed_out = (self.episode_steps >= self.max_steps) & ~fallen
        if self.training:
            if self.harness == 0:
                change = (LEVEL_UP * timed_out - LEVEL_DOWN * fallen) * ~self.calm  # nobody pushed: says little
                self.level = self.xp.clip(self.level + change, 0, 1)
            self.disturbance.push(self.state[:, 1 + self.nq : 3 + self.nq], self.level * ~self.calm, self.config)
            self.command_left -= 1
            self._new_commands((self.command_left <= 0) & ~fallen & ~timed_out)
            self.reset(fallen | timed_out)
        return reward, fallen, timed_out

    def _external_forces(self) -> None:
        force = self._control[:, :, self.nu :]
        force[:] = 0.0
        if self.training and self.config.torque_noise > 0:
            legs = slice(6, 6 + self.robot.n_lmo)
            noise = self.rng.uniform(-1, 1, (self.n, self.robot.n_lmo)) * self.config.torque_noise * self.effort
            force[:, :, legs] = noise[:, None]
        c, s = self.xp.cos(self.yaw), self.xp.sin(self.yaw)
        if self.training and self.level.any():
            f = self._hand_force()
            force[:, :, 0], force[:, :, 1] = (c * f)[:, None], (s * f)[:, None]
            force[:, :, 4] += (0.2 * f)[:, None]  # the hands push about 0.2 m above the pelvis
            fx, fy, torque = self.disturbance.shoves().T
            force[:, :, 0] += fx[:, None]
            force[:, :, 1] += fy[:, None]
            force[:, :, 3] -= (SHOVE_ABOVE_M * (c * fy - s * fx))[:, None]
            force[:, :, 4] += (SHOVE_ABOVE_M * (c * fx + s * fy))[:, None]
            force[:, :, 5] += torque[:, None]
            force[:, :, 6 + self.waist[0]] += torque[:, None]
        if self.harness > 0:
            a, g, v = self.harness, self.gravity, self.in_heading_frame(self.qvel[:, :3])
            pull = self.xp.clip(250 * a * (self.shaper.v_ref[:, :2] - v[:, :2]), -120, 120)
            force[:, :, 0] += (c * pull[:, 0] - s * pull[:, 1])[:, None]
            force[:, :, 1] += (s * pull[:, 0] + c * pull[:, 1])[:, None]
            lift = a * (1500 * (self.shaper.height_ref - self.height_above_ground) - 100 * self.qvel[:, 2])
            force[:, :, 2] += self.xp.clip(lift, 0, 200 * a)[:, None]
            force[:, :, 3] += (250 * a * g[:, 1])[:, None]
            force[:, :, 4] -= (250 * a * g[:, 0])[:, None]

    def _hand_force(self) -> np.ndarray:
        """Return the steady force on the hands along the heading, (n,), N."""
        size_n = self.config.hand_force_n * self.level * ~self.calm
        return self.disturbance.hand_force(self.shaper.v_ref[:, 0], size_n)

    def _measure(self, applied: np.ndarray) -> Step:
        legs = slice(7, 7 + self.robot.n_lmo)
        q, dq = self.qpos[:, legs], self.qvel[:, 6 : 6 + self.robot.n_lmo]
        self.yaw_rate += 0.08 * (self.qvel[:, 5] - self.yaw_rate)
        v = self.in_heading_frame(self.qvel[:, :3])
        moved = self.xp.stack([v[:, 0], v[:, 1], self.qvel[:, 5]], axis=1)
        v_ref = self.odometry.steer(self.shaper.v_ref)  # as the policy saw it
        self.drift += DRIFT_FILTER * (moved - v_ref - self.drift)
        self.misplaced = pose_error(self.misplaced, self.shaper.v_ref, v, moved[:, 2], self.config.odometry)
        vel, tilt, yaws, pos = [], [], [], []
        for side in ("left", "right"):
            p, x_axis, z_axis = (self.sensor(f"{side}_foot_{k}") for k in ("pos", "x", "z"))
            vel.append(self.sensor(f"{side}_foot_vel"))
            tilt.append((z_axis[:, :2] ** 2).sum(1))
            yaws.append(self.xp.arctan2(x_axis[:, 1], x_axis[:, 0]))
            pos.append(p)
        lo, hi = self.soft_limits
        offset = q - self.default[: self.robot.n_lmo]
        gap_yaw = yaws[0] - yaws[1]
        foot_z = self.xp.amin(self._corner_heights(), axis=2)
        landed_s = self.xp.where(foot_z < CONTACT_M, self.air_s, 0.0)
        self.air_s = self.xp.where(foot_z < CONTACT_M, 0.0, self.air_s + STEP_S)
        acceleration, self.last_dq = (dq - self.last_dq) / STEP_S, self.xp.copy(dq)
        torque = self.kp * (applied - q) - self.kd * dq
        return Step(
            velocity=v, drift=self.drift, misplaced=self.misplaced, yaw_rate=self.yaw_rate, gyro=self.qvel[:, 3:6],
            gravity=self.gravity, height=self.height_above_ground, v_ref=v_ref,
            height_ref=self.shaper.height_ref,
            moving=self.shaper.moving, swing=self.shaper.swing(), foot_z=foot_z, foot_vel=self.xp.stack(vel, 1),
            foot_tilt=self.xp.stack(tilt, 1), foot_gap=self.in_heading_frame(pos[0] - pos[1])[:, :2],
            foot_gap_range=self.robot.foot_gap_m, foot_yaw=self.xp.arctan2(self.xp.sin(gap_yaw), self.xp.cos(gap_yaw)),
            torso_z=self.sensor("torso_z"), torso_gyro=self.sensor("torso_gyro"), hip_offset=offset[:, self.hips],
            ankle_offset=offset[:, self.ankles],
            waist_offset=offset[:, self.waist], dq=dq,
            limit_excess=(self.xp.clip(lo - q, 0, None) + self.xp.clip(q - hi, 0, None)).sum(1),
            torque_share=torque / self.effort, action=self.actions[0],
            last_action=self.actions[1], before_last_action=self.actions[2],
            goal=self.flags * self.shaper.goal, heading_error=self._heading_error(v), acceleration=acceleration,
            torque=torque, kp=self.kp, speed_excess=self.xp.clip(abs(dq) - self.max_speed, 0, None).sum(1),
            target_error=applied - q, knee_bend=(q[:, [3, 9]] - lo[[3, 9]]) / (hi - lo)[[3, 9]], air_s=landed_s,
            foot_force=self._foot_force(), nominal_m=self.robot.nominal_height_m, **self._support(),
        )  # fmt: skip

    def _heading_error(self, velocity: np.ndarray) -> np.ndarray:
        """Follow the motions of all worlds; return what each that ends now misses of its heading (J_dir), rad."""
        asked = self.flags.any(1)
        begins = asked & ~self.in_motion
        self.heading_from = self.xp.where(begins, self.yaw, self.heading_from + self.shaper.v_ref[:, 2] * STEP_S)
        settled = (self.xp.hypot(velocity[:, 0], velocity[:, 1]) < 0.1) & (abs(self.yaw_rate) < 0.1)
        ends = self.in_motion & ~asked & settled & ~self.shaper.moving
        self.in_motion = (self.in_motion | asked) & ~ends
        error = self.yaw - self.heading_from
        return self.xp.where(ends, self.xp.arctan2(self.xp.sin(error), self.xp.cos(error)), 0.0)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Return actor (n, frames * width) and critic observations, float32. Once per step: a filter advances."""
        noisy = self._with_noise if self.training else lambda name, x: x
        feet, feet_vel = self.legs.feet(self.qpos[:, 7:19], self.qvel[:, 6:18])
        fresh = self.age == 0
        gyro, gravity = self.xp.copy(self.qvel[:, 3:6]), self.gravity
        velocity = self.xp.where(
            fresh[:, None], 0.0, base_velocity(feet, feet_vel, gyro, gravity, self.odometry.config.level_m)
        )
        q, dq = self.xp.copy(self.qpos[:, 7:]), self.xp.copy(self.qvel[:, 6:])
        height = self.xp.where(fresh, self.shaper.height_ref, pelvis_height(feet, gravity))[:, None]
        now = {"base_velocity": velocity, "height": height, "gyro": gyro, "gravity": gravity, "q": q, "dq": dq}
        now |= self._rarely_measured(fresh)
        late = (self.lagged & ~fresh)[:, None]
        seen = {name: self.xp.where(late, self.measured.get(name, value), value) for name, value in now.items()}
        self.measured = now
        seen = {name: noisy(name, value) for name, value in seen.items()}
        missing_m = self.shaper.height_ref - seen.pop("height")[:, 0]
        self.odometry.step(seen.pop("base_velocity"), seen["gyro"], seen["gravity"], self.shaper.v_ref, missing_m)
        self.disturbed = is_disturbed(self.odometry, seen["gravity"])
        self.pushed = is_pushed(self.odometry, self.shaper.v_ref)
        terms = {
            "flags": self.flags,
            "v_ref": self.odometry.steer(self.shaper.v_ref),
            "height_ref": self.odometry.raised(self.shaper.height_ref)[:, None],
            "base_velocity": self.odometry.velocity,
            "pose_error": self.odometry.error,
            **seen,
            "last_action": self.actions[0],
            "clock": self.shaper.clock(),
        }
        if self.latent is not None:
            height = self.shaper.height_ref - self.robot.nominal_height_m
            ahead = self.xp.where(self.quiet[:, None], self.held, self.arms.ahead)
            terms["latent"] = self.latent.step(self.latent.encode(ahead, self.shaper.v_ref, height))
        actor = actor_observation(terms, self.robot.nominal_height_m, self.default, self.config.terms)
        feet = [self.sensor(f"{s}_foot_pos") for s in ("left", "right")]
        foot_z = self.xp.stack([p[:, 2] - self.ground(p[:, :2]) for p in feet], 1)
        truth = self.xp.concatenate(
            [
                self.in_heading_frame(self.qvel[:, :3]),
                (self.height_above_ground[:, None] - self.robot.nominal_height_m) * 5,
                foot_z < CONTACT_M, foot_z * 5, self.yaw_rate[:, None], self.misplaced * 5, self.level[:, None],
                self._body, self.delayed[:, None], self.lagged[:, None], self._felt(),
            ], axis=1,
        )  # fmt: skip
        critic = self.xp.asarray(self.xp.concatenate([actor, truth], axis=1), dtype=np.float32)
        return self.history.push(actor, fresh), critic

    def _felt(self) -> np.ndarray:
        """Return the forces of the moment, about 1 each: on the hands; shove ahead, aside, about z."""
        hands = self._hand_force()
        shove = self.in_heading_frame(self.disturbance.shoves())
        return self.xp.concatenate([hands[:, None] / 50, shove * self.xp.array([0.01, 0.01, 0.04])], axis=1)

    def _rarely_measured(self, fresh: np.ndarray) -> dict[str, np.ndarray]:
        """Return the sensors that only some recipes read."""
        out = {}
        if "quaternion" in self.config.terms:
            out["quaternion"] = self.xp.copy(self.qpos[:, 3:7])
        if "accelerometer" in self.config.terms:  # mean over the step
            velocity = self.qvel[:, :3]
            world = self.xp.where(fresh[:, None], 0.0, velocity - self.last_velocity) / STEP_S
            self.last_velocity = self.xp.copy(velocity)
            out["accelerometer"] = in_pelvis_frame(self.qpos[:, 3:7], world + self.xp.array([0.0, 0.0, 9.81]))
        if "foot_contacts" in self.config.terms:
            ahead = self.xp.array(self.robot.foot_corners)[:, 0] > self.robot.foot_site[0]
            heights = self._corner_heights()
            ends = [self.xp.amin(heights[:, :, which], axis=2) for which in (~ahead, ahead)]
            out["foot_contacts"] = self.xp.asarray(
                self.xp.stack(ends, axis=2).reshape(self.n, 4) < CONTACT_M, dtype=float
            )
        return out

    def _with_noise(self, name: str, x: np.ndarray) -> np.ndarray:
        return x + NOISE[name] * self.rng.uniform(-1, 1, x.shape)

    def worlds(self) -> dict[str, np.ndarray]:
        """Return everything that the next step depends on, besides the policy, the random state and the curriculum."""
        arrays = {name: getattr(self, name) for name in WORLD}
        for part, names in self.parts.items():
            arrays |= {f"{part}.{name}": getattr(getattr(self, part), name) for name in names}
        return arrays | {f"measured.{name}": value for name, value in self.measured.items()}

    def set_worlds(self, arrays: dict[str, np.ndarray]) -> None:
        """Put the worlds where `worlds` found them. Raises ValueError if these are not this engine's worlds."""
        for name, now in self.worlds().items():
            if name not in arrays or arrays[name].shape != now.shape:
                raise ValueError(f"worlds: {name} is missing or of another shape, expected {now.shape}")
        for name in WORLD:
            setattr(self, name, arrays[name])
        for part, names in self.parts.items():
            for name in names:
                setattr(getattr(self, part), name, arrays[f"{part}.{name}"])
        self.measured = {name: arrays[f"measured.{name}"] for name in self.measured}

    def mirror_critic(self, actor: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Extend the mirror (index, sign) of one actor frame to the critic observation."""
        index, sign = actor
        # velocity, height, contacts, foot heights, yaw rate, misplaced, level; friction, torso, hands, lags, forces
        extra = np.array([0, 1, 2, 3, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 16, 15, 17, 18, 19, 20, 21, 22])
        signs = [1, -1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1]
        return np.concatenate([index, len(index) + extra]), np.concatenate([sign, signs])
