"""Training rows of the VLA. In: datasets, videos, label folders. Out: images with sentences, codes and action chunks.

Labels are matched to frames by fingerprint, so that codes of other frames, another order or another size are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbvla.data.frames import FrameCache, read_facts, read_info
from wbvla.robots.base import Robot
from wbvla.types import action_names, state_names

FAMILIES = ("mani", "loco")
NO_CODE = -1


@dataclass(frozen=True)
class Labels:
    """What some label folders say: codes by fingerprint of their frames, and the models they came from.

    Attributes:
        codes: {fingerprint: {family: (N, n) int16}}.
        lams: {family: {"lam_id", "k_s", "n_codes", "codebook_size"}}.
    """

    codes: dict[str, dict[str, np.ndarray]]
    lams: dict[str, dict[str, Any]]


def open_labels(folders: tuple[str, ...]) -> Labels:
    """Open label folders of `wbvla lam label`; all of one family must come from one model.

    Raises:
        ValueError: unfinished or foreign labels, two models of one family, one frame set labelled twice.
    """
    from wbvla.lam.label import load_labels

    codes: dict[str, dict[str, np.ndarray]] = {}
    lams: dict[str, dict[str, Any]] = {}
    for folder in folders:
        labels = load_labels(folder)
        family = labels.info["family"]
        lam = {name: labels.info[name] for name in ("lam_id", "k_s", "n_codes", "codebook_size")}
        if lams.setdefault(family, lam) != lam:
            got, expected = lam["lam_id"], lams[family]["lam_id"]
            raise ValueError(f"{folder}: got labels of {family} model {got}, the others are of {expected}; label again")
        of_frames = codes.setdefault(labels.info["fingerprint"], {})
        if family in of_frames:
            raise ValueError(f"{folder}: these frames have {family} labels already; give each label folder once")
        of_frames[family] = np.asarray(labels.codes)
    sizes = {lam["codebook_size"] for lam in lams.values()}
    if len(sizes) > 1:
        raise ValueError(f"labels: got codebooks of sizes {sorted(sizes)}, expected one size for both families")
    return Labels(codes, lams)


@dataclass(frozen=True)
class Source:
    """Frames with sentences and codes: images (N, S, S, 3) uint8, text (N,) index into `tasks`, codes (N, C) int64."""

    images: np.ndarray
    text: np.ndarray
    tasks: list[str]
    codes: np.ndarray
    fingerprint: str


def join_codes(labels: Labels, fingerprint: str, n: int, n_codes: dict[str, int]) -> np.ndarray:
    """Return (n, mani + loco) int64 codes of some frames, -1 where a family has no label."""
    found = labels.codes.get(fingerprint, {})
    parts = [found.get(family, np.full((n, n_codes[family]), NO_CODE)) for family in FAMILIES]
    return np.concatenate(parts, axis=1).astype(np.int64)


def dataset_source(cache: FrameCache, codes: np.ndarray) -> Source:
    """Robot frames: each has its own sentence."""
    return Source(cache.images, cache.task_index, list(cache.tasks), codes, cache.fingerprint)


def video_source(clips, codes: np.ndarray) -> Source:
    """Frames of a ClipCache: nobody wrote sentences for them."""
    return Source(clips.frames, np.zeros(len(clips.frames), np.int64), [""], codes, clips.fingerprint)


class Demonstrations:
    """Robot rows with their chunk of future actions.

    Args:
        cache: the dataset.
        chunk_steps: actions per chunk.
    """

    def __init__(self, cache: FrameCache, chunk_steps: int) -> None:
        self.cache, self.chunk_steps = cache, chunk_steps
        edges = np.flatnonzero(np.diff(cache.episode)) + 1
        stops = np.concatenate([edges, [len(cache.episode)]])
        self._stop = stops[np.searchsorted(stops, np.arange(len(cache.episode)), side="right")]

    def chunks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return actions (B, T, 20) float32 and `padded` (B, T) bool, true beyond the episode's end."""
        ahead = rows[:, None] + np.arange(self.chunk_steps)
        stop = self._stop[rows][:, None]
        return self.cache.actions[np.minimum(ahead, stop - 1)], ahead >= stop

    def split(self, hold_out: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (training rows, held-out rows); whole episodes are held out, the same ones for every seed."""
        episodes = np.unique(self.cache.episode)
        n = min(round(hold_out * len(episodes)), len(episodes) - 1)
        out = np.random.default_rng(0).permutation(episodes)[:n]
        held = np.isin(self.cache.episode, out)
        return np.flatnonzero(~held), np.flatnonzero(held)


def check_dataset(root: str | Path, robot: Robot) -> dict[str, Any]:
    """Check that a dataset's state and action are this robot's; return what it says about delays.

    Raises:
        FileNotFoundError, ValueError: no dataset, or names that are not the robot's.
    """
    features = read_info(root)["features"]
    wanted = {"observation.state": state_names(robot.joints), "action": action_names(robot.arm_joints)}
    for key, names in wanted.items():
        got = features.get(key, {}).get("names")
        if got != names:
            shown = f"{len(got)} entries ({got[0]}, ...)" if isinstance(got, list) and got else "nothing"
            raise ValueError(
                f"{root}: {key}: got {shown}, expected the {len(names)} of robot {robot.name!r} ({names[0]}, ...); "
                "record with wbvla collect or choose another --robot"
            )
    facts = read_facts(root)
    return {name: facts[name] for name in ("camera_delay_s", "control_delay_steps") if name in facts}
