"""The whole body at 50 Hz: arm targets and a ternary command in, one tick of physics out.

In: ArmTarget, LocoCommand. Out: the plant moved by 20 ms, `applied` = the 20-D action that really acted.
The legs' targets act a fixed number of ticks late, as on a robot; arms and grippers are limited in range and rate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from wbvla.sim.plant import TICK_S, Plant
from wbvla.types import ArmTarget, LocoCommand, WholeBodyAction

ARM_RATE_RAD_S = 3.0


class WholeBodySim:
    """Legs' controller, arm limits and plant behind one `tick`.

    Args:
        plant: the simulated body.
        controller: has reset() and step(LocoCommand, Proprioception) -> (n_lmo,) rad, called at exactly 50 Hz.
        control_delay_steps: ticks between the legs' decision and its effect.
    """

    def __init__(self, plant: Plant, controller, control_delay_steps: int = 1) -> None:
        self.plant, self.controller = plant, controller
        self._delay = control_delay_steps
        robot = plant.robot
        self._default = robot.array("default")
        self._legs, self._upper = slice(0, robot.n_lmo), slice(robot.n_lmo, len(robot.joints))
        self._upper_range = robot.range_rad[self._upper]
        self.reset()

    def reset(self) -> None:
        """Forget the past: standing command, default arms, legs' delay line filled with the default pose."""
        self.controller.reset()
        self._line = deque([self._default[self._legs]] * self._delay)
        self._upper_target = self._default[self._upper].copy()
        robot = self.plant.robot
        self.last = WholeBodyAction(robot.arm_target(self._upper_target), LocoCommand(height_m=robot.nominal_height_m))

    @property
    def applied(self) -> np.ndarray:
        """The 20-D action that acted in the last tick, after limits, float32."""
        return self.last.to_vector()

    def tick(self, arms: ArmTarget, loco: LocoCommand) -> None:
        """Advance 20 ms under an arm target (reached at most at 3 rad/s) and a locomotion command."""
        step = ARM_RATE_RAD_S * TICK_S
        robot = self.plant.robot
        wanted = np.clip(robot.upper_rad(arms), self._upper_range[:, 0], self._upper_range[:, 1])
        self._upper_target += np.clip(wanted - self._upper_target, -step, step)
        loco = replace(loco, height_m=float(np.clip(loco.height_m, *robot.height_range_m)))
        self._line.append(np.asarray(self.controller.step(loco, self.plant.proprioception())))
        targets = self._default.copy()
        targets[self._legs] = self._line.popleft()
        targets[self._upper] = self._upper_target
        self.plant.apply(targets)
        self.plant.tick()
        self.last = WholeBodyAction(robot.arm_target(self._upper_target), loco)
