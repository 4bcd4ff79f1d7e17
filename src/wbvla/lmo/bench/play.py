"""Run plans: plant, policy and plans in; a `Trace` of everything the figures need out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wbvla.lmo.bench.draw import Plan
from wbvla.lmo.bench.plant import Plant
from wbvla.lmo.bench.policy import Measured, Policy

FALL_TILT = -0.7  # gravity's z in the pelvis frame: 45 degrees
FALL_BELOW_M = 0.15  # pelvis below the lowest command


@dataclass
class Trace:
    """What happened to n worlds in T steps of 20 ms; arrays (T, n, ...), state after each step.

    Attributes:
        command: m/s, m/s, rad/s, m as commanded in that step.
        pose: x, y of the pelvis (m, world) and heading (rad, unwrapped). height: of the pelvis, m.
        velocity: forward, lateral m/s in the heading frame, yaw rad/s.
        com: horizontal centre of mass, m, world.
        torque: largest |torque| over limit among legs and waist joints during the step.
        foot_force: largest ground force of each foot during the step, N, (T, n, 2). foot_speed: horizontal, m/s.
        power: mechanical power of legs and waist, sum of |torque x speed|, W.
        jitter: RMS second difference of the legs' and waist's targets, rad.
        alive: not fallen up to and including that step. start: (n, 3) pose before the first step.
        weight_n: of the nominal robot.
    """

    command: np.ndarray
    pose: np.ndarray
    height: np.ndarray
    velocity: np.ndarray
    com: np.ndarray
    torque: np.ndarray
    foot_force: np.ndarray
    foot_speed: np.ndarray
    power: np.ndarray
    jitter: np.ndarray
    alive: np.ndarray
    start: np.ndarray
    weight_n: float

    @classmethod
    def empty(cls, steps: int, n: int, weight_n: float) -> Trace:
        """Allocate a trace, each world's numbers side by side: then sums round alike in a batch of any size."""
        new = lambda *width, kind=np.float32: np.zeros((*reversed(width), n, steps), kind).T  # noqa: E731
        return cls(
            command=new(4), pose=new(3, kind=float), height=new(), velocity=new(3), com=new(2, kind=float),
            torque=new(), foot_force=new(2), foot_speed=new(2), power=new(), jitter=new(),
            alive=new(kind=bool), start=np.zeros((n, 3)), weight_n=weight_n,
        )  # fmt: skip

    @property
    def survived(self) -> np.ndarray:
        """Worlds that never fell, (n,)."""
        return self.alive[-1]


class Guide(Protocol):
    """Commands that depend on where the robot is."""

    def step(self, pose: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Return the command (n, 4) for poses (n, 3): x, y, unwrapped heading in the world; alive: not fallen, (n,)."""

    def figures(self) -> dict[str, np.ndarray]:
        """Return what it saw, (n,) each."""


def play(plant: Plant, policy: Policy, plans: list[Plan], guide: Guide | None = None,
         advance: Callable[[int], None] = lambda n: None) -> Trace:  # fmt: skip
    """Run the plans side by side, all of one length. A world ends when its robot falls."""
    n, steps, robot = len(plans), len(plans[0].command), plant.robot
    lmo, arms = slice(0, robot.n_lmo), slice(robot.n_lmo, robot.n_lmo + 14)
    _place(plant, plans)
    policy.reset(n)
    trace = Trace.empty(steps, n, plant.weight_n)
    alive, yaw = np.ones(n, bool), plant.yaw.copy()
    trace.start[:] = np.column_stack([plant.qpos[:, :2], yaw])
    delayed = np.array([p.delayed for p in plans])
    held = np.stack([p.q for p in plans])
    earlier, fall_height = [held, held], robot.height_range_m[0] - FALL_BELOW_M
    for t in range(steps):
        pose = np.column_stack([plant.qpos[:, :2], yaw])
        command = guide.step(pose, alive) if guide else np.stack([p.command[t] for p in plans])
        targets = policy.act(command, _measure(plant, plans, t))
        targets[:, arms] = [p.arms[t] for p in plans]
        jitter = np.sqrt(((targets - 2 * earlier[0] + earlier[1])[:, lmo] ** 2).mean(1))
        push = _disturb(plant, plans, t)
        alive &= ~plant.step(np.where(delayed[:, None], earlier[0], targets), push, alive)
        earlier = [targets, earlier[0]]
        alive &= (plant.gravity[:, 2] < FALL_TILT) & (plant.qpos[:, 2] > fall_height)
        yaw = yaw + (plant.yaw - yaw + np.pi) % (2 * np.pi) - np.pi
        trace.command[t], trace.jitter[t], trace.alive[t] = command, jitter, alive
        _record(trace, t, plant, yaw)
        advance(n)
    return trace


def _place(plant: Plant, plans: list[Plan]) -> None:
    q, quat = np.stack([p.q for p in plans]), np.stack([p.quat for p in plans])
    qpos = np.zeros((len(plans), plant.nq))
    qpos[:, 3:7], qpos[:, 7:] = quat, q
    qpos[:, 2] = [plant.standing_height(row) for row in qpos]
    plant.start([p.body for p in plans], qpos, np.stack([p.qvel for p in plans]))


def _measure(plant: Plant, plans: list[Plan], t: int) -> Measured:
    """Return what the robots' sensors say, with noise where the plan has some."""
    joints = plant.nu
    body = np.concatenate([plant.qpos[:, 7:], plant.qvel[:, 6:], plant.qvel[:, 3:6], plant.gravity], axis=1)
    for i, p in enumerate(plans):
        if p.noise is not None:
            body[i] += p.noise[t]
    cuts = [joints, 2 * joints, 2 * joints + 3]
    return Measured(*np.split(body, cuts, axis=1))


def _disturb(plant: Plant, plans: list[Plan], t: int) -> np.ndarray:
    """Apply the jumps that are due and return the pushes (n, 3)."""
    push = np.zeros((len(plans), 3))
    for i, p in enumerate(plans):
        for step, dx, dy in p.jumps:
            if step == t:
                plant.qvel[i, :2] += (dx, dy)
        for one in p.pushes:
            push[i] += one.during(t) * np.array([one.fx, one.fy, one.torque])
    return push


def _record(trace: Trace, t: int, plant: Plant, yaw: np.ndarray) -> None:
    robot = plant.robot
    velocity, c, s = plant.qvel[:, :2], np.cos(yaw), np.sin(yaw)
    trace.pose[t] = np.column_stack([plant.qpos[:, :2], yaw])
    trace.height[t] = plant.qpos[:, 2]
    trace.velocity[t, :, 0] = c * velocity[:, 0] + s * velocity[:, 1]
    trace.velocity[t, :, 1] = -s * velocity[:, 0] + c * velocity[:, 1]
    trace.velocity[t, :, 2] = -(plant.qvel[:, 3:6] * plant.gravity).sum(1)
    trace.com[t] = plant.sensor("com")[:, -1, :2]
    torque = np.concatenate([plant.sensor(joint) for joint in robot.lmo_joints], axis=2)  # (n, substeps, n_lmo)
    trace.torque[t] = (np.abs(torque) / plant.effort[: robot.n_lmo]).max((1, 2))
    trace.power[t] = (np.abs(torque[:, -1] * plant.qvel[:, 6 : 6 + robot.n_lmo])).sum(1)
    for i, side in enumerate(("left", "right")):
        trace.foot_force[t, :, i] = plant.sensor(f"{side}_touch")[:, :, 0].max(1)
        trace.foot_speed[t, :, i] = np.linalg.norm(plant.sensor(f"{side}_velocity")[:, -1, :2], axis=1)
