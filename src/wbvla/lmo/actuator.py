"""A network of the joints' drives: what a joint did and was told lately in; its torque out. Numpy or torch arrays.

After Hwangbo et al. (Science Robotics, 2019): position error and velocity, now and a few samples back, through a small
network for each kind of joint. Fitted by wbvla.lmo.actuator_fit; the training engines plug it in instead of the PD.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wbvla.contract import load_contract, save_contract
from wbvla.lmo.arrays import namespace
from wbvla.lmo.command import STEP_S

KIND = "lmo-actuator"


def joint_types(joints: tuple[str, ...]) -> list[str]:
    """Return each joint's type: its name without the side, since left and right have the same motor and gear."""
    return [joint.removeprefix("left_").removeprefix("right_") for joint in joints]


@dataclass(frozen=True)
class ActuatorNet:
    """Networks of all joints, one for each joint type.

    Attributes:
        joints: names, in the order of every array (J).
        rate_hz: samples a second, a multiple of 50; physics must step at it. history: samples that the network sees, H.
        layers: (weight (K, in, out), bias (K, 1, out)) float32 for K joint types in order of appearance. Inputs are H
            position errors (target - q, rad), newest first, then H velocities (rad/s); the output is N m. Softsign
            between layers; scales are part of the first and the last layer.
    """

    joints: tuple[str, ...]
    rate_hz: float
    history: int
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __post_init__(self) -> None:
        types = joint_types(self.joints)
        order = list(dict.fromkeys(types))
        index = [order.index(kind) for kind in types]
        object.__setattr__(self, "_by_joint", [(weight[index], bias[index]) for weight, bias in self.layers])

    def torque(self, error: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return torques (n, J), N m. error, velocity: (n, J, H), rad and rad/s, newest first."""
        xp = namespace(error)
        x = xp.asarray(xp.concatenate([error, velocity], axis=2), dtype=np.float32)
        x = x.swapaxes(0, 1)  # one matrix product a joint
        *hidden, (weight, bias) = self._by_joint
        for w, b in hidden:
            x = x @ w + b
            x /= 1 + abs(x)
        return xp.asarray((x @ weight + bias)[:, :, 0].T, dtype=float)

    def save(self, folder: Path, facts: dict) -> None:
        """Write actuator.safetensors and actuator.json; `facts` (scores, origin) go into the latter."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{i}.{k}": v for i, pair in enumerate(self.layers) for k, v in zip(("weight", "bias"), pair)}
        save_file(tensors, folder / "actuator.safetensors.tmp")
        os.replace(folder / "actuator.safetensors.tmp", folder / "actuator.safetensors")
        shape = {"joints": list(self.joints), "rate_hz": self.rate_hz, "history": self.history}
        save_contract(
            folder / "actuator.json", {"kind": KIND, "version": 1, "layers": len(self.layers), **shape, **facts}
        )

    @classmethod
    def load(cls, folder: str | Path, joints: tuple[str, ...]) -> ActuatorNet:
        """Read a network of these joints. Raises ValueError in one line if there is none or it does not fit."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        contract = load_contract(folder / "actuator.json", KIND)
        got = tuple(contract.get("joints", ()))
        if got != tuple(joints):
            raise ValueError(
                f"{folder}: got a network of {len(got)} joints ({', '.join(got[:2])}, ...), expected {len(joints)} "
                f"({', '.join(joints[:2])}, ...); fit one with `wbvla lmo actuator` for this robot"
            )
        try:
            tensors = load_file(folder / "actuator.safetensors")
            layers = tuple((tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(contract["layers"]))
            net = cls(got, float(contract["rate_hz"]), int(contract["history"]), layers)
            net.torque(*np.zeros((2, 1, len(got), net.history)))
        except (SafetensorError, OSError, KeyError, IndexError, ValueError, TypeError):
            raise ValueError(
                f"{folder}: actuator.safetensors is missing or does not fit actuator.json, expected the two files of "
                "one fit; copy the folder again"
            ) from None
        return net


class ActuatorState:
    """The recent past of n worlds' joints, which is all that the network's drives remember."""

    STATE = ("error", "velocity", "fresh")

    def __init__(self, net: ActuatorNet, n: int, xp=np) -> None:
        self.xp, shape = xp, (n, len(net.joints), net.history)
        self.net = replace(net, layers=tuple((xp.array(weight), xp.array(bias)) for weight, bias in net.layers))
        self.error, self.velocity = xp.zeros(shape, np.float32), xp.zeros(shape, np.float32)
        self.fresh = xp.ones(n, bool)

    @property
    def substeps(self) -> int:
        """Physics steps in a control step of 20 ms."""
        return round(self.net.rate_hz * STEP_S)

    def reset(self, mask: np.ndarray) -> None:
        """Forget the past of the masked worlds: their first sample stands for it."""
        self.fresh[mask] = True

    def step(self, error: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Take one sample, 1 / rate_hz after the last; return torques (n, J), N m.

        error: (n, J) target - q, rad; velocity: (n, J) rad/s.
        """
        for past, now in ((self.error, error), (self.velocity, velocity)):
            past[:, :, 1:] = self.xp.copy(past[:, :, :-1])
            past[:, :, 0] = now
            past[self.fresh] = now[self.fresh, :, None]
        self.fresh[:] = False
        return self.net.torque(self.error, self.velocity)


def use_torque(model, kp: np.ndarray) -> None:
    """Turn a MuJoCo model's position actuators into torque motors, in place; torque limits stay.

    kp: (J,) nominal gains. A gain that randomisation changed becomes the same change of the motor's strength.
    """
    model.actuator_gainprm[:, 0] /= kp
    model.actuator_biasprm[:] = 0.0
