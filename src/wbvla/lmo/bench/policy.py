"""The policy under test: anybody's ONNX file, used as its contract says, for n robots at once.

In: commanded velocity and height, and what a robot measures. Out: joint targets in the robot's joint order.
Nothing that only a simulator knows can enter: the terms of wbvla.lmo.bench.interface are all there is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.lmo.bench.interface import Interface, Term, read_interface
from wbvla.lmo.command import CommandShaper, feedforward, is_disturbed, is_pushed
from wbvla.lmo.controller import open_session, weights_folder
from wbvla.lmo.odometry import LegKinematics, Odometry, base_velocity, pelvis_height
from wbvla.robots.base import Robot

BLOCK = 32  # rows of one inference: always the same, so that a world's numbers never depend on its batch


@dataclass(frozen=True)
class Measured:
    """What n robots measure: joints (n, J), gyroscope and unit gravity in the pelvis frame (n, 3)."""

    q: np.ndarray
    dq: np.ndarray
    gyro: np.ndarray
    gravity: np.ndarray


class Policy:
    """An ONNX file behind its interface. Raises ValueError with one line if they do not fit."""

    def __init__(self, onnx: Path, interface: Interface, robot: Robot) -> None:
        self.interface, self.robot = interface, robot
        self.sha256 = hashlib.sha256(onnx.read_bytes()).hexdigest()
        self.id = str(interface.contract.get("policy_id") or self.sha256[:16])
        self.network = Network(onnx, interface)
        self.legs = LegKinematics(robot)
        self.arms = slice(robot.n_lmo, robot.n_lmo + 14)

    def reset(self, n: int) -> None:
        """Begin an episode with n robots that stand."""
        i = self.interface
        self.shaper = CommandShaper(n, i.nominal_m, i.shaping)
        self.action, self.odometry = np.zeros((n, len(i.owned))), Odometry(n, i.odometry)
        self._history: np.ndarray | None = None
        self.network.reset(n)

    def act(self, command: np.ndarray, body: Measured) -> np.ndarray:
        """Return joint targets (n, J) rad; those of the arms are not the policy's to set.

        command: (n, 4) forward and lateral m/s, yaw rad/s, pelvis height m.
        """
        i, velocity = self.interface, command[:, :3]
        flags = np.sign(velocity)
        self.shaper.goal = np.where(flags != 0, np.abs(velocity), self.shaper.goal)
        height = np.clip(command[:, 3], *i.height_range)
        feet = self.legs.feet(body.q[:, :12], body.dq[:, :12])
        sample = base_velocity(*feet, body.gyro, body.gravity, i.odometry.level_m)
        v_ref, height_ref = (self.shaper.v_ref, self.shaper.height_ref) if i.shaped else (velocity, height)
        missing_m = height_ref - pelvis_height(feet[0], body.gravity)
        self.odometry.step(sample, body.gyro, body.gravity, v_ref, missing_m)
        values = self._values(velocity, flags, height, body)
        frame = np.concatenate([_scaled(t, values[t.name](t)) for t in i.terms], axis=1, dtype=np.float32)
        self.action = np.clip(self.network(self._stack(frame)), -i.action_clip, i.action_clip)
        pushed = is_pushed(self.odometry, v_ref)
        self.shaper.step(flags, height, is_disturbed(self.odometry, body.gravity), pushed)
        target = np.tile(i.default, (len(command), 1))
        target[:, i.owned] += i.action_scale * self.action
        if i.feedforward:
            raised = self.odometry.raised(self.shaper.height_ref)
            target[:, :12] += feedforward(self.shaper.swing(), raised, i.nominal_m, *i.feedforward)
        return target

    def _values(self, velocity, flags, height, body: Measured) -> dict:
        """Return how to compute each term, (n, width) in SI units, before offset, clip and scale."""
        i, shaper, q, dq = self.interface, self.shaper, body.q, body.dq
        moving = (flags != 0).any(1)[:, None]
        if i.mask_arms:
            q, dq = q.copy(), dq.copy()
            q[:, self.arms], dq[:, self.arms] = i.default[self.arms], 0.0

        def clock(t: Term) -> np.ndarray:
            angle = 2 * np.pi * (shaper.phase[:, None] + t.offsets)
            x = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
            return x if t.at_rest is None else np.where(moving, x, t.at_rest)

        return {
            "flags": lambda t: flags,
            "v_ref": lambda t: self.odometry.steer(shaper.v_ref if i.shaped else velocity),
            "velocity_command": lambda t: velocity,
            "height_ref": lambda t: (
                self.odometry.raised(shaper.height_ref if i.shaped else height)[:, None] - i.nominal_m
            ),
            "height_command": lambda t: height[:, None],
            "standing": lambda t: 1.0 - moving,
            "base_velocity": lambda t: self.odometry.velocity,
            "pose_error": lambda t: self.odometry.error,
            "gyro": lambda t: body.gyro,
            "gravity": lambda t: body.gravity,
            "q": lambda t: (q - i.default)[:, t.joints],
            "q_rad": lambda t: q[:, t.joints],
            "dq": lambda t: dq[:, t.joints],
            "q_lmo": lambda t: (q - i.default)[:, i.owned],
            "dq_lmo": lambda t: dq[:, i.owned],
            "last_action": lambda t: self.action,
            "clock": clock,
            "constant": lambda t: np.tile(t.value, (len(flags), 1)),
        }

    def _stack(self, frame: np.ndarray) -> np.ndarray:
        """Append a frame to the history and return the network's input (n, frames * width)."""
        h = self.interface.history
        if h.frames == 1:
            return frame
        if self._history is None:  # (n, frames, width), oldest first
            past = frame if h.fill == "repeat" else np.zeros_like(frame)
            self._history = np.repeat(past[:, None], h.frames, axis=1)
        self._history = np.concatenate([self._history[:, 1:], frame[:, None]], axis=1)
        ordered = self._history[:, ::-1] if h.newest == "first" else self._history
        if h.layout == "frames":
            return ordered.reshape(len(frame), -1)
        cuts = np.cumsum([t.width for t in self.interface.terms])[:-1]
        return np.concatenate([part.reshape(len(frame), -1) for part in np.split(ordered, cuts, axis=2)], axis=1)


class Network:
    """The ONNX session: observation (n, width) in, actions (n, A) out; recurrent states are kept here."""

    def __init__(self, onnx: Path, interface: Interface) -> None:
        self.session, c = open_session(onnx), interface.contract
        inputs, outputs = ({x.name: x for x in of()} for of in (self.session.get_inputs, self.session.get_outputs))
        self.input = c.get("input", "observation" if "observation" in inputs else next(iter(inputs)))
        self.output = c.get("output", "action" if "action" in outputs else next(iter(outputs)))
        self.recurrent = c.get("recurrent", [])
        for kind, name, known in (("input", self.input, inputs), ("output", self.output, outputs)):
            if name not in known:
                raise interface.wrong(kind, name, f"one of {', '.join(known)}")
        for row in self.recurrent:
            if not isinstance(row, dict) or row.get("input") not in inputs or row.get("output") not in outputs:
                raise interface.wrong("recurrent", row, "objects with input, output, shape, batch_axis")
        batch = inputs[self.input].shape[0] if inputs[self.input].shape else None
        self.block = batch if isinstance(batch, int) else BLOCK
        self._try(onnx, interface)

    def _try(self, onnx: Path, interface: Interface) -> None:
        """Run once, to find out now whether the widths fit."""
        try:
            self.reset(self.block)
            action = self(np.zeros((self.block, interface.width), np.float32))
        except Exception as error:  # onnxruntime has exception classes of its own
            why = " ".join(str(error).split())[:200]
            raise interface.wrong("observation", f"{interface.width} numbers", f"what {onnx} takes ({why})") from None
        if action.shape[1] != len(interface.owned):
            raise interface.wrong(
                "owned_by_lmo", f"{len(interface.owned)} joints", f"{action.shape[1]}, the actions of {onnx}"
            )

    def reset(self, n: int) -> None:
        """Forget: states of n robots to zero."""
        self.memory = []
        for row in self.recurrent:
            shape = list(row["shape"])
            del shape[row.get("batch_axis", 0)]
            self.memory.append(np.zeros([n, *shape], np.float32))

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Return actions (n, A) float64, inferred in blocks of one size of which the last is padded."""
        n, parts = len(observation), []
        names = [self.output, *(row["output"] for row in self.recurrent)]
        for at in range(0, n, self.block):
            feed = {self.input: self._padded(observation, at)}
            for row, memory in zip(self.recurrent, self.memory):
                feed[row["input"]] = np.moveaxis(self._padded(memory, at), 0, row.get("batch_axis", 0))
            action, *states = self.session.run(names, feed)
            parts.append(action.reshape(self.block, -1)[: n - at])
            for row, memory, new in zip(self.recurrent, self.memory, states):
                memory[at : at + self.block] = np.moveaxis(new, row.get("batch_axis", 0), 0)[: n - at]
        return np.concatenate(parts).astype(float)

    def _padded(self, x: np.ndarray, at: int) -> np.ndarray:
        part = x[at : at + self.block]
        return np.concatenate([part, np.zeros((self.block - len(part), *x.shape[1:]), x.dtype)])


def open_policy(policy: str, contract: str, robot: Robot) -> Policy:
    """Open FILE.onnx with its contract, a folder that holds both, or with "" the shipped legs."""
    onnx = Path(policy) if policy else weights_folder(robot.name)
    if onnx.is_dir():
        onnx = onnx / "policy.onnx"
    if not onnx.is_file():
        raise ValueError(f"no policy at {onnx}: expected an ONNX file, or a folder with policy.onnx and contract.json")
    interface = read_interface(Path(contract) if contract else onnx.parent / "contract.json", robot)
    return Policy(onnx, interface, robot)


def _scaled(t: Term, value: np.ndarray) -> np.ndarray:
    return np.clip(value[:, t.entries] - t.offset, -t.clip, t.clip) * t.scale
