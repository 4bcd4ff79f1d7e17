"""LIBERO as the released X-VLA weights know it. In: what LeRobot's LIBERO environment shows. Out: 20-D poses; and back.

LeRobot shows 8 numbers of state (position, axis-angle, two fingers) and takes 7 of action (position, axis-angle,
gripper). The weights know poses of the `ee6d` space: one arm, the other one zeros, no gripper in the state. LeRobot
turns both pictures by 180 degrees, the weights were trained on a wrist picture as the camera sees it. The environment
must run in absolute control mode.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor

from wbvla.xvla.rotations import rotation_6d, rotation_matrix

STATE_DIM, POSE_DIM = 8, 20
WRIST = f"{OBS_IMAGES}.image2"


def as_released(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch with state (B, 20) and the wrist picture upright. Raises ValueError if it is not LIBERO's."""
    from scipy.spatial.transform import Rotation

    state = batch[OBS_STATE]
    if state.shape[-1] != STATE_DIM:
        raise ValueError(f"released_for=libero: got {state.shape[-1]} numbers of state, expected LIBERO's {STATE_DIM}")
    hand = Rotation.from_rotvec(state[:, 3:6].double().cpu().numpy())
    # robosuite's position is that of the grip site, its quaternion that of the hand body, a quarter turn about z apart;
    # the weights know the site's rotation
    site = torch.from_numpy(rotation_6d((hand * Rotation.from_euler("z", -90, degrees=True)).as_matrix())).to(state)
    pose = torch.cat([state[:, :3], site, state.new_zeros(len(state), POSE_DIM - 9)], dim=1)
    turned = {WRIST: batch[WRIST].flip(2, 3)} if WRIST in batch else {}
    return {**batch, **turned, OBS_STATE: pose}


def as_actions(poses: Tensor) -> Tensor:
    """Return LIBERO's absolute actions (..., 7) of poses (..., 20): position, axis-angle, gripper -1 = open or 1."""
    from scipy.spatial.transform import Rotation

    matrices = rotation_matrix(poses[..., 3:9].double().cpu().numpy())
    turns = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(*matrices.shape[:-2], 3)
    gripper = torch.where(poses[..., 9:10] > 0.5, 1.0, -1.0).to(poses)
    return torch.cat([poses[..., :3], torch.from_numpy(turns).to(poses), gripper], dim=-1)
