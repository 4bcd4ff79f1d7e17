"""The simulated robots of every protocol, one model a world, stepped in batches by `mujoco.rollout`.

In: joint targets (n, J) and pushes on the torso (n, 3). Out: the state of n worlds and what the sensors felt.
Nobody is assisted here: actuators are PD within torque limits, arms hang free, gravity is not compensated.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco import rollout

from wbvla.lmo.bench.model import NOMINAL, PUSHED, Body, Physics, build_model, feet_geoms, variant
from wbvla.robots.base import Robot


class Plant:
    """Compiles the models and steps batches of worlds. Use as a context manager: it owns the threads.

    Args:
        kp, kd, effort: PD gains and torque limits in the robot's joint order, (J,).
    """

    def __init__(self, robot: Robot, physics: Physics, kp, kd, effort, threads: int = 2) -> None:
        self.robot, self.physics = robot, physics
        self.model = build_model(robot, physics, kp, kd, effort)
        self.effort = np.asarray(effort, float)
        self.weight_n = float(self.model.body_subtreemass[1]) * 9.81
        m = self.model
        self.nq, self.nv, self.nu = m.nq, m.nv, m.nu
        self._size = mujoco.mj_stateSize(m, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._sensor_of = {
            m.sensor(i).name: slice(m.sensor_adr[i], m.sensor_adr[i] + m.sensor_dim[i]) for i in range(m.nsensor)
        }
        self._feet = feet_geoms(m)
        self._push = 6 * m.body(PUSHED).id + np.array([0, 1, 5])
        self._datas = [mujoco.MjData(m) for _ in range(max(1, threads))]
        self._pool = rollout.Rollout(nthread=max(1, threads))

    def __enter__(self) -> Plant:
        self._pool.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.__exit__(*exc)

    def start(self, bodies: list[Body], qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Begin an episode in n worlds. qpos: (n, nq), qvel: (n, nv)."""
        n, m = len(bodies), self.model
        self.models = [m if body is NOMINAL else variant(self.robot, m, body, self._datas[0]) for body in bodies]
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
