"""Small invented worlds for the VLA's tests: frame caches, label folders and LeRobot datasets of random pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from wbvla.contract import save_contract
from wbvla.robots import get_robot
from wbvla.types import action_names, state_names
from wbvla.vla.config import VlaConfig
from wbvla.vla.text import tokenize

SMALL = VlaConfig(width=32, heads=2)
TASK = "push the cart"


def batch_of(n: int, seed: int = 0, config: VlaConfig = SMALL) -> dict[str, torch.Tensor]:
    """A random batch with codes and chunks; some codes are missing and some steps are padding."""
    g = torch.Generator().manual_seed(seed)
    flags = torch.randint(-1, 2, (n, config.chunk_steps, 3), generator=g).float()
    actions = torch.randn((n, config.chunk_steps, 20), generator=g)
    actions[..., 14:16], actions[..., 16:19] = 0.0, flags
    lengths = torch.randint(1, config.chunk_steps + 1, (n, 1), generator=g)
    size = config.image_size
    return {
        "images": torch.randint(0, 256, (n, size, size, 3), generator=g, dtype=torch.uint8),
        "tokens": torch.from_numpy(tokenize([TASK] * n)),
        "codes": torch.randint(-1, config.codebook_size, (n, config.n_codes), generator=g),
        "state": torch.randn((n, config.state_dim), generator=g),
        "actions": actions,
        "padded": torch.arange(config.chunk_steps) >= lengths,
    }


def make_dataset(root: Path, episodes: int = 2, frames: int = 30, size: int = 96, seed: int = 0) -> Path:
    """Record random episodes through LeRobot's own API, with wbvla's features; the picture tells the forward flag."""
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset

    g1 = get_robot("g1")
    state, action = state_names(g1.joints), action_names(g1.arm_joints)
    features = {
        "observation.images.head": {
            "dtype": "video",
            "shape": (size, size, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (len(state),), "names": state},
        "action": {"dtype": "float32", "shape": (len(action),), "names": action},
    }
    encoder = RGBEncoderConfig(vcodec="h264", preset="ultrafast", crf=20, g=2)
    dataset = LeRobotDataset.create(
        "local/small", 20, features, root=root, robot_type="g1", video_backend="pyav", rgb_encoder=encoder
    )
    rng = np.random.default_rng(seed)
    for _ in range(episodes):
        for _ in range(frames):
            dataset.add_frame(_frame(rng, size))
        dataset.save_episode()
    dataset.finalize()
    return root


def _frame(rng: np.random.Generator, size: int) -> dict:
    bright = rng.integers(0, 2)
    image = np.full((size, size, 3), 60 + 140 * bright, np.uint8) + rng.integers(0, 20, (size, size, 3), dtype=np.uint8)
    action = np.zeros(20, np.float32)
    action[:14], action[16], action[19] = rng.normal(size=14) * 0.3, bright, 0.7
    return {
        "observation.images.head": image,
        "observation.state": rng.normal(size=68).astype(np.float32),
        "action": action,
        "task": TASK,
    }


def make_labels(out: Path, fingerprint: str, codes: np.ndarray, family: str, codebook_size: int = 16) -> Path:
    """Write a label folder as `wbvla lam label` does."""
    out.mkdir(parents=True)
    np.save(out / "codes.npy", codes.astype(np.int16))
    info = {"kind": "labels", "fingerprint": fingerprint, "rows": len(codes), "lam_id": f"{family}-model"}
    info |= {"family": family, "k_s": 0.5, "n_codes": codes.shape[1], "codebook_size": codebook_size}
    save_contract(out / "labels.json", {**info, "labelled": int((codes[:, 0] >= 0).sum()), "complete": True})
    return out


def edit_json(path: Path, **changes) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
