"""What a VLA checkpoint's user must know. In: the model, its robot and its data. Out: the contract as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wbvla.robots import get_robot
from wbvla.robots.base import Robot
from wbvla.types import action_names, state_names
from wbvla.vla.checkpoint import statistics
from wbvla.vla.model import WholeBodyVla


def vla_contract(
    model: WholeBodyVla,
    stage: str,
    robot: str,
    fps: float,
    tasks: list[str],
    lams: dict[str, Any],
    delays: dict[str, Any],
) -> dict[str, Any]:
    """Describe the model's inputs and outputs.

    Args:
        stage: "pretrain" (codes only) or "finetune" (codes and actions).
        fps: steps of a chunk per second.
        tasks: sentences it was trained with.
        lams: the latent action models whose codes it predicts: {family: {"id", "k_s", ...}}.
        delays: what its training data say about delays, see wbvla.data.recorder; empty if unknown.
    Raises:
        ValueError: the robot is unknown or has another state than the model.
    """
    body, config = get_robot(robot), model.config
    states = state_names(body.joints)
    if len(states) != config.state_dim:
        raise ValueError(f"state: got {config.state_dim} entries, expected {len(states)} for robot {robot!r}")
    return {
        "kind": "vla",
        "stage": stage,
        "robot": robot,
        "joints": list(body.joints),
        "state_names": states,
        "action_names": action_names(body.arm_joints),
        "masked_actions": list(config.masked_actions),
        "flag_values": [-1, 0, 1],
        "fps": fps,
        "chunk_steps": config.chunk_steps,
        "chunk_origin": "capture time of the image: entry i applies from t_capture + i / fps on",
        "camera": _camera(body),
        "image_size": config.image_size,
        "codes": {"mani": config.n_mani, "loco": config.n_loco, "codebook_size": config.codebook_size},
        "tasks": tasks,
        "lam": lams,
        "delays": delays,
        "normalisation": statistics(model),
    }


def check_robot(contract: dict[str, Any], where: str, robot: str | None = None) -> None:
    """Refuse a checkpoint for another robot, or for another version of this one.

    Raises:
        ValueError: one line with what differs.
    """
    if robot is not None and contract.get("robot") != robot:
        raise ValueError(f"{where}: got a policy for robot {contract.get('robot')!r}, expected {robot!r}")
    body = get_robot(str(contract.get("robot")))
    wanted = {"joints": list(body.joints), "state_names": state_names(body.joints)}
    wanted |= {"action_names": action_names(body.arm_joints), "camera": _camera(body)}
    for name, value in wanted.items():
        if contract.get(name) != value:
            raise ValueError(
                f"{where}: {name}: not as robot {body.name!r} has them; train it again on this robot's data"
            )


def _camera(robot: Robot) -> dict[str, Any]:
    """Return where the head camera is mounted and what it sees, as JSON values."""
    return {"name": "head", **asdict(robot.camera), "pos": list(robot.camera.pos)}
