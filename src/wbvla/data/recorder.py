"""Crash-safe recording. In: observations and applied actions, episode after episode. Out: a LeRobot v3 dataset.

LeRobot's writer keeps its parquet files open for a whole session, so a killed session loses everything. Here it writes
each episode into a staging folder inside the dataset (`.recording/`), which is closed, checked (video frames against
rows) and only then published file by file, `info.json` last. The dataset is loadable at every instant, and a kill
costs at most the open episode.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wbvla.contract import require_match, save_contract
from wbvla.data.durable import sync
from wbvla.data.frames import FACTS, HEAD, IMAGES, read_info
from wbvla.robots.base import Robot
from wbvla.types import ACTION_DIM, Observation, action_names, state_names
from wbvla.xvla.config import robot_facts

STAGE = ".recording"
_OWN = {"data", "videos", "meta", STAGE, ".cache"}


def dataset_features(robot: Robot, image_size: int, pictures: tuple[str, ...] = ()) -> dict:
    """The LeRobot features of a whole-body recording: head video, other pictures, state, true times, action."""
    state, action = state_names(robot.joints), action_names(robot.arm_joints)
    return {
        HEAD: _video((image_size, image_size, 3)),
        **{IMAGES + name: _video(picture_shape(name, image_size)) for name in pictures},
        "observation.state": {"dtype": "float32", "shape": (len(state),), "names": state},
        "observation.t_capture": {"dtype": "float32", "shape": (1,), "names": ["s_since_episode_start"]},
        "observation.t_state": {"dtype": "float32", "shape": (1,), "names": ["s_since_episode_start"]},
        "action": {"dtype": "float32", "shape": (ACTION_DIM,), "names": action},
    }


def picture_shape(name: str, size: int) -> tuple[int, int, int]:
    """The shape of a square picture; of those whose name ends with "_depth" it has one channel, uint16 mm."""
    return size, size, 1 if name.endswith("_depth") else 3


def _video(shape: tuple[int, int, int]) -> dict:
    feature = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    return {**feature, "info": {"is_depth_map": True}} if shape[2] == 1 else feature


def provenance_of(robot: Robot, fps: int, image_size: int, task_text: str, extra: dict) -> dict:
    """What must be equal for a recording to be continued; `extra` holds further JSON facts."""
    facts = {"robot": robot.name, "fps": fps, "image_size": image_size, "task": task_text}
    facts |= {"camera": asdict(robot.camera), "domain": robot_facts(robot.name, robot.masked_actions), **extra}
    return {"kind": "dataset", "action_time": "applied when the row's image was captured", **facts}


def saved_episodes(root: str | Path, provenance: dict) -> list[dict]:
    """The episodes of a recording that can be continued: their lengths and extras; [] where there is none yet.

    Raises:
        ValueError: another LeRobot version, a dataset not from wbvla, or one with other provenance.
    """
    root = Path(root)
    if not (root / "meta" / "info.json").is_file():
        return []
    total, path = read_info(root)["total_episodes"], root / FACTS
    try:
        old = json.loads(path.read_text())
        episodes = old.pop("episodes")[:total]  # a killed publication may have left one too many
    except (OSError, ValueError, KeyError, AttributeError):
        raise ValueError(f"{path}: missing or unreadable; not from wbvla, record into a new folder") from None
    require_match(provenance, old, f"{path}: recording")
    return episodes


def _settings() -> dict:
    """LeRobot's writer settings.

    Measured at 96 px on one core: this h264 takes 0.11 s for 200 frames at 39 dB, LeRobot's default AV1 0.40 s for
    38 dB. Every second frame is a key frame, so that random access stays cheap. Frames go through PNG files: the
    streaming encoder may drop some.
    """
    from lerobot.configs import RGBEncoderConfig

    encoder = RGBEncoderConfig(vcodec="h264", preset="ultrafast", crf=20, g=2)
    return {"rgb_encoder": encoder, "encoder_threads": 1, "video_backend": "pyav"}


def _be_quiet() -> None:
    """Silence the encoder's statistics and the progress bars that LeRobot switches on again after each load."""
    import av
    import datasets

    av.logging.set_libav_level(av.logging.ERROR)
    datasets.disable_progress_bars()


class EpisodeRecorder:
    """Record episodes into a LeRobot v3 dataset, or go on with one. Use as a context manager.

    Args:
        root: the dataset's folder; new, empty or recorded with the same robot, rate, image size and provenance.
        robot: whose joints name the state and the action.
        fps: rows per second.
        image_size: side of the square head images, pixels.
        task_text: what the robot is told.
        pictures: names of what is recorded beside the head image, of the same size; see wbvla.types.PICTURES.
        provenance: JSON facts that hold for the whole dataset (task, delays, legs' weights); kept in meta/wbvla.json.
    Attributes:
        episodes: one dictionary for each saved episode: its length and the `extra` it was saved with.
    Raises:
        ValueError: a folder with other content, a dataset that does not fit, or one that is being recorded.
    """

    def __init__(
        self,
        root: str | Path,
        robot: Robot,
        fps: int = 20,
        image_size: int = 96,
        task_text: str = "",
        provenance: dict | None = None,
        pictures: tuple[str, ...] = (),
    ) -> None:
        self.root, self.robot, self.fps, self.image_size, self.task_text = Path(root), robot, fps, image_size, task_text
        self.features = dataset_features(robot, image_size, pictures)
        self.stage = self.root / STAGE
        self.provenance = provenance_of(robot, fps, image_size, task_text, provenance or {})
        names = {p.name for p in self.root.iterdir()} if self.root.is_dir() else set()
        exists = (self.root / "meta" / "info.json").is_file()
        if not exists and not names <= _OWN:
            raise ValueError(f"{self.root}: got a folder with {min(names - _OWN)!r}, expected a new or empty one")
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self._applied: list[tuple[float, np.ndarray]] = []
        try:
            self.episodes = saved_episodes(self.root, self.provenance)
            if exists:
                self._check_features()
            self._dataset = self._stage()
        except BaseException:
            os.close(self._lock)
            raise

    def add(self, observation: Observation, action: np.ndarray, t_state_s: float) -> None:
        """Add one row. Stores as its action what was applied at the time its image was captured.

        Args:
            observation: image, other pictures, state and capture time (seconds since the episode's start).
            action: (20,) what is applied from t_state_s on.
            t_state_s: when the state was measured, same clock.
        Raises:
            ValueError: a shape, a type or a number that does not fit.
        """
        action, state = np.asarray(action, np.float32), np.asarray(observation.state, np.float32)
        n_state = 2 * len(self.robot.joints) + 10
        pictures = {IMAGES + name: np.asarray(value) for name, value in observation.pictures.items()}
        taken = {HEAD: np.asarray(observation.image), **pictures}
        shapes = {name: feature["shape"] for name, feature in self.features.items() if feature["dtype"] == "video"}
        if taken.keys() != shapes.keys():
            raise ValueError(f"pictures: got {', '.join(taken)}, expected {', '.join(shapes)}")
        for name, picture in taken.items():
            shape, kind = shapes[name], "uint8" if shapes[name][2] == 3 else "uint16"
            if picture.shape != shape or picture.dtype != kind:
                what = "image" if name == HEAD else name
                raise ValueError(f"{what}: got {picture.dtype} {picture.shape}, expected {kind} {shape}")
        for name, value, n in (("state", state, n_state), ("action", action, ACTION_DIM)):
            if value.shape != (n,) or not np.isfinite(value).all():
                raise ValueError(f"{name}: got shape {value.shape}, expected ({n},) finite numbers")
        self._applied.append((t_state_s, action))
        frame = {
            **taken,
            "observation.state": state,
            "observation.t_capture": np.array([observation.t_capture_s], np.float32),
            "observation.t_state": np.array([t_state_s], np.float32),
            "action": self._applied_at(observation.t_capture_s),
            "task": self.task_text,
        }
        self._dataset.add_frame(frame)

    def save_episode(self, extra: dict | None = None) -> None:
        """Encode, check and publish the open episode; `extra` (JSON values) goes into meta/wbvla.json.

        Raises:
            ValueError: the episode is empty, or its video does not hold one frame a row; it is dropped then.
        """
        rows = len(self._applied)
        if rows == 0:
            raise ValueError("save_episode: the episode has no rows; add some or drop it")
        _be_quiet()
        self._dataset.save_episode()
        self._dataset.finalize()
        for video in sorted(self.stage.glob("videos/*/*/*.mp4")):
            frames = count_frames(video)
            if frames != rows:
                self.drop_episode()
                raise ValueError(f"{video.name}: got {frames} video frames for {rows} rows; the episode was dropped")
        self.episodes.append({"length": rows, **(extra or {})})
        self._publish()
        self._applied = []
        self._dataset = self._resume()

    def drop_episode(self) -> None:
        """Forget the open episode."""
        self._dataset.finalize()
        self._applied = []
        self._dataset = self._stage()

    def close(self) -> None:
        """Forget the open episode, if any, and release the dataset."""
        if self._lock is None:
            return
        self._dataset.finalize()
        shutil.rmtree(self.stage, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> EpisodeRecorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _applied_at(self, t_s: float) -> np.ndarray:
        """The action that was applied at a time not after the newest row's."""
        for start_s, action in reversed(self._applied):
            if start_s <= t_s + 1e-6:
                return action
        return self._applied[0][1]

    def _take_lock(self) -> int:
        """Hold the folder itself, so that two recorders cannot mix; released when the process ends, however it does."""
        lock = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ValueError(f"{self.root}: is being recorded by another process; stop it or choose another") from None
        return lock

    def _check_features(self) -> None:
        parts, saved = ("dtype", "shape", "names"), read_info(self.root)["features"]
        wanted = {k: {f: v[f] for f in parts} for k, v in self.features.items()}
        ours = {k: v for k, v in saved.items() if k in wanted or k.startswith(IMAGES)}
        require_match(wanted, {k: {f: v[f] for f in parts} for k, v in ours.items()}, f"{self.root}: dataset")

    def _stage(self):
        """Make a fresh staging dataset that continues the published one."""
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        shutil.rmtree(self.stage, ignore_errors=True)
        if self.episodes:
            meta = self.stage / "meta"
            meta.mkdir(parents=True)
            for name in ("info.json", "stats.json", "tasks.parquet"):
                shutil.copy2(self.root / "meta" / name, meta)
            newest = _newest_episodes_file(self.root, len(self.episodes))
            copy = self.stage / newest.relative_to(self.root)
            copy.parent.mkdir(parents=True)
            shutil.copy2(newest, copy)
            return self._resume()
        return LeRobotDataset.create(
            repo_id=f"local/{self.root.name}",
            fps=self.fps,
            features=self.features,
            root=self.stage,
            robot_type=self.robot.name,
            **_settings(),
        )

    def _resume(self):
        """Let LeRobot go on in the staging folder, of which it needs only the totals and the newest episode's row."""
        import datasets
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        files = sorted((self.stage / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        for path in files[:-1]:
            path.unlink()
        # It reads that row through a cache, which would keep a folder for each episode in the user's home.
        cache, usual = self.stage / "cache", datasets.config.HF_DATASETS_CACHE
        datasets.config.HF_DATASETS_CACHE = cache
        try:
            return LeRobotDataset.resume(f"local/{self.root.name}", root=self.stage, **_settings())
        finally:
            datasets.config.HF_DATASETS_CACHE = usual
            shutil.rmtree(cache, ignore_errors=True)

    def _publish(self) -> None:
        """Move the staged episode into the dataset, in an order that keeps the dataset readable throughout."""
        files = sorted(self.stage.glob("videos/*/*/*.mp4")) + sorted(self.stage.glob("data/*/*.parquet"))
        for path in files:
            target = self.root / path.relative_to(self.stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            sync(path)
            os.replace(path, target)
        meta = sorted((self.stage / "meta" / "episodes").glob("chunk-*/file-*.parquet"))[-1:]
        meta += [self.stage / "meta" / "tasks.parquet", self.stage / "meta" / "stats.json"]
        for path in meta:
            _copy(path, self.root / path.relative_to(self.stage))
        save_contract(self.root / FACTS, {**self.provenance, "episodes": self.episodes})
        _copy(self.stage / "meta" / "info.json", self.root / "meta" / "info.json")


def count_frames(video: Path) -> int:
    """Count the frames that really decode."""
    import av

    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def _newest_episodes_file(root: Path, episodes: int) -> Path:
    """The file with the last counted episode's row, after deleting what a killed publication left beyond it.

    Data and video files beyond it need no care: the next episode takes their names.
    """
    from pyarrow import parquet

    for path in sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"), reverse=True):
        first = min(parquet.read_table(path, columns=["episode_index"])["episode_index"].to_pylist())
        if first < episodes:
            return path
        path.unlink()
    raise ValueError(f"{root}: meta/episodes lacks the {episodes} episodes of info.json; copy the dataset again")


def _copy(source: Path, target: Path) -> None:
    """Copy atomically; the hidden name keeps half-written files out of LeRobot's globs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    sync(temporary)
    os.replace(temporary, target)
