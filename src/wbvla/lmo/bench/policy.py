"""The policy under test: anybody's ONNX file, read as its contract says (docs/lmo_contract.md), for n robots at once.

In: commanded velocity and height, and what a robot measures. Out: joint targets in the robot's joint order.
Nothing that only a simulator knows can enter: the terms below are all there is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.contract import load_contract
from wbvla.lmo.command import STEP_S, CommandShaper, ShapingConfig, feedforward
from wbvla.lmo.controller import open_session, weights_folder
from wbvla.lmo.observation import MAX_DQ
from wbvla.lmo.odometry import LegKinematics, base_velocity
from wbvla.robots.base import Robot

# Width of each observation term; None = one per joint that the term lists, "actions" = one per action, 0 = any.
TERMS = {
    "flags": 3, "v_ref": 3, "velocity_command": 3, "height_ref": 1, "height_command": 1, "standing": 1,
    "base_velocity": 3, "gyro": 3, "gravity": 3, "q": None, "q_rad": None, "dq": None, "last_action": "actions",
    "clock": 0, "constant": 0,
}  # fmt: skip
HEIGHT_TERMS = {"height_ref", "height_command"}
BLOCK = 32  # rows of one inference: always the same, so that a world's numbers never depend on its batch
REQUIRED = (
    *("robot", "rate_hz", "joints", "owned_by_lmo", "kp", "kd", "default_rad"),
    *("observation", "action_scale_rad", "nominal_height_m"),
)


@dataclass(frozen=True)
class Measured:
    """What n robots measure: joints (n, J), gyroscope and unit gravity in the pelvis frame (n, 3)."""

    q: np.ndarray
    dq: np.ndarray
    gyro: np.ndarray
    gravity: np.ndarray


@dataclass(frozen=True)
class Term:
    """One piece of the observation: clip(value - offset) * scale. `joints` are indices into the robot's order."""

    name: str
    width: int
    scale: np.ndarray
    offset: np.ndarray
    clip: float
    joints: np.ndarray
    value: np.ndarray
    offsets: np.ndarray
    at_rest: np.ndarray | None


class Policy:
    """Opens a policy and checks it against its contract. Raises ValueError with one line that names the field."""

    def __init__(self, onnx: Path, contract: Path, robot: Robot) -> None:
        self.robot, self._where = robot, str(contract)
        self.contract = c = load_contract(contract, "lmo")
        missing = [key for key in REQUIRED if key not in c]
        if missing:
            raise self._wrong(missing[0], "nothing", "a value (docs/lmo_contract.md lists the fields)")
        if c["robot"] != robot.name:
            raise self._wrong("robot", c["robot"], f"{robot.name!r}, the robot of this run (--robot)")
        if c["rate_hz"] != round(1 / STEP_S):
            raise self._wrong("rate_hz", c["rate_hz"], f"{round(1 / STEP_S)}, the rate of the bench")
        self._read_joints()
        self._read_command()
        self.terms = [self._term(i, row) for i, row in enumerate(self._list("observation"))]
        self.follows_height = bool(HEIGHT_TERMS & {t.name for t in self.terms})
        self._read_history()
        self.id = c.get("policy_id") or hashlib.sha256(_bytes(onnx)).hexdigest()[:16]
        self.session = open_session(onnx)
        self._check_network(onnx)

    # What the contract says.
    def _wrong(self, field: str, got: object, expected: str) -> ValueError:
        return ValueError(f"contract {self._where}: {field}: got {got!r}, expected {expected}")

    def _list(self, field: str) -> list:
        value = self.contract[field]
        if not isinstance(value, list) or not value:
            raise self._wrong(field, value, "a list")
        return value

    def _numbers(self, field: str, value: object, n: int) -> np.ndarray:
        """Read a number or a list of n finite numbers as (n,)."""
        try:
            array = np.asarray(value, float)
        except (TypeError, ValueError):
            raise self._wrong(field, value, f"a number or {n} numbers") from None
        if array.shape not in ((), (n,)) or not np.isfinite(array).all():
            raise self._wrong(field, f"shape {array.shape}", f"a number or {n} finite numbers")
        return np.broadcast_to(array, (n,)).copy()

    def _indices(self, field: str, names: object) -> np.ndarray:
        """Return the robot's indices of joint names; Unitree's suffix _joint is accepted."""
        if not isinstance(names, list):
            raise self._wrong(field, names, "a list of joint names")
        plain = [str(name).removesuffix("_joint") for name in names]
        unknown = [name for name in plain if name not in self.robot.joints]
        if unknown or len(set(plain)) != len(plain):
            raise self._wrong(field, unknown[0] if unknown else "a joint twice", f"joints of robot {self.robot.name!r}")
        return np.array([self.robot.joints.index(name) for name in plain], int)

    def _read_joints(self) -> None:
        c, robot, count = self.contract, self.robot, len(self.robot.joints)
        order = self._indices("joints", c["joints"])
        if len(order) != count:
            raise self._wrong("joints", f"{len(order)} names", f"all {count} joints of robot {robot.name!r}")
        self._order = order
        in_robot_order = np.argsort(order)
        per_joint = lambda key, value: self._numbers(key, value, count)[in_robot_order]  # noqa: E731
        self.kp, self.kd = per_joint("kp", c["kp"]), per_joint("kd", c["kd"])
        self.default = per_joint("default_rad", c["default_rad"])
        limit = robot.array("effort")
        self.effort = np.minimum(limit, per_joint("effort", c["effort"])) if "effort" in c else limit
        self.owned = self._indices("owned_by_lmo", c["owned_by_lmo"])
        self.action_scale = self._numbers("action_scale_rad", c["action_scale_rad"], len(self.owned))
        self.action_clip = float(self._numbers("action_clip", c.get("action_clip", 6.0), 1)[0])
        self.arms = np.arange(robot.n_lmo, robot.n_lmo + 14)
        self.mask_arms = bool(c.get("mask_arms", False))

    def _read_command(self) -> None:
        c, robot = self.contract, self.robot
        self.nominal_m = float(self._numbers("nominal_height_m", c["nominal_height_m"], 1)[0])
        self.height_range = self._numbers("height_range_m", c.get("height_range_m", list(robot.height_range_m)), 2)
        self.shaped = "shaping" in c
        try:
            settings = c["shaping"] if self.shaped else {"gait_hz": c.get("clock_hz", ShapingConfig.gait_hz)}
            self.shaping = ShapingConfig(**settings)
            CommandShaper(1, self.nominal_m, self.shaping).step(np.ones((1, 3)), np.array([self.nominal_m]))
        except (TypeError, ValueError):
            raise self._wrong("shaping", c.get("shaping"), "the fields of wbvla.lmo.command.ShapingConfig") from None
        self.filter = float(self._numbers("velocity_filter", c.get("velocity_filter", 0.5), 1)[0])
        self.lift = None
        if "lift_rad" in c:
            self.lift = [float(self._numbers(key, c.get(key), 1)[0]) for key in ("leg_m", "lift_rad")]

    def _term(self, number: int, row: object) -> Term:
        field = f"observation[{number}]"
        if isinstance(row, list) and len(row) == 3:
            row = {"name": row[0], "width": row[1], "scale": row[2]}
        if not isinstance(row, dict) or row.get("name") not in TERMS:
            raise self._wrong(field, row, f"[name, width, scale] or an object with a name of {', '.join(TERMS)}")
        known = {"name", "width", "scale", "offset", "clip", "joints", "value", "offsets", "at_rest"}
        if set(row) - known:
            raise self._wrong(field, sorted(set(row) - known)[0], f"only {', '.join(sorted(known))}")
        name = row["name"]
        joints = self._indices(f"{field}.joints", row["joints"]) if "joints" in row else self._order
        offsets = np.atleast_1d(np.asarray(row.get("offsets", [0.0]), float))
        width = TERMS[name]
        if name == "constant":
            width = int(row.get("width", 1))
        elif name == "clock":
            width = 2 * len(offsets)
        elif width is None or width == "actions":
            width = len(joints) if width is None else len(self.owned)
        if row.get("width", width) != width:
            raise self._wrong(f"{field}.width", row["width"], f"{width} for term {name!r}")
        numbers = lambda key, default: self._numbers(f"{field}.{key}", row.get(key, default), width)  # noqa: E731
        clip = self._numbers(f"{field}.clip", row.get("clip", MAX_DQ if name == "dq" else 1e9), 1)[0]
        at_rest = numbers("at_rest", 0.0) if "at_rest" in row else None
        return Term(
            name, width, numbers("scale", 1.0), numbers("offset", 0.0), clip, joints, numbers("value", 0.0), offsets,
            at_rest,
        )  # fmt: skip

    def _read_history(self) -> None:
        history = self.contract.get("history", {})
        choices = {"layout": ("frames", "terms"), "newest": ("first", "last"), "fill": ("repeat", "zeros")}
        if not isinstance(history, dict) or set(history) - {"frames", *choices}:
            raise self._wrong("history", history, "an object with frames, layout, newest, fill")
        self.frames = history.get("frames", 1)
        if type(self.frames) is not int or not 1 <= self.frames <= 100:
            raise self._wrong("history.frames", self.frames, "a whole number from 1 to 100")
        chosen = {key: history.get(key, values[0]) for key, values in choices.items()}
        for key, value in chosen.items():
            if value not in choices[key]:
                raise self._wrong(f"history.{key}", value, " or ".join(choices[key]))
        self._by_term, self._newest_first = chosen["layout"] == "terms", chosen["newest"] == "first"
        self._fill = chosen["fill"]

    def _check_network(self, onnx: Path) -> None:
        c, session = self.contract, self.session
        inputs, outputs = {i.name: i for i in session.get_inputs()}, {o.name: o for o in session.get_outputs()}
        self._recurrent = c.get("recurrent", [])
        self._input = c.get("input", "observation" if "observation" in inputs else next(iter(inputs)))
        self._output = c.get("output", "action" if "action" in outputs else next(iter(outputs)))
        for kind, name, known in (("input", self._input, inputs), ("output", self._output, outputs)):
            if name not in known:
                raise self._wrong(kind, name, f"one of {', '.join(known)} ({kind}s of {onnx})")
        for number, row in enumerate(self._recurrent):
            if not isinstance(row, dict) or row.get("input") not in inputs or row.get("output") not in outputs:
                raise self._wrong(f"recurrent[{number}]", row, "an object with input, output, shape, batch_axis")
        batch = inputs[self._input].shape[0] if inputs[self._input].shape else None
        self._block = batch if isinstance(batch, int) else BLOCK
        self.reset(self._block)
        width = self.frames * sum(t.width for t in self.terms)
        try:
            action = self._infer(np.zeros((self._block, width), np.float32))
        except Exception as error:  # onnxruntime has its own exception classes
            first = " ".join(str(error).split())[:300]
            raise ValueError(f"{onnx} does not take the observation of {self._where} (width {width}): {first}") from None
        if action.shape != (self._block, len(self.owned)):
            raise self._wrong("owned_by_lmo", f"{len(self.owned)} joints", f"{action.shape[-1]}, the width of {onnx}")

    # What it does.
    def reset(self, n: int) -> None:
        """Begin an episode with n robots that stand."""
        self.shaper = CommandShaper(n, self.nominal_m, self.shaping)
        self.legs = LegKinematics(self.robot)
        self.action, self.velocity = np.zeros((n, len(self.owned))), np.zeros((n, 3))
        self._history: np.ndarray | None = None
        self._memory = [
            np.zeros([n, *np.delete(row["shape"], row.get("batch_axis", 0)).astype(int)], np.float32)
            for row in self._recurrent
        ]

    def act(self, command: np.ndarray, body: Measured) -> np.ndarray:
        """Return joint targets (n, J) rad; those of the arms are not the policy's to set.

        command: (n, 4) forward and lateral m/s, yaw rad/s, pelvis height m.
        """
        velocity = command[:, :3]
        flags = np.sign(velocity)
        self.shaper.goal = np.where(flags != 0, np.abs(velocity), self.shaper.goal)
        height = np.clip(command[:, 3], *self.height_range)
        feet = self.legs.feet(body.q[:, :12], body.dq[:, :12])
        self.velocity = self.velocity + self.filter * (base_velocity(*feet, body.gyro, body.gravity) - self.velocity)
        frame = np.concatenate([self._value(t, flags, velocity, height, body) for t in self.terms], axis=1)
        self.action = np.clip(self._infer(self._stack(frame.astype(np.float32))), -self.action_clip, self.action_clip)
        self.shaper.step(flags, height)
        target = np.tile(self.default, (len(command), 1))
        target[:, self.owned] += self.action_scale * self.action
        if self.lift:
            target[:, :12] += feedforward(self.shaper.swing(), self.shaper.height_ref, self.nominal_m, *self.lift)
        return target

    def _value(self, t: Term, flags, velocity, height, body: Measured) -> np.ndarray:
        n, moving = len(flags), (flags != 0).any(1)
        q, dq = body.q, body.dq
        if self.mask_arms:
            q, dq = q.copy(), dq.copy()
            q[:, self.arms], dq[:, self.arms] = self.default[self.arms], 0.0
        match t.name:
            case "flags":
                x = flags
            case "v_ref":
                x = self.shaper.v_ref if self.shaped else velocity
            case "velocity_command":
                x = velocity
            case "height_ref":
                x = (self.shaper.height_ref if self.shaped else height)[:, None] - self.nominal_m
            case "height_command":
                x = height[:, None]
            case "standing":
                x = 1.0 - moving[:, None]
            case "base_velocity":
                x = self.velocity
            case "gyro":
                x = body.gyro
            case "gravity":
                x = body.gravity
            case "q":
                x = (q - self.default)[:, t.joints]
            case "q_rad":
                x = q[:, t.joints]
            case "dq":
                x = dq[:, t.joints]
            case "last_action":
                x = self.action
            case "clock":
                angle = 2 * np.pi * (self.shaper.phase[:, None] + t.offsets)
                x = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
                if t.at_rest is not None:
                    x = np.where(moving[:, None], x, t.at_rest)
            case _:
                x = np.tile(t.value, (n, 1))
        return np.clip(x - t.offset, -t.clip, t.clip) * t.scale

    def _stack(self, frame: np.ndarray) -> np.ndarray:
        """Append a frame to the history and return the network's input (n, frames * width)."""
        if self.frames == 1:
            return frame
        if self._history is None:  # (n, frames, width), oldest first
            past = frame if self._fill == "repeat" else np.zeros_like(frame)
            self._history = np.repeat(past[:, None], self.frames, axis=1)
        self._history = np.concatenate([self._history[:, 1:], frame[:, None]], axis=1)
        ordered = self._history[:, ::-1] if self._newest_first else self._history
        if not self._by_term:
            return ordered.reshape(len(frame), -1)
        cuts = np.cumsum([t.width for t in self.terms])[:-1]
        return np.concatenate([part.reshape(len(frame), -1) for part in np.split(ordered, cuts, axis=2)], axis=1)

    def _infer(self, observation: np.ndarray) -> np.ndarray:
        """Run the network in blocks of one size, the last one padded. Returns (n, actions) float64."""
        n, block, parts = len(observation), self._block, []
        pad = lambda x, at: np.concatenate([x[at : at + block], np.zeros((max(0, at + block - n), *x.shape[1:]), x.dtype)])  # noqa: E731, E501
        for at in range(0, n, block):
            feed = {self._input: pad(observation, at)}
            for row, memory in zip(self._recurrent, self._memory):
                feed[row["input"]] = np.moveaxis(pad(memory, at), 0, row.get("batch_axis", 0))
            names = [self._output, *(row["output"] for row in self._recurrent)]
            action, *states = self.session.run(names, feed)
            parts.append(action.reshape(block, -1)[: n - at])
            for row, memory, new in zip(self._recurrent, self._memory, states):
                memory[at : at + block] = np.moveaxis(new, row.get("batch_axis", 0), 0)[: n - at]
        return np.concatenate(parts).astype(float)


def open_policy(policy: str, contract: str, robot: Robot) -> Policy:
    """Open FILE.onnx with its contract, a folder that holds both, or with "" the shipped legs."""
    onnx = Path(policy) if policy else weights_folder(robot.name)
    if onnx.is_dir():
        onnx = onnx / "policy.onnx"
    if not onnx.is_file():
        raise ValueError(f"no policy at {onnx}: expected an ONNX file, or a folder with policy.onnx and contract.json")
    return Policy(onnx, Path(contract) if contract else onnx.parent / "contract.json", robot)


def _bytes(path: Path) -> bytes:
    return path.read_bytes()
