"""Frame pairs k seconds apart. In: clip index and time of every frame. Out: each one's partner, and a held-out part."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

NO_PARTNER = -1
_HELD_OUT_CLIPS = 0.1
_HELD_OUT_TAIL = 0.2


def frame_pairs(clip: np.ndarray, t_s: np.ndarray, k_s: float) -> np.ndarray:
    """Find for each frame the frame of its clip that was taken k_s later, by true times.

    Args:
        clip: (N,) clip or episode of each frame; the frames of a clip are adjacent.
        t_s: (N,) capture times, seconds, increasing within a clip; rates may differ and frames may be missing.
        k_s: gap, seconds.
    Returns:
        (N,) int64 row of the partner, or -1 where none lies within half a frame interval of t + k_s.
    """
    if not k_s > 0:
        raise ValueError(f"k_s: got {k_s!r}, expected a positive number of seconds, for example 0.5")
    partner = np.full(len(clip), NO_PARTNER, np.int64)
    for start, stop in _spans(clip):
        t = t_s[start:stop]
        if len(t) < 2:
            continue
        wanted = t + k_s
        right = np.clip(np.searchsorted(t, wanted), 1, len(t) - 1)
        nearest = right - (wanted - t[right - 1] < t[right] - wanted)
        near = np.abs(t[nearest] - wanted) <= 0.5 * np.median(np.diff(t)) + 1e-6
        ok = near & (nearest > np.arange(len(t)))
        partner[start:stop][ok] = start + nearest[ok]
    return partner


def held_out(clip: np.ndarray, clip_source: np.ndarray) -> np.ndarray:
    """Choose frames to keep from training: a tenth of a source's clips, or the last fifth of each when it has few.

    Args:
        clip: (N,) clip of each frame; clip_source: (clips,) source of each clip.
    Returns:
        (N,) bool. A pair belongs to a part when both of its frames do.
    """
    mask = np.zeros(len(clip), bool)
    chosen = set()
    few = set()
    for source in np.unique(clip_source):
        clips = np.flatnonzero(clip_source == source)
        n = round(_HELD_OUT_CLIPS * len(clips))
        if n:
            chosen |= set(np.random.default_rng(int(source)).permutation(clips)[:n].tolist())
        else:
            few |= set(clips.tolist())
    for start, stop in _spans(clip):
        if clip[start] in chosen:
            mask[start:stop] = True
        elif clip[start] in few:
            mask[stop - round(_HELD_OUT_TAIL * (stop - start)) : stop] = True
    return mask


def _spans(clip: np.ndarray) -> list[tuple[int, int]]:
    """List the (start, stop) rows of each run of equal clip indices."""
    edges = [0, *(np.flatnonzero(np.diff(clip)) + 1).tolist(), len(clip)]
    return [(a, b) for a, b in pairwise(edges) if b > a]
