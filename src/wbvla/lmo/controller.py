"""The legs on a robot: command and proprioception in, targets of legs and waist out, 50 times a second.

Numpy and onnxruntime only. The policy folder holds policy.onnx and contract.json.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wbvla.contract import load_contract, require_match
from wbvla.lmo.arrays import clip
from wbvla.lmo.command import CommandShaper, ShapingConfig, feedforward, is_disturbed, is_pushed
from wbvla.lmo.observation import History, actor_observation, layout
from wbvla.lmo.odometry import LegKinematics, Odometry, OdometryConfig, base_velocity, pelvis_height
from wbvla.recipes.lmo import RECIPES
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception, VelocityCommand


def weights_folder(robot: str) -> Path:
    """Return the folder of a robot's legs: the shipped ones, or $WBVLA_LEGS for every stage of a chain at once.

    Raises ValueError if there are none.
    """
    own, robot = os.environ.get("WBVLA_LEGS"), get_robot(robot).legs or robot
    folder = Path(own) if own else Path(__file__).parent / "weights" / robot
    if not (folder / "policy.onnx").is_file():
        train = f"train them with `wbvla lmo train --robot {robot} --recipe lmo_{robot}`"
        if f"lmo_{robot}" not in RECIPES:
            train = "train some as docs/add_robot.md says; tasks, evaluation and recording need them"
        fix = "WBVLA_LEGS names that folder" if own else train
        raise ValueError(f"no legs for robot {robot!r} in {folder}: expected policy.onnx; {fix}")
    return folder


def load_policy(folder: Path):
    """Open policy.onnx and its contract. Returns (onnxruntime session, contract). Raises ValueError on a misfit."""
    contract = load_contract(folder / "contract.json", "lmo")
    if not (folder / "policy.onnx").is_file():
        raise ValueError(f"no policy.onnx in {folder}: export with `wbvla lmo export`")
    return open_session(folder / "policy.onnx"), contract


def open_session(path: Path):
    """Open an ONNX file on one CPU thread. Raises ValueError if it is not one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{path} is not a readable ONNX model: {error}") from None


class LmoController:
    """One robot's legs. `step` must be called every 20 ms."""

    def __init__(self, folder: str | Path) -> None:
        self.session, self.contract = load_policy(Path(folder))
        self.robot = get_robot(self.contract["robot"])
        c = self.contract
        self.terms = tuple(name for name, *_ in c["observation"])
        rows = layout(self.robot, self.terms)
        expected = {
            "joints": list(self.robot.joints), "observation": [list(row) for row in rows],
            "kp": self.robot.array("kp").tolist(), "kd": self.robot.array("kd").tolist(),
        }  # fmt: skip
        require_match(expected, {k: c[k] for k in expected}, f"legs policy in {folder}")
        self.default = self.robot.array("default")
        self.action_scale_rad = np.array(c["action_scale_rad"])
        self.shaper = CommandShaper(1, c["nominal_height_m"], ShapingConfig(**c["shaping"]))
        self.legs, self.odometry = LegKinematics(self.robot), Odometry(1, OdometryConfig(**c["odometry"]))
        self.history = History(1, c.get("history", {}).get("frames", 1), sum(width for _, width, _ in rows))
        self.reset()

    def reset(self) -> None:
        """Forget the past: stand at the nominal height."""
        self.shaper.reset(np.array([0]))
        self.action = np.zeros((1, self.robot.n_lmo))
        self.odometry.reset(np.array([0]))
        self.fresh = np.array([True])

    def step(
        self, command: LocoCommand | VelocityCommand, body: Proprioception, latent: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the targets (n_lmo,) in rad for `robot.lmo_joints`.

        latent: (256,) of wbvla.lmo.latent, for legs that observe it.
        Raises ValueError on velocities for legs that take flags, and on a measurement that these legs need and lack.
        """
        c, known = self.contract, slice(len(self.default))  # these legs may not know of grippers, the last joints
        q, dq = np.asarray(body.q_rad, float)[known], np.asarray(body.dq_rad_s, float)[known]
        gyro, gravity = np.asarray(body.gyro_rad_s, float)[None], np.asarray(body.gravity, float)[None]
        flags = self._flags(command)[None].astype(float)
        feet = self.legs.feet(q[None, :12], dq[None, :12])
        sample = base_velocity(*feet, gyro, gravity, self.odometry.config.level_m)
        missing_m = self.shaper.height_ref - pelvis_height(feet[0], gravity)
        self.odometry.step(sample, gyro, gravity, self.shaper.v_ref, missing_m)
        terms = {
            "flags": flags, "v_ref": self.odometry.steer(self.shaper.v_ref),
            "height_ref": self.odometry.raised(self.shaper.height_ref)[:, None],
            "base_velocity": self.odometry.velocity, "gyro": gyro, "gravity": gravity, "q": q[None], "dq": dq[None],
            "last_action": self.action, "clock": self.shaper.clock(), "pose_error": self.odometry.error,
        }  # fmt: skip
        rare = {
            "quaternion": body.quaternion, "accelerometer": body.accelerometer_m_s2,
            "foot_contacts": body.foot_contacts, "latent": latent,
        }  # fmt: skip
        terms |= {name: np.asarray(value, float)[None] for name, value in rare.items() if value is not None}
        missing = [name for name in self.terms if name in rare and name not in terms]
        if missing:
            raise ValueError(f"these legs observe {', '.join(missing)}, which the robot did not give")
        frame = actor_observation(terms, c["nominal_height_m"], self.default, self.terms)
        observation = self.history.push(frame, self.fresh)
        self.fresh[:] = False
        self.action = clip(self.session.run(None, {"observation": observation})[0].astype(float), -6.0, 6.0)
        height_m = clip(np.array([command.height_m]), *c["height_range_m"])
        pushed = is_pushed(self.odometry, self.shaper.v_ref)
        self.shaper.step(flags, height_m, is_disturbed(self.odometry, gravity), pushed)
        target = self.default[: self.robot.n_lmo] + self.action_scale_rad * self.action[0]
        height_ref = self.odometry.raised(self.shaper.height_ref)
        target[:12] += feedforward(self.shaper.swing(), height_ref, c["nominal_height_m"], c["leg_m"], c["lift_rad"])[0]
        return target

    def _flags(self, command: LocoCommand | VelocityCommand) -> np.ndarray:
        if isinstance(command, LocoCommand):
            return command.flags
        if self.shaper.config.kind != "velocity":
            raise ValueError("command: got velocities, but these legs take flags; send a LocoCommand")
        return command.velocity / self.shaper.goal[0]


def shipped_controller(robot: str = "g1") -> LmoController:
    """Return the legs of `weights_folder`."""
    return LmoController(weights_folder(robot))
