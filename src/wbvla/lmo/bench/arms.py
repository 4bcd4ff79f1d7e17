"""Recorded arm motion: the committed clip, or anybody's recording; (T, 14) rad at 50 Hz out.

A robot's committed clip is 60 s of two-handed work made by benchmarks/make_arm_clip.py. A recording is an .npz with
`arms_rad` (T, 14) and `fps`, or a LeRobot dataset (its folder, or one .parquet) whose first 14 action entries are the
arms, left then right.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wbvla.lmo.command import STEP_S

JOIN_S = 1.0  # episodes of a dataset are joined by a straight path of a second


def committed(robot: str) -> Path:
    """Return the file of a robot's committed clip."""
    return Path(__file__).parent / f"arm_clip_{robot}.npz"


def load_clip(path: str | Path) -> np.ndarray:
    """Return a recording as (T, 14) rad at 50 Hz. Raises ValueError with one line if it cannot be read."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no arm motion at {path}: expected an .npz or a LeRobot dataset")
    motion, fps = _npz(path) if path.suffix == ".npz" else _lerobot(path)
    if motion.ndim != 2 or motion.shape[1] != 14 or len(motion) < 2 or not np.isfinite(motion).all() or fps <= 0:
        raise ValueError(f"{path}: got arm motion of shape {motion.shape} at {fps} Hz, expected (T, 14) finite numbers")
    time = np.arange(len(motion)) / fps
    at = np.arange(0.0, time[-1], STEP_S)
    return np.column_stack([np.interp(at, time, motion[:, i]) for i in range(14)])


def _npz(path: Path) -> tuple[np.ndarray, float]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file["arms_rad"], float), float(file["fps"])
    except (KeyError, ValueError, OSError, TypeError):
        raise ValueError(f"{path}: expected an .npz with arms_rad (T, 14) and fps") from None


def _lerobot(path: Path) -> tuple[np.ndarray, float]:
    import pyarrow.parquet as parquet

    root = next((p for p in (path, *path.parents) if (p / "meta" / "info.json").is_file()), None)
    files = sorted((path / "data").rglob("*.parquet")) if path.is_dir() else [path]
    if root is None or not files or files[0].suffix != ".parquet":
        raise ValueError(f"{path}: got neither an .npz nor a LeRobot dataset with meta/info.json and data/*.parquet")
    fps = float(json.loads((root / "meta" / "info.json").read_text())["fps"])
    parts: list[np.ndarray] = []
    for file in files:
        table = parquet.read_table(file, columns=["action", "episode_index"])
        actions = np.stack(table["action"].to_numpy())[:, :14].astype(float)
        episodes = table["episode_index"].to_numpy()
        for episode in np.unique(episodes):
            part = actions[episodes == episode]
            if parts:
                share = np.linspace(0, 1, round(JOIN_S * fps) + 1)[1:-1, None]
                parts.append((1 - share) * parts[-1][-1] + share * part[0])
            parts.append(part)
    return np.concatenate(parts), fps
