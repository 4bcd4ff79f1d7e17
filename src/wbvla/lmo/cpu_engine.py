"""The legs' task on native MuJoCo: batches stepped by `mujoco.rollout` on CPU threads.

In: controls and applied forces of n worlds. Out: their states and sensors, 20 ms later.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco import rollout

from wbvla.lmo.task import LegsTask


class Diverged(Exception):
    """The physics of a world gave a number that is none.

    Attributes:
        model: the world's compiled model. state: (nstate,) full physics state before the step.
        control: (steps, nu + nv) actuator controls and applied forces of the step.
    """

    def __init__(self, world: int, model: mujoco.MjModel, state: np.ndarray, control: np.ndarray) -> None:
        super().__init__(f"the physics of world {world} diverged")
        self.model, self.state, self.control = model, state, control


class CpuEngine(LegsTask):
    """The task's worlds on this machine's CPU."""

    def _build(self, seed: int, threads: int) -> None:
        """Make the random generator, the models and the arrays of the physics."""
        config, worlds, training = self.config, self.n, self.training
        self.rng = np.random.default_rng(seed)
        self.models = self._variants(self.rng if training else None)
        m = self.model = self.models[0]
        self.model_of_world = [self.models[i % len(self.models)] for i in range(worlds)]
        self.datas = [mujoco.MjData(m) for _ in range(threads)]
        self.pool = rollout.Rollout(nthread=threads)
        self.pool.__enter__()
        self.nq, self.nv, self.nu = m.nq, m.nv, m.nu
        size = mujoco.mj_stateSize(m, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self.state = np.zeros((worlds, size))
        self._states = np.zeros((worlds, config.substeps, size))
        self._sensors = np.zeros((worlds, config.substeps, m.nsensordata))
        self._control = np.zeros((worlds, config.substeps, m.nu + m.nv))
        self._sensor_slice = {
            m.sensor(i).name: slice(m.sensor_adr[i], m.sensor_adr[i] + m.sensor_dim[i]) for i in range(m.nsensor)
        }

    def set_harness(self, strength: float) -> None:
        """Set the assist forces, 0 to 1; rotational damping is implicit (an explicit torque explodes)."""
        self.harness = strength
        for model in self.models:
            model.dof_damping[3:5], model.dof_damping[5] = 40.0 * strength, 5.0 * strength

    def _physics(self) -> None:
        if self.actuator is None:
            self._rollout(self._control, self._states, self._sensors)
            return
        # The network is asked before every physics step: torques held for 20 ms would shake the stiff joints.
        state, sensors = np.zeros_like(self._states[:, :1]), np.zeros_like(self._sensors[:, :1])
        for i in range(self.config.substeps):
            control = self._control[:, i : i + 1].copy()
            targets = control[:, 0, : self.nu]
            control[:, 0, : self.nu] = self.actuator.step(targets - self.qpos[:, 7:], self.qvel[:, 6:])
            self._rollout(control, state, sensors)
        self._states[:, -1], self._sensors[:, -1] = state[:, 0], sensors[:, 0]

    def _rollout(self, control: np.ndarray, states: np.ndarray, sensors: np.ndarray) -> None:
        """Advance `state` by the physics steps of a control (n, steps, nu + nv)."""
        spec = int(mujoco.mjtState.mjSTATE_CTRL) | int(mujoco.mjtState.mjSTATE_QFRC_APPLIED)
        self.pool.rollout(
            self.model_of_world, self.datas, self.state, control, control_spec=spec, state=states, sensordata=sensors,
            skip_checks=True, nstep=control.shape[1], chunk_size=max(1, self.n // 16),
        )  # fmt: skip
        if not np.isfinite(states[:, -1]).all():
            world = int(np.flatnonzero(~np.isfinite(states[:, -1]).all(1))[0])
            raise Diverged(world, self.model_of_world[world], self.state[world].copy(), control[world].copy())
        self.state[:] = states[:, -1]
