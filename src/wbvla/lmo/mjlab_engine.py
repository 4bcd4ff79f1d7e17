"""The legs' task on MuJoCo-Warp, over torch tensors, on mjlab's simulation.

In: actions (n, n_lmo), tensors. Out: observations, rewards, terminations of n worlds on one device, 20 ms at a time.
Every world has a model variant, written into per-world fields of the simulation's model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from wbvla.lmo.command import STEP_S
from wbvla.lmo.cpu_engine import Diverged
from wbvla.lmo.randomisation import on_ground_spec
from wbvla.lmo.task import LegsTask
from wbvla.lmo.torch_arrays import TorchArrays, TorchRandom
from wbvla.recipes.lmo import LmoConfig
from wbvla.robots.base import Robot

if TYPE_CHECKING:  # mjlab imports our tasks, and they this module, when it is imported first
    from mjlab.sim import Simulation, SimulationCfg

# What differs between model variants, with what MuJoCo derives from it, and the damping that the harness sets.
PER_WORLD = (
    "geom_friction", "geom_solref", "geom_pos", "body_mass", "body_ipos", "actuator_gainprm", "actuator_biasprm",
    "body_subtreemass", "dof_invweight0", "body_invweight0", "actuator_acc0", "dof_damping",
)  # fmt: skip
CONTACTS = {"feet": 16, "full": 48}  # room for each world: 8 foot spheres, and links that touch
ROWS = 6  # of constraints for each contact: 4 of its own, and room for the joints' limits


def simulation_config(config: LmoConfig) -> SimulationCfg:
    """Return mjlab's configuration of the physics that `on_ground_spec` sets for the CPU engine."""
    from mjlab.sim import MujocoCfg, SimulationCfg

    physics = MujocoCfg(
        timestep=config.physics_s, iterations=10, ls_iterations=20, integrator="implicitfast", cone="pyramidal"
    )
    contacts = CONTACTS[config.collisions]
    return SimulationCfg(nconmax=contacts, njmax=ROWS * contacts, mujoco=physics)


class MjlabEngine(LegsTask):
    """n worlds of one robot on flat ground, on the first GPU, or on the CPU where there is none.

    Args:
        simulation: mjlab's, of a model that `on_ground_spec` describes; a new one when left out.

    Raises:
        ValueError: the recipe asks for uneven ground, which MuJoCo-Warp cannot give each world its own of.
    """

    def __init__(
        self, robot: Robot, config: LmoConfig, worlds: int, seed: int, simulation: Simulation | None = None
    ) -> None:
        if config.roughness_m:
            raise ValueError(f"recipe: got roughness_m {config.roughness_m}, expected 0 on the mjlab engine; use cpu")
        self.sim = simulation
        device = simulation.device if simulation else "cuda:0" if torch.cuda.is_available() else "cpu"
        self.xp = TorchArrays(device)
        super().__init__(robot, config, worlds, seed)

    def _build(self, seed: int, threads: int) -> None:
        from mjlab.sim import Simulation

        self.models, xp = self._variants(np.random.default_rng(seed)), self.xp
        m = self.model = self.models[0]
        if self.sim is None:
            spec, device = on_ground_spec(self.robot, self.config), str(xp.device)
            self.sim = Simulation(self.n, simulation_config(self.config), spec=spec, device=device)
        self.rng = TorchRandom(seed, xp.device)
        self.model_of_world = [self.models[i % len(self.models)] for i in range(self.n)]
        variant = xp.arange(self.n) % len(self.models)
        self.sim.expand_model_fields(PER_WORLD)
        for name in PER_WORLD:
            field, values = getattr(self.sim.model, name), np.stack([getattr(v, name) for v in self.models])
            field[:] = xp.asarray(values)[variant].reshape(field.shape)
        self.nq, self.nv, self.nu = m.nq, m.nv, m.nu
        self.state = xp.zeros((self.n, 1 + m.nq + m.nv))  # time, positions, velocities
        self._sensors = xp.zeros((self.n, 1, m.nsensordata))
        self._control = xp.zeros((self.n, 1, m.nu + m.nv))  # held for all physics steps
        self._sensor_slice = {
            m.sensor(i).name: slice(m.sensor_adr[i], m.sensor_adr[i] + m.sensor_dim[i]) for i in range(m.nsensor)
        }

    def set_harness(self, strength: float) -> None:
        """Set the assist forces, 0 to 1; rotational damping is implicit (see `push`)."""
        self.harness = strength
        self.sim.model.dof_damping[:, 3:6] = strength * self.xp.array([40.0, 40.0, 5.0])

    def write(self) -> None:
        """Give the simulation the worlds' states."""
        self.sim.data.qpos[:] = self.qpos
        self.sim.data.qvel[:] = self.qvel

    def push(self) -> None:
        """Give the simulation controls and applied forces; before every physics step.

        MuJoCo-Warp counts the damping of a floating base's single directions in its implicit integration, but not as
        a force: that is added here.
        """
        data, control = self.sim.data, self._control[:, 0, : self.nu]
        if self.actuator is not None:
            control = self.actuator.step(control - data.qpos[:, 7:], data.qvel[:, 6:])
        data.ctrl[:] = control
        data.qfrc_applied[:] = self._control[:, 0, self.nu :]
        if self.harness > 0:
            data.qfrc_applied[:, 3:6] -= self.sim.model.dof_damping[:, 3:6] * data.qvel[:, 3:6]

    def read(self) -> None:
        """Take states and sensors from the simulation. Raises Diverged if a number of them is none."""
        data = self.sim.data
        state = torch.cat([self.state[:, :1] + STEP_S, data.qpos[:], data.qvel[:]], dim=1)
        bad = ~torch.isfinite(state).all(1)
        if bad.any():
            world = int(bad.nonzero()[0])
            control = self._control[world].repeat(self.config.substeps, 1).cpu().numpy()
            raise Diverged(world, self.model_of_world[world], self.state[world].cpu().numpy(), control)
        self.state[:], self._sensors[:, 0] = state, data.sensordata[:]

    def _physics(self) -> None:
        self.write()
        for _ in range(self.config.substeps):
            self.push()
            self.sim.step()
        self.read()
