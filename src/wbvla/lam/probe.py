"""What codes know about true motion. In: codes of frame pairs and the motion behind them. Out: R^2 of a linear probe.

The truth comes with simulated clips (truth.json) or with a GoPro recording (telemetry_decoded.npz). Training never
reads it; this is a measurement of a finished model.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TRUTH, TELEMETRY = "truth.json", "telemetry_decoded.npz"
_RIDGE = 3.0  # pseudo-counts a code: a code seen once predicts little
_FOLDS = 5


def linear_probe(codes: np.ndarray, targets: np.ndarray, codebook_size: int, group: np.ndarray) -> np.ndarray:
    """Predict targets from one-hot codes by ridge regression and return cross-validated R^2.

    Args:
        codes: (B, N) indices; targets: (B, M) real numbers.
        group: (B,) clip or time block of each row; a group is never in both fit and test.
    Returns:
        (M,) fraction of variance explained on unseen groups; 0 or less means nothing, NaN a constant target.
    """
    x = np.eye(codebook_size)[codes].reshape(len(codes), -1)
    groups = np.unique(group)
    if len(groups) < 2:
        raise ValueError(f"probe: got {len(groups)} clip or time block, expected at least 2; give more video")
    fold = np.random.default_rng(0).permutation(np.arange(len(groups)) % _FOLDS)[np.searchsorted(groups, group)]
    residual, spread = np.zeros(targets.shape[1]), np.zeros(targets.shape[1])
    for i in np.unique(fold):
        fit, test = fold != i, fold == i
        mean = targets[fit].mean(0)
        weights = np.linalg.solve(x[fit].T @ x[fit] + _RIDGE * np.eye(x.shape[1]), x[fit].T @ (targets[fit] - mean))
        residual += np.square(targets[test] - mean - x[test] @ weights).sum(0)
        spread += np.square(targets[test] - mean).sum(0)
    return 1.0 - residual / np.where(spread > 1e-12, spread, np.nan)


def probe(lam_path: str | Path, source: str | Path, cache: str | Path) -> dict[str, float]:
    """Return the R^2 of each known motion for a folder of videos that has a truth beside or above it.

    Args:
        lam_path: a trained model; source: folder of videos; cache: folder for decoded frames.
    Raises:
        ValueError: the folder has no truth.
    """
    from wbvla.data.video import ClipCache
    from wbvla.lam.label import Frames, label_pairs
    from wbvla.lam.model import load_lam

    lam, source = load_lam(lam_path), Path(source)
    clips = ClipCache.open((source,), lam.contract["size"], cache)
    rows, partner, codes = label_pairs(lam, Frames(clips.frames, clips.clip, clips.t_s, clips.fingerprint))
    first, last = clips.t_s[rows], clips.t_s[partner]
    if (source / TELEMETRY).is_file():
        targets = telemetry_targets(source / TELEMETRY, first, last)
        group = (first // 1.0).astype(int)
    else:
        path = next((p for p in (source / TRUTH, source.parent / TRUTH) if p.is_file()), None)
        if path is None:
            raise ValueError(
                f"{source}: got no {TRUTH} or {TELEMETRY}, expected one beside the videos to probe against"
            )
        prefix = f"{source.name}/" if path.parent != source else ""
        truth = [json.loads(path.read_text())["clips"][prefix + name] for name in clips.names]
        targets, group = simulation_targets(truth, clips.clip[rows], first, last), clips.clip[rows]
    scores = linear_probe(codes, np.stack(list(targets.values()), 1), lam.contract["codebook_size"], group)
    return {name: float(score) for name, score in zip(targets, scores) if np.isfinite(score)}


def simulation_targets(
    truth: list[dict], clip: np.ndarray, first_s: np.ndarray, last_s: np.ndarray
) -> dict[str, np.ndarray]:
    """Motion of the body between two times of simulated clips.

    Args:
        truth: one record a clip: fps, pelvis (T, 6) x, y, z, roll, pitch, yaw in m and rad, arms_rad (T, 14).
        clip: (B,) index into truth; first_s, last_s: (B,) the times of the pair.
    Returns:
        (B,) arrays: forward, left and up displacement in m, in the heading frame of the first time; turn in rad;
        left_arm and right_arm: sum of the 7 joints' absolute changes in rad.
    """
    rows = []
    for record_index, a, b in zip(clip, first_s, last_s):
        record = truth[record_index]
        pelvis, arms = np.asarray(record["pelvis"]), np.asarray(record["arms_rad"])
        i, j = (min(round(t * record["fps"]), len(pelvis) - 1) for t in (a, b))
        dx, dy, dz, _, _, turn = pelvis[j] - pelvis[i]
        c, s = np.cos(pelvis[i, 5]), np.sin(pelvis[i, 5])
        moved = np.abs(arms[j] - arms[i])
        turn = np.arctan2(np.sin(turn), np.cos(turn))
        rows.append([c * dx + s * dy, c * dy - s * dx, dz, turn, moved[:7].sum(), moved[7:].sum()])
    return dict(zip(("forward", "left", "up", "turn", "left_arm", "right_arm"), np.array(rows).T))


def telemetry_targets(path: Path, first_s: np.ndarray, last_s: np.ndarray) -> dict[str, np.ndarray]:
    """Rotation of a GoPro between two times: rad about its vertical (turn), sideways (nod) and optical (roll) axes.

    Args:
        path: decoded telemetry with GYRO (n, 3) in rad/s and duration_s.
    """
    with np.load(path, allow_pickle=False) as file:
        gyro, duration_s = file["GYRO"], float(file["duration_s"])
    t = np.linspace(0.0, duration_s, len(gyro) + 1)
    angle = np.concatenate([np.zeros((1, 3)), np.cumsum(gyro * np.diff(t)[:, None], axis=0)])
    change = [np.interp(last_s, t, angle[:, i]) - np.interp(first_s, t, angle[:, i]) for i in range(3)]
    return {"nod": change[0], "turn": change[1], "roll": change[2]}
