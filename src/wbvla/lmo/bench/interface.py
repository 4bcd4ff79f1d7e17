"""A legs policy's contract, read and checked: docs/lmo_contract.md in code.

In: contract.json. Out: an `Interface` in the robot's joint order. Every misfit is one line: field, got, expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.contract import load_contract
from wbvla.lmo.command import STEP_S, CommandShaper, ShapingConfig
from wbvla.lmo.observation import MAX_DQ
from wbvla.lmo.odometry import OdometryConfig
from wbvla.robots.base import Robot

JOINTS, ACTIONS, ANY = -1, -2, 0
# Width of each observation term: a number, one per joint that the term lists, one per action, or as written.
TERMS = {
    "flags": 3, "v_ref": 3, "velocity_command": 3, "height_ref": 1, "height_command": 1, "standing": 1,
    "base_velocity": 3, "pose_error": 3, "gyro": 3, "gravity": 3, "q": JOINTS, "q_rad": JOINTS, "dq": JOINTS,
    "last_action": ACTIONS, "q_lmo": ACTIONS, "dq_lmo": ACTIONS, "clock": ANY, "constant": ANY,
}  # fmt: skip
HEIGHT_TERMS = {"height_ref", "height_command"}
TERM_FIELDS = ("name", "width", "entries", "scale", "offset", "clip", "joints", "value", "offsets", "at_rest")
REQUIRED = (
    *("robot", "rate_hz", "joints", "owned_by_lmo", "kp", "kd", "default_rad"),
    *("observation", "action_scale_rad", "nominal_height_m"),
)
HISTORY = {"layout": ("frames", "terms"), "newest": ("first", "last"), "fill": ("repeat", "zeros")}


@dataclass(frozen=True)
class Term:
    """One piece of the observation: clip(value[entries] - offset, -clip, clip) * scale.

    Attributes:
        joints: indices into the robot's order, for q, q_rad and dq. value: of a constant.
        offsets: of a clock, strides. at_rest: what a clock shows while the command is zero, or None.
    """

    name: str
    width: int
    entries: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    clip: float
    joints: np.ndarray
    value: np.ndarray
    offsets: np.ndarray
    at_rest: np.ndarray | None


@dataclass(frozen=True)
class History:
    """How observations of several steps are stacked; see docs/lmo_contract.md."""

    frames: int = 1
    layout: str = "frames"
    newest: str = "first"
    fill: str = "repeat"


@dataclass(frozen=True)
class Interface:
    """What a policy sees and means. Joint arrays are in the robot's order.

    Attributes:
        owned: indices of the joints that the actions move, in the actions' order.
        shaped: v_ref and height_ref pass through the command shaping; otherwise they are the plain command.
        feedforward: (leg_m, lift_rad) of the swing and squat feed-forward, or None.
    """

    where: str
    contract: dict
    kp: np.ndarray
    kd: np.ndarray
    effort: np.ndarray
    default: np.ndarray
    owned: np.ndarray
    action_scale: np.ndarray
    action_clip: float
    mask_arms: bool
    nominal_m: float
    height_range: np.ndarray
    shaping: ShapingConfig
    shaped: bool
    odometry: OdometryConfig
    feedforward: tuple[float, float] | None
    terms: tuple[Term, ...]
    history: History

    @property
    def follows_height(self) -> bool:
        """True if the policy is told a height."""
        return bool(HEIGHT_TERMS & {t.name for t in self.terms})

    @property
    def width(self) -> int:
        """Length of the network's observation."""
        return self.history.frames * sum(t.width for t in self.terms)

    def wrong(self, field: str, got: object, expected: str) -> ValueError:
        """Return the error that says what does not fit."""
        return _wrong(self.where, field, got, expected)


def read_interface(path: Path, robot: Robot) -> Interface:
    """Read and check a contract. Raises ValueError."""
    read = _Reader(path, robot)
    c, count = read.contract, len(robot.joints)
    order = read.joints("joints", c["joints"])
    if len(order) != count:
        raise read.wrong("joints", f"{len(order)} names", f"all {count} joints of robot {robot.name!r}")
    to_robot = np.argsort(order)
    per_joint = lambda key: read.numbers(key, c[key], count)[to_robot]  # noqa: E731
    owned = read.joints("owned_by_lmo", c["owned_by_lmo"])
    shaping, shaped = read.shaping()
    rows = c["observation"]
    if not isinstance(rows, list) or not rows:
        raise read.wrong("observation", rows, "a list of terms")
    return Interface(
        where=str(path), contract=c, kp=per_joint("kp"), kd=per_joint("kd"), default=per_joint("default_rad"),
        effort=np.minimum(robot.array("effort"), per_joint("effort")) if "effort" in c else robot.array("effort"),
        owned=owned, action_scale=read.numbers("action_scale_rad", c["action_scale_rad"], len(owned)),
        action_clip=read.number("action_clip", 6.0), mask_arms=bool(c.get("mask_arms", False)),
        nominal_m=read.number("nominal_height_m"), shaping=shaping, shaped=shaped,
        height_range=read.numbers("height_range_m", c.get("height_range_m", list(robot.height_range_m)), 2),
        odometry=read.odometry(),
        feedforward=(read.number("leg_m"), read.number("lift_rad")) if "lift_rad" in c else None,
        terms=tuple(read.term(f"observation[{i}]", row, order, len(owned)) for i, row in enumerate(rows)),
        history=read.history(),
    )  # fmt: skip


def _wrong(where: str, field: str, got: object, expected: str) -> ValueError:
    shown = repr(got)
    return ValueError(f"contract {where}: {field}: got {shown[:80]}, expected {expected}")


class _Reader:
    """Typed access to a contract's fields."""

    def __init__(self, path: Path, robot: Robot) -> None:
        self.where, self.robot = str(path), robot
        self.contract = c = load_contract(path, "lmo")
        for key in REQUIRED:
            if key not in c:
                raise self.wrong(key, None, "a value (docs/lmo_contract.md lists the fields)")
        if c["robot"] != robot.name:
            raise self.wrong("robot", c["robot"], f"{robot.name!r}, the robot of this run")
        if c["rate_hz"] != round(1 / STEP_S):
            raise self.wrong("rate_hz", c["rate_hz"], f"{round(1 / STEP_S)}, the rate of the bench")

    def wrong(self, field: str, got: object, expected: str) -> ValueError:
        return _wrong(self.where, field, got, expected)

    def numbers(self, field: str, value: object, n: int) -> np.ndarray:
        """Read a number or a list of n finite numbers as (n,)."""
        try:
            array = np.asarray(value, float)
        except (TypeError, ValueError):
            raise self.wrong(field, value, f"a number or {n} numbers") from None
        if array.shape not in ((), (n,)) or not np.isfinite(array).all():
            raise self.wrong(field, value, f"a number or {n} finite numbers")
        return np.broadcast_to(array, (n,)).copy()

    def number(self, field: str, default: float | None = None) -> float:
        return float(self.numbers(field, self.contract.get(field, default), 1)[0])

    def joints(self, field: str, names: object) -> np.ndarray:
        """Return the robot's indices of joint names; Unitree's suffix _joint is accepted."""
        if not isinstance(names, list) or not names:
            raise self.wrong(field, names, "a list of joint names")
        plain = [str(name).removesuffix("_joint") for name in names]
        for i, name in enumerate(plain):
            if name not in self.robot.joints or name in plain[:i]:
                raise self.wrong(f"{field}[{i}]", names[i], f"a joint of robot {self.robot.name!r}, each at most once")
        return np.array([self.robot.joints.index(name) for name in plain], int)

    def shaping(self) -> tuple[ShapingConfig, bool]:
        given = self.contract.get("shaping")
        if given is None:
            return ShapingConfig(gait_hz=self.number("clock_hz", ShapingConfig.gait_hz)), False
        try:
            config = ShapingConfig(**given)
            CommandShaper(1, 0.7, config).step(np.ones((1, 3)), np.array([0.7]))
        except (TypeError, ValueError):
            raise self.wrong("shaping", given, "the fields of wbvla.lmo.command.ShapingConfig") from None
        return config, True

    def odometry(self) -> OdometryConfig:
        given = self.contract.get("odometry", {})
        try:
            return OdometryConfig(**{name: float(value) for name, value in given.items()})
        except (AttributeError, TypeError, ValueError):
            raise self.wrong("odometry", given, "numbers by the fields of OdometryConfig") from None

    def term(self, field: str, row: object, order: np.ndarray, actions: int) -> Term:
        if isinstance(row, list) and len(row) == 3:
            row = dict(zip(("name", "width", "scale"), row))
        if not isinstance(row, dict) or row.get("name") not in TERMS:
            raise self.wrong(field, row, f"[name, width, scale] or an object, with a name of {', '.join(TERMS)}")
        for key in row:
            if key not in TERM_FIELDS:
                raise self.wrong(field, key, f"only {', '.join(TERM_FIELDS)}")
        name = row["name"]
        joints = self.joints(f"{field}.joints", row["joints"]) if "joints" in row else order
        offsets = row.get("offsets", [0.0])
        offsets = self.numbers(f"{field}.offsets", offsets, len(offsets) if isinstance(offsets, list) else 1)
        any_width = 2 * len(offsets) if name == "clock" else row.get("width", 1)
        width = {JOINTS: len(joints), ACTIONS: actions, ANY: any_width}.get(TERMS[name], TERMS[name])
        entries = row.get("entries", list(range(width)) if type(width) is int else [])
        if not isinstance(entries, list) or not all(type(i) is int and 0 <= i < width for i in entries):
            raise self.wrong(f"{field}.entries", entries, f"indices below {width}")
        full, width = width, len(entries)
        if row.get("width", width) != width or type(width) is not int or width < 1:
            raise self.wrong(f"{field}.width", row.get("width"), f"{width} for term {name!r}")
        widest = MAX_DQ if name in ("dq", "dq_lmo") else 1e9
        numbers = lambda key, default: self.numbers(f"{field}.{key}", row.get(key, default), width)  # noqa: E731
        whole = lambda key: self.numbers(f"{field}.{key}", row.get(key, 0.0), full)  # noqa: E731
        return Term(
            name=name, width=width, entries=np.array(entries), scale=numbers("scale", 1.0),
            offset=numbers("offset", 0.0), joints=joints,
            clip=float(self.numbers(f"{field}.clip", row.get("clip", widest), 1)[0]),
            value=whole("value"), offsets=offsets, at_rest=whole("at_rest") if "at_rest" in row else None,
        )  # fmt: skip

    def history(self) -> History:
        given = self.contract.get("history", {})
        if not isinstance(given, dict) or set(given) - {"frames", *HISTORY}:
            raise self.wrong("history", given, "an object with frames, layout, newest, fill")
        frames = given.get("frames", 1)
        if type(frames) is not int or not 1 <= frames <= 100:
            raise self.wrong("history.frames", frames, "a whole number from 1 to 100")
        for key, choices in HISTORY.items():
            if given.get(key, choices[0]) not in choices:
                raise self.wrong(f"history.{key}", given[key], " or ".join(choices))
        return History(**given)
