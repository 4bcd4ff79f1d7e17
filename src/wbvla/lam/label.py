"""Write a model's codes beside a dataset. In: a model folder and frames. Out: one row of codes for every frame.

    OUT/codes.npy     int16 (N, n_codes), row for row with the frames; -1 where t + k falls off the end of the clip
    OUT/labels.json   which frames (fingerprint), which model (lam_id), family, k

The frames are labelled in shards: an interrupted run continues behind its last shard, and a folder that belongs to
other frames or to another model is refused.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbvla.contract import load_contract, require_match, save_contract
from wbvla.data.progress import Progress
from wbvla.lam.pairs import NO_PARTNER, frame_pairs

if TYPE_CHECKING:
    from wbvla.lam.model import LatentActionModel

CODES, LABELS, _SHARDS = "codes.npy", "labels.json", "shards"
SHARD_ROWS = 1024
_INFO = ("fingerprint", "rows", "lam_id", "family", "k_s", "n_codes", "codebook_size")


@dataclass(frozen=True)
class LabelLam:
    """Write the codes of a latent action model for a LeRobot dataset or for video folders.

    Attributes:
        lam: folder of a trained model.
        out: folder to write.
        dataset: a LeRobot v3 dataset to label.
        videos: video files or folders to label instead, taken together in this order.
        cache: folder for the decoded frames of videos, `out`/cache when left out.
    """

    lam: str
    out: str
    dataset: str | None = None
    videos: tuple[str, ...] = ()
    cache: str | None = None


@dataclass(frozen=True)
class Frames:
    """Frames to label: images (N, S, S, 3) uint8, clip (N,), t_s (N,) seconds, and the name of exactly these frames."""

    images: np.ndarray
    clip: np.ndarray
    t_s: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class Labels:
    """Codes (N, n_codes) int16, -1 where there are none, and what labels.json says about them."""

    codes: np.ndarray
    info: dict


def run(cfg: LabelLam) -> dict:
    """Label all frames, or the ones that an interrupted run left; return what labels.json holds.

    Raises:
        ValueError, FileNotFoundError: no model, no frames, or `out` belongs to other frames or another model.
    """
    from wbvla.lam.model import load_lam

    lam = load_lam(cfg.lam)
    out = Path(cfg.out)
    frames = open_frames(cfg, lam.contract["size"])
    info = {"kind": "labels", "fingerprint": frames.fingerprint, "rows": len(frames.images)}
    info |= {name: lam.contract[name] for name in ("lam_id", "family", "k_s", "n_codes", "codebook_size")}
    if (out / LABELS).is_file():
        old = load_contract(out / LABELS, "labels")
        complete = old.pop("complete", None)
        require_match(info, {name: old.get(name) for name in info}, f"{out}: labels there (choose another --out)")
        if complete and (out / CODES).is_file():
            return load_contract(out / LABELS, "labels")
    save_contract(out / LABELS, {**info, "complete": False})
    codes = _label_shards(lam, frames, out / _SHARDS)
    _save_array(out / CODES, codes)
    info |= {"labelled": int((codes[:, 0] >= 0).sum()), "complete": True}
    save_contract(out / LABELS, info)
    shutil.rmtree(out / _SHARDS, ignore_errors=True)
    return info


def open_frames(cfg: LabelLam, size: int) -> Frames:
    """Decode, or open the cache of, the dataset or the videos of a labelling run."""
    if (cfg.dataset is None) == (not cfg.videos):
        raise ValueError("label: expected either --dataset or --videos, got both or neither")
    if cfg.dataset is not None:
        from wbvla.data.frames import FrameCache

        rows = FrameCache.open(cfg.dataset, size)
        return Frames(rows.images, rows.episode, rows.frame / rows.fps, rows.fingerprint)
    from wbvla.data.video import ClipCache

    clips = ClipCache.open(tuple(cfg.videos), size, cfg.cache or Path(cfg.out) / "cache")
    return Frames(clips.frames, clips.clip, clips.t_s, clips.fingerprint)


def load_labels(
    path: str | Path, fingerprint: str | None = None, lam_id: str | None = None, family: str | None = None
) -> Labels:
    """Open finished labels, memory-mapped; the given names must be theirs.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: unfinished or damaged labels, or labels of other frames, another model or family.
    """
    path = Path(path)
    if not (path / LABELS).is_file():
        raise FileNotFoundError(f"{path}: no labels here; expected a folder of `wbvla lam label`")
    info = load_contract(path / LABELS, "labels")
    missing = [name for name in _INFO if name not in info]
    if missing:
        raise ValueError(f"{path / LABELS}: lacks {', '.join(missing)}; delete {path} and run wbvla lam label again")
    if not info.get("complete") or not (path / CODES).is_file():
        raise ValueError(f"{path}: labelling was not finished; run wbvla lam label again")
    wanted = {"fingerprint": fingerprint, "lam_id": lam_id, "family": family}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    require_match(wanted, {name: info[name] for name in wanted}, f"{path}: labels (run wbvla lam label again)")
    try:
        codes = np.load(path / CODES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path / CODES}: damaged ({error}); delete {path} and run wbvla lam label again") from None
    if codes.shape != (info["rows"], info["n_codes"]):
        raise ValueError(f"{path / CODES}: got shape {codes.shape}, expected {(info['rows'], info['n_codes'])}")
    return Labels(codes, info)


def label_pairs(lam: LatentActionModel, frames: Frames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode all pairs in memory; returns rows (B,), their partners (B,) and codes (B, n_codes)."""
    partner = frame_pairs(frames.clip, frames.t_s, lam.contract["k_s"])
    rows = np.flatnonzero(partner >= 0)
    spans = range(0, len(partner), SHARD_ROWS)
    codes = [_label_rows(lam, frames.images, partner, a, min(a + SHARD_ROWS, len(partner))) for a in spans]
    return rows, partner[rows], np.concatenate(codes)[rows]


def _label_shards(lam: LatentActionModel, frames: Frames, folder: Path) -> np.ndarray:
    """Label what the finished shards in `folder` leave; return all codes (N, n_codes) int16."""
    partner = frame_pairs(frames.clip, frames.t_s, lam.contract["k_s"])
    folder.mkdir(parents=True, exist_ok=True)
    spans = [(a, min(a + SHARD_ROWS, len(partner))) for a in range(0, len(partner), SHARD_ROWS)]
    paths = [folder / f"{start:09d}.npy" for start, _ in spans]
    done = sum(stop - start for (start, stop), path in zip(spans, paths) if path.is_file())
    progress = Progress(f"label {lam.contract['family']}", len(partner), "frames", done)
    for (start, stop), path in zip(spans, paths):
        if not path.is_file():
            _save_array(path, _label_rows(lam, frames.images, partner, start, stop))
            progress.advance(stop - start)
    progress.close()
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths])


def _label_rows(
    lam: LatentActionModel, images: np.ndarray, partner: np.ndarray, start: int, stop: int, batch: int = 256
) -> np.ndarray:
    """Return the codes of rows [start, stop), reading every image's features once."""
    import torch

    codes = np.full((stop - start, lam.contract["n_codes"]), NO_PARTNER, np.int16)
    rows = start + np.flatnonzero(partner[start:stop] >= 0)
    needed, where = np.unique(np.concatenate([rows, partner[rows]]), return_inverse=True)
    if not len(needed):
        return codes
    features = torch.cat([lam.encoder(images[needed[a : a + batch]]) for a in range(0, len(needed), batch)])
    first, second = where[: len(rows)], where[len(rows) :]
    for a in range(0, len(rows), batch):
        part = slice(a, a + batch)
        codes[rows[part] - start] = lam.encode_features(features[first[part]], features[second[part]]).numpy()
    return codes


def _save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file that appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    temporary.replace(path)
