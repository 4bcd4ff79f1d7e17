"""A LeRobot v3 dataset as arrays. In: its folder. Out: decoded frames, states and actions, row for row.

The files are read directly (parquet and mp4), without importing lerobot: its random access decodes a video for every
sample, this decodes each one once into a memory-mapped array beside the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.data.cache import cached, fingerprint
from wbvla.data.progress import Progress
from wbvla.data.video import decode_video, square, squash

FACTS = "meta/wbvla.json"  # what LeRobot's files do not say: task, delays, camera, the robot's domain
IMAGES = "observation.images."
HEAD = IMAGES + "head"
_LAYOUT = "frames v1"
_INFO = {"fps": (int, float), "total_frames": int, "total_episodes": int, "features": dict}


def read_info(root: str | Path) -> dict:
    """Read meta/info.json and check that it is a LeRobot v3 dataset.

    Raises:
        FileNotFoundError: there is no dataset at `root`.
        ValueError: another version; the message names LeRobot's converter.
    """
    root = Path(root)
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise FileNotFoundError(f"{root}: no LeRobot dataset here (meta/info.json is missing); check the path")
    try:
        info = json.loads(path.read_text())
        version = str(info["codebase_version"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a LeRobot info.json (no codebase_version); copy the dataset again") from None
    convert = (
        f"python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={root.name} --root={root} --push-to-hub=false"
    )
    if version.startswith("v2.0"):
        first = "convert it to v2.1 with lerobot 0.3 (convert_dataset_v20_to_v21) first, then run"
        raise ValueError(f"{root}: got a LeRobot {version} dataset, expected v3.0; {first}: {convert}")
    if version.startswith("v2"):
        raise ValueError(f"{root}: got a LeRobot {version} dataset, expected v3.0; run: {convert}")
    if not version.startswith("v3"):
        raise ValueError(f"{root}: got a LeRobot dataset of version {version}, expected v3.0")
    wrong = [name for name, kind in _INFO.items() if not isinstance(info.get(name), kind)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)}: missing or of a wrong type; copy the dataset again")
    return info


def read_facts(root: str | Path) -> dict:
    """Read what our recorder or converter stored with a dataset beside LeRobot's files; {} for anybody else's.

    Raises:
        ValueError: the file is unreadable.
    """
    path = Path(root) / FACTS
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError(f"{path}: unreadable; copy the dataset again")
    return facts


def read_tables(root: str | Path, folder: str, columns: list[str] | None = None):
    """Read and join the parquet files of "data" or "meta/episodes" into one pyarrow table, in file order.

    Raises:
        ValueError: no file, one without a footer (a recording that was killed; see wbvla's recorder), or one without a
            wanted column.
    """
    import pyarrow
    from pyarrow import parquet

    files = sorted((Path(root) / folder).glob("chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(
            f"{root}: has no {folder}/chunk-*/file-*.parquet; the recording was not finished, record again"
        )
    tables = []
    for path in files:
        try:
            table = parquet.ParquetFile(path).read(columns=columns)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]}); restore or delete it") from None
        missing = [name for name in columns or () if name not in table.column_names]
        if missing:
            raise ValueError(f"{path}: has no column {', '.join(missing)}; copy the dataset again, or use another")
        tables.append(table)
    return pyarrow.concat_tables(tables)


@dataclass(frozen=True)
class FrameCache:
    """A dataset's head images and vectors, one entry a row.

    Attributes:
        images: (N, size, size, 3) uint8, memory-mapped.
        states: (N, S) float32 `observation.state`; actions: (N, A) float32 `action`.
        episode: (N,) int64 episode index; frame: (N,) int64 index in the episode; fps: rows per second.
        task_index: (N,) int64, index into `tasks`.
        fingerprint: changes when any file of the dataset or the size does.
    """

    images: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    episode: np.ndarray
    frame: np.ndarray
    task_index: np.ndarray
    tasks: list[str]
    fps: int
    fingerprint: str

    @classmethod
    def open(cls, dataset_root: str | Path, size: int, camera: str = HEAD, whole: bool = False) -> FrameCache:
        """Open the cache of a dataset, decoding its videos first when they are new or have changed.

        Args:
            dataset_root: folder of a LeRobot v3 dataset.
            size: side of the square images, pixels.
            camera: feature to decode; a dataset's only camera is taken whatever its name.
            whole: keep all of an oblong picture, squashed (X-VLA); else its centre square.
        Raises:
            FileNotFoundError, ValueError: no dataset, a foreign version, a broken or missing video.
        """
        root = Path(dataset_root)
        info = read_info(root)
        camera = _camera(root, info, camera)
        folders = ("data", "meta/episodes", f"videos/{camera}")
        files = [p for f in folders for p in sorted((root / f).glob("chunk-*/file-*"))]
        files += [root / "meta" / "info.json", root / "meta" / "tasks.parquet"]
        missing = next((p for p in files if not p.is_file()), None)
        if missing is not None:
            raise ValueError(f"{root}: {missing.relative_to(root)} is missing; the dataset is not whole, copy it again")
        scale, kind = (squash, "-whole") if whole and _oblong(info["features"][camera]) else (square, "")
        key = fingerprint(((p.relative_to(root).as_posix(), p) for p in files), f"{_LAYOUT} {size}{kind} {camera}")
        folder = root / ".cache" / f"frames-{size}px{kind}-{camera}"
        meta = cached(folder, key, lambda out: _build(out, root, info, camera, size, scale))
        shape = (meta["frames"], size, size, 3)
        arrays = {n: np.load(folder / f"{n}.npy", allow_pickle=False) for n in meta["arrays"]}
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
        return cls(images=images, tasks=meta["tasks"], fps=int(info["fps"]), fingerprint=key, **arrays)


def _camera(root: Path, info: dict, wanted: str) -> str:
    """Choose the video feature to decode."""
    cameras = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    if wanted in cameras:
        return wanted
    if len(cameras) != 1:
        raise ValueError(f"{root}: got the video features {cameras}, expected {wanted!r}; choose one of them")
    return cameras[0]


def _oblong(feature: dict) -> bool:
    sides = [n for n in feature["shape"] if n > 4]  # channels come first or last
    return len(set(sides)) > 1


def _build(folder: Path, root: Path, info: dict, camera: str, size: int, scale: Callable) -> dict:
    """Write the arrays and the decoded images of a dataset into a cache folder."""
    columns = ["index", "episode_index", "frame_index", "timestamp", "task_index", "observation.state", "action"]
    table = read_tables(root, "data", columns)
    # Rows beyond info.json belong to an episode whose publication was interrupted.
    order = np.argsort(table["index"].to_numpy(), kind="stable")[: info["total_frames"]]
    if len(order) != info["total_frames"]:
        raise ValueError(f"{root}: got {len(order)} rows, expected {info['total_frames']}; copy the dataset again")
    column = {name: table[name].to_numpy()[order] for name in columns[1:5]}
    arrays = {
        "states": np.stack(table["observation.state"].to_numpy()[order]).astype(np.float32),
        "actions": np.stack(table["action"].to_numpy()[order]).astype(np.float32),
        "episode": column["episode_index"].astype(np.int64),
        "frame": column["frame_index"].astype(np.int64),
        "task_index": column["task_index"].astype(np.int64),
    }
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)
    n = len(order)
    images = np.memmap(folder / "images.u8", np.uint8, "w+", shape=(n, size, size, 3))
    progress = Progress("decode dataset", n, "frames")
    for path, rows in _rows_by_video(root, camera, column, float(info["fps"])):
        _decode_rows(path, rows, float(info["fps"]), images, scale)
        progress.advance(len(rows))
    images.flush()
    progress.close()
    return {"frames": n, "arrays": sorted(arrays), "tasks": _tasks(root / "meta" / "tasks.parquet")}


def _tasks(path: Path) -> list[str]:
    """Read the sentences, in the order of their index."""
    from pyarrow import parquet

    try:
        tasks = parquet.read_table(path).to_pandas().sort_values("task_index")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]}); copy the dataset again") from None
    return [str(text) for text in tasks.index]


def _rows_by_video(root: Path, camera: str, column: dict, fps: float) -> Iterator[tuple[Path, dict[int, int]]]:
    """Yield each video file with the rows it holds: {frame number in the file: row}."""
    prefix = f"videos/{camera}/"
    names = ["episode_index", f"{prefix}chunk_index", f"{prefix}file_index", f"{prefix}from_timestamp"]
    episodes = read_tables(root, "meta/episodes", names).to_pydict()
    by_file: dict[Path, dict[int, int]] = {}
    for episode, chunk, file, start_s in zip(*(episodes[name] for name in names)):
        if not (column["episode_index"] == episode).any():
            continue
        path = root / "videos" / camera / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
        rows = by_file.setdefault(path, {})
        for row in np.flatnonzero(column["episode_index"] == episode):
            rows[round((start_s + float(column["timestamp"][row])) * fps)] = int(row)
    yield from by_file.items()


def _decode_rows(path: Path, rows: dict[int, int], fps: float, images: np.ndarray, scale: Callable) -> None:
    """Decode one video file into the rows that it holds; every row must get its own frame."""
    if not path.is_file():
        raise ValueError(f"{path}: this video of the dataset is missing; copy the dataset again")
    left = dict(rows)
    for frame, t_s in decode_video(path, None):
        row = left.pop(round(t_s * fps), None)
        if row is not None:
            images[row] = scale(frame, images.shape[1])
    if left:
        raise ValueError(
            f"{path}: holds no frame for {len(left)} of {len(rows)} rows; the recording lost frames, drop it"
        )
