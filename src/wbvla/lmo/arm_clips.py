"""Recorded arm motion for the legs' training: trajectory files and datasets in; arm targets (n, 14) at 50 Hz out.

A trajectory file is an .npz with `arms_rad` (T, 14) and `fps` (as bench/arm_clip_g1.npz), or an .npy (T, 14) at 50 Hz.
A dataset is the folder of a LeRobot v3 recording of this project; each of its episodes is a trajectory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wbvla.lmo.command import STEP_S
from wbvla.lmo.randomisation import ArmMotion
from wbvla.robots.base import Robot

MAX_SPEED_RAD_S = 3.0  # recordings and the robot's runtime keep arm targets to it
SPEED_OVER_S = 0.1  # a 20 Hz recording holds two or three 50 Hz steps a row, so the speed of one row says little
MIN_S = 1.0
RANGE_SLACK_RAD = 1e-3  # targets at a limit are rounded to float32

# The paper's stage II, structured arm perturbation: seconds of a clip, jitter of the playback rate, joint noise. Its
# rate is U[0.8, 1.5]; slower is added because the operator here moves as fast as the robot may.
CLIP_S, RATE, JITTER, NOISE_RAD = (0.8, 2.5), (0.5, 1.5), 0.25, 0.05
APPROACH_RAD_S = (0.5, MAX_SPEED_RAD_S)


def load_trajectories(paths: Sequence[str | Path], robot: Robot) -> list[np.ndarray]:
    """Read trajectories and resample them to 50 Hz, each (T, 14) rad, left arm then right.

    Raises ValueError, in one line, for a file that cannot be read or is of another robot, and for a trajectory that is
    not finite, shorter than 1 s, outside the robot's arm range or faster than 3 rad/s.
    """
    found = []
    for path in map(Path, paths):
        for name, motion, fps in _read(path, robot):
            _check(name, motion, fps, robot)
            time = np.arange(len(motion)) / fps
            at = np.arange(int(time[-1] / STEP_S + 1e-9) + 1) * STEP_S
            found.append(np.column_stack([np.interp(at, time, joint) for joint in motion.T]))
    return found


def _read(path: Path, robot: Robot) -> list[tuple[str, np.ndarray, float]]:
    """Return (name for messages, motion, rows a second) of every trajectory at a path."""
    if not path.exists():
        raise ValueError(f"arms: got {path}, expected an .npz, an .npy or a dataset's folder; check the path")
    if path.is_dir():
        return _episodes(path, robot)
    try:
        with path.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return [(str(path), content.astype(float), 1 / STEP_S)]
            return [(str(path), content["arms_rad"].astype(float), float(content["fps"]))]
    except (KeyError, ValueError, OSError, TypeError, EOFError, zipfile.BadZipFile):
        need = "an .npz with arms_rad (T, 14) and fps, or an .npy (T, 14) at 50 Hz"
        raise ValueError(f"{path}: got something else, expected {need}; save it with numpy, without pickle") from None


def _episodes(root: Path, robot: Robot) -> list[tuple[str, np.ndarray, float]]:
    from wbvla.data.frames import read_info, read_tables
    from wbvla.types import ARM, action_names

    try:
        info = read_info(root)
    except FileNotFoundError as error:
        raise ValueError(f"arms: {error}") from None
    names = (info["features"].get("action") or {}).get("names")
    if names != action_names(robot.arm_joints):
        kind = info.get("robot_type")
        got = f"a dataset of robot {kind!r}" if kind not in (None, robot.name) else f"action names {str(names)[:60]}"
        fix = f"record with `wbvla collect sim` or train the legs of that robot (--robot here is {robot.name})"
        raise ValueError(f"{root}: got {got}, expected the 20 actions of {robot.name!r}; {fix}")
    table = read_tables(root, "data", ["index", "episode_index", "action"])
    # Rows beyond info.json belong to an episode whose publication was interrupted.
    order = np.argsort(table["index"].to_numpy(), kind="stable")[: info["total_frames"]]
    actions = np.stack(table["action"].to_numpy()[order])[:, ARM].astype(float)
    episodes = table["episode_index"].to_numpy()[order]
    return [(f"{root}, episode {i}", actions[episodes == i], float(info["fps"])) for i in np.unique(episodes)]


def _check(name: str, motion: np.ndarray, fps: float, robot: Robot) -> None:
    if motion.ndim != 2 or motion.shape[1] != 14:
        raise ValueError(f"{name}: got shape {motion.shape}, expected (T, 14); store left arm, then right arm")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"{name}: got fps {fps}, expected rows a second above 0; write the recording's rate")
    if not np.isfinite(motion).all():
        row = int(np.flatnonzero(~np.isfinite(motion).all(1))[0])
        raise ValueError(f"{name}: got a number that is none in row {row}, expected finite angles; cut that part out")
    seconds = (len(motion) - 1) / fps
    if seconds < MIN_S:
        raise ValueError(f"{name}: got {max(seconds, 0):.2f} s, expected at least {MIN_S} s; record longer")
    low, high = robot.range_rad[robot.n_lmo : robot.n_lmo + 14].T
    excess = np.maximum(low - motion, motion - high)
    row, joint = np.unravel_index(excess.argmax(), excess.shape)
    if excess[row, joint] > RANGE_SLACK_RAD:
        got = f"{robot.arm_joints[joint]} at {motion[row, joint]:.2f} rad in row {row}"
        wanted = f"{low[joint]:.2f} to {high[joint]:.2f}"
        raise ValueError(f"{name}: got {got}, expected {wanted}; are these degrees, or another robot's arms?")
    rows = max(1, round(SPEED_OVER_S * fps))
    speed = np.abs(motion[rows:] - motion[:-rows]) * fps / rows
    row, joint = np.unravel_index(speed.argmax(), speed.shape)
    if speed[row, joint] > 1.01 * MAX_SPEED_RAD_S:
        got = f"{robot.arm_joints[joint]} at {speed[row, joint]:.1f} rad/s in row {row}"
        raise ValueError(f"{name}: got {got}, expected at most {MAX_SPEED_RAD_S} rad/s; smooth it, or correct its fps")


class ClipMotion(ArmMotion):
    """Arm targets of which the first half of the worlds play recorded clips and the others pursue random goals.

    A clip is a piece of a trajectory, 0.8-2.5 s long, from a random start on, mirrored left to right half of the time.
    Its time advances by (rate + jitter) x 20 ms a step, and every target gets noise (WholeBodyVLA, stage II, structured
    arm perturbation). Between clips the arms go straight to the next one's start, at 0.5-3 rad/s; before noise no joint
    is ever faster than 3 rad/s: a clip that would be waits.

    Args:
        trajectories: from `load_trajectories`, (T, 14) each.
    """

    STATE = (*ArmMotion.STATE, "playing", "begin", "played_s", "clip_s", "rate", "approach", "mirrored")

    def __init__(self, robot: Robot, n: int, rng: np.random.Generator, trajectories: Sequence[np.ndarray], xp=np):
        super().__init__(robot, n, rng, xp)
        arms = slice(robot.n_lmo, robot.n_lmo + 14)
        index, sign = robot.mirror()
        self._other_side = xp.array(index[arms] - robot.n_lmo), xp.array(sign[arms])
        self._low, self._high = xp.array(robot.range_rad[arms]).T
        self._rows = xp.array(np.concatenate(trajectories))
        count = np.array([len(t) for t in trajectories])
        self._chance = count / count.sum()
        self._count, self._first = xp.array(count), xp.array(np.cumsum(count) - count)
        self.plays = xp.arange(n) < (n + 1) // 2
        self.playing = xp.tile(self.default, (n, 1))  # targets before amplitude and noise
        self.begin, self.played_s, self.clip_s = xp.zeros(n), xp.zeros(n), xp.zeros(n)  # begin: row, not whole
        self.rate, self.approach, self.mirrored = xp.ones(n), xp.ones(n), xp.zeros(n, bool)
        self._draw(self.plays)

    def reset(self, mask: np.ndarray) -> None:
        """Put the masked worlds' arms into the default pose, before a new clip."""
        super().reset(mask)
        self.playing[mask] = self.default
        self._draw(mask & self.plays)

    def begin_at(self, mask: np.ndarray, pose: np.ndarray) -> None:
        """Put the masked worlds' arms into poses (k, 14); a clip is approached from there."""
        super().begin_at(mask, pose)
        self.playing[mask] = pose

    @property
    def ahead(self) -> np.ndarray:
        """Where the arms are heading (n, 14), rad: a clip's pose now, or the goal."""
        return self.xp.where(self.plays[:, None], self._at_clip(), self.goal)

    def step(self, amplitude: np.ndarray) -> np.ndarray:
        """Advance 20 ms; return the targets (n, 14), rad.

        amplitude: (n,), or one number for all; scales deviations from the default, and noise.
        """
        xp = self.xp
        targets = xp.copy(super().step(amplitude))
        self._draw(self.plays & (self.played_s >= self.clip_s))
        step_rad = MAX_SPEED_RAD_S * STEP_S
        there = xp.amax(abs(self._at_clip() - self.playing), axis=1) <= step_rad
        pace = self.rate + self.rng.uniform(-JITTER, JITTER, self.n)
        self.played_s = xp.where(there, xp.minimum(self.clip_s, self.played_s + pace * STEP_S), self.played_s)
        limit = xp.where(there, step_rad, self.approach * STEP_S)[:, None]
        self.playing = self.playing + xp.clip(self._at_clip() - self.playing, -limit, limit)
        noise = self.rng.normal(0.0, NOISE_RAD, self.playing.shape)
        amplitude = xp.broadcast_to(amplitude, self.n)[:, None]
        played = xp.clip(self.default + amplitude * (self.playing - self.default + noise), self._low, self._high)
        targets[self.plays] = played[self.plays]
        return targets

    def _at_clip(self) -> np.ndarray:
        """Return the trajectories at the worlds' times, (n, 14); linear between rows."""
        at = self.begin + self.played_s / STEP_S
        row = self.xp.clip(self.xp.asarray(at, int), None, len(self._rows) - 2)
        share = (at - row)[:, None]
        pose = (1 - share) * self._rows[row] + share * self._rows[row + 1]
        index, sign = self._other_side
        return self.xp.where(self.mirrored[:, None], pose[:, index] * sign, pose)

    def _draw(self, mask: np.ndarray) -> None:
        """Give the masked worlds a new clip; a trajectory's chance is its share of all recorded time."""
        k = int(mask.sum())
        if k == 0:
            return
        which = self.rng.choice(len(self._count), k, p=self._chance)
        last_s = (self._count[which] - 1) * STEP_S
        self.clip_s[mask] = clip_s = self.xp.minimum(self.rng.uniform(*CLIP_S, k), last_s)
        self.begin[mask] = self._first[which] + self.rng.random(k) * (last_s - clip_s) / STEP_S
        self.played_s[mask] = 0.0
        self.rate[mask], self.approach[mask] = self.rng.uniform(*RATE, k), self.rng.uniform(*APPROACH_RAD_S, k)
        self.mirrored[mask] = self.rng.random(k) < 0.5


def arm_motion(robot: Robot, n: int, rng: np.random.Generator, paths: Sequence[str] = (), xp=np) -> ArmMotion:
    """Return random goals for all worlds or, given trajectories, clips for half of them. Raises ValueError."""
    return ClipMotion(robot, n, rng, load_trajectories(paths, robot), xp) if paths else ArmMotion(robot, n, rng, xp)
