"""Playback of action chunks by age.

In: chunks (T, 20) with the capture time of the observation they answer. Out: the whole-body action for any moment.
There is no clock here: time is an argument, so that the robot (monotonic time) and the evaluation (simulated time)
play the same chunk to the same commands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wbvla.types import ACTION_DIM, ARM, FLAGS, GRIPPER, HEIGHT, N_ARM, ArmTarget, LocoCommand, WholeBodyAction

MODES = ("chunk", "hold", "stand")
HOLD_S = 0.5  # after a chunk's end: its last arm pose and height are kept this long ...
HEIGHT_RAMP_M_S = 0.1  # ... then the height returns to nominal at this speed
FPS_RANGE = (1.0, 1000.0)
LONGEST_S = 5.0  # no answer may steer a robot for longer than this


def check_rate(steps: int, fps: float) -> float:
    """Return fps as a float. Raises ValueError for a rate outside 1-1000 or a chunk longer than 5 s."""
    if not (math.isfinite(fps) and FPS_RANGE[0] <= fps <= FPS_RANGE[1]):
        raise ValueError(f"fps: got {fps}, expected {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g}")
    if steps / fps > LONGEST_S:
        raise ValueError(f"chunk: got {steps} entries at {fps} a second, expected at most {LONGEST_S:g} s")
    return float(fps)


def check_chunk(chunk: np.ndarray) -> np.ndarray:
    """Return the chunk as float32 (T, 20), T >= 1. Raises ValueError unless finite with flags in {-1, 0, 1}."""
    chunk = np.asarray(chunk, np.float32)
    if chunk.ndim != 2 or chunk.shape[0] < 1 or chunk.shape[1] != ACTION_DIM:
        raise ValueError(f"chunk: got shape {chunk.shape}, expected (T, {ACTION_DIM}) with T >= 1")
    if not np.isfinite(chunk).all():
        raise ValueError("chunk: got non-finite entries, expected finite numbers")
    if not np.isin(chunk[:, FLAGS], (-1.0, 0.0, 1.0)).all():
        raise ValueError("chunk: got flags besides -1, 0 and 1, expected ternary flags; the policy thresholds them")
    return chunk


@dataclass(frozen=True)
class _Chunk:
    values: np.ndarray
    t_s: float
    fps: float

    @property
    def end_s(self) -> float:
        return self.t_s + len(self.values) / self.fps


class ChunkPlayer:
    """Plays the chunk with the newest observation; entry i applies from t_observation + i / fps.

    Laws: arms are interpolated linearly between entries and hold after the last; flags are piecewise constant and
    exactly those of the chunk; outside the chunk's time they are zero, so a walking flag never outlives its chunk.

    Args:
        arms_rad: arm pose (14,) to stand with before the first chunk.
        height_m: nominal pelvis height.
    """

    def __init__(self, arms_rad: np.ndarray, height_m: float) -> None:
        self._stand = WholeBodyAction(ArmTarget(np.array(arms_rad)), LocoCommand(height_m=height_m))
        self._chunk: _Chunk | None = None

    @property
    def t_observation_s(self) -> float | None:
        """Capture time of the observation behind the current chunk; None before the first."""
        return self._chunk.t_s if self._chunk else None

    def put(self, chunk: np.ndarray, t_observation_s: float, fps: float = 20.0) -> bool:
        """Offer a chunk (T, 20); the newest observation time wins. Return whether it was taken.

        Raises:
            ValueError: the chunk is not finite numbers with ternary flags, or a time or rate makes no sense.
        """
        chunk = check_chunk(chunk)
        fps = check_rate(len(chunk), fps)
        if not math.isfinite(t_observation_s):
            raise ValueError(f"t_observation_s: got {t_observation_s}, expected a finite time")
        if self._chunk is not None and t_observation_s <= self._chunk.t_s:
            return False
        self._chunk = _Chunk(chunk.copy(), float(t_observation_s), fps)
        return True

    def at(self, now_s: float) -> tuple[WholeBodyAction, str]:
        """Return the action for this moment and why: "chunk", "hold" (just ended) or "stand" (silent or none yet)."""
        chunk = self._chunk
        if chunk is None or now_s < chunk.t_s:  # a chunk from the future is never played early
            return self._stand, "stand"
        position = (now_s - chunk.t_s) * chunk.fps
        index = int(position + 1e-6)  # simulated times are sums of steps: do not miss an entry by rounding
        if index >= len(chunk.values):
            return self._after(chunk, now_s)
        entry = chunk.values[index]
        arms = entry[:N_ARM]
        if index + 1 < len(chunk.values):
            share = np.float32(min(max(position - index, 0.0), 1.0))
            arms = arms + share * (chunk.values[index + 1, ARM] - arms)
        s_x, s_y, s_psi = (int(s) for s in entry[FLAGS])
        loco = LocoCommand(s_x, s_y, s_psi, float(entry[HEIGHT]))
        return WholeBodyAction(ArmTarget(arms, np.clip(entry[GRIPPER], 0, 1)), loco), "chunk"

    def _after(self, chunk: _Chunk, now_s: float) -> tuple[WholeBodyAction, str]:
        """Stand with the last arm pose: keep the height for HOLD_S, then ramp it to nominal."""
        last, nominal = chunk.values[-1], self._stand.loco.height_m
        silent_s = now_s - chunk.end_s
        room = HEIGHT_RAMP_M_S * max(0.0, silent_s - HOLD_S)
        height = float(last[HEIGHT]) + min(max(nominal - float(last[HEIGHT]), -room), room)
        arms = ArmTarget(last[ARM], np.clip(last[GRIPPER], 0, 1))
        mode = "hold" if silent_s < HOLD_S else "stand"
        return WholeBodyAction(arms, LocoCommand(height_m=height)), mode
