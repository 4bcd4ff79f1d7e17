"""Laws of recording: every row gets its own frame and action, and no kill costs more than the open episode."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from wbvla.data.frames import FrameCache, read_info
from wbvla.data.recorder import HEAD, EpisodeRecorder
from wbvla.robots import get_robot
from wbvla.types import Observation

SIZE, BLOCK = 96, 24
LENGTHS = (7, 40, 23)
TASK = "push the cart"


def numbered(number: int) -> np.ndarray:
    """A picture (96, 96, 3) that shows a 16-bit number as 4 x 4 black and white blocks."""
    bits = (number >> np.arange(16)) & 1
    return np.kron(bits.reshape(4, 4), np.ones((BLOCK, BLOCK)))[:, :, None].repeat(3, 2).astype(np.uint8) * 255


def number_in(image: np.ndarray) -> int:
    """Read the number back from the blocks' centres, at any resolution."""
    block = image.shape[0] // 4
    centres = image.reshape(4, block, 4, block, 3)[:, block // 3 : -block // 3, :, block // 3 : -block // 3]
    return int(((centres.mean(axis=(1, 3, 4)).ravel() > 127) << np.arange(16)).sum())


def record(recorder: EpisodeRecorder, episode: int, length: int, delay_s: float = 0.05) -> None:
    """Add rows whose picture, state and action say which row they are."""
    for i in range(length):
        number = 1000 * episode + i
        observation = Observation(numbered(number), np.full(68, number, np.float32), TASK, i / 20 - delay_s)
        recorder.add(observation, np.full(20, number, np.float32), i / 20)


def open_recorder(root: Path) -> EpisodeRecorder:
    return EpisodeRecorder(root, get_robot("g1"), image_size=SIZE, task_text=TASK, provenance={"by": "test"})


def load(root: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes recorded in two sessions, with a dropped one between them."""
    root = tmp_path_factory.mktemp("recording") / "dataset"
    with open_recorder(root) as recorder:
        record(recorder, 0, LENGTHS[0])
        recorder.save_episode({"seed": 100})
        record(recorder, 1, LENGTHS[1])
        recorder.save_episode({"seed": 101})
        record(recorder, 9, 30)
        recorder.drop_episode()
    with open_recorder(root) as recorder:
        assert [e["seed"] for e in recorder.episodes] == [100, 101]
        record(recorder, 9, 11)
        recorder.drop_episode()
        record(recorder, 2, LENGTHS[2])
        recorder.save_episode({"seed": 102})
        record(recorder, 9, 5)  # left open
    return root


EXPECTED = [1000 * episode + i for episode, n in enumerate(LENGTHS) for i in range(n)]


def test_recording_leaves_nothing_in_the_users_cache(tmp_path: Path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with open_recorder(tmp_path / "dataset") as recorder:
        for episode in range(2):
            record(recorder, episode, 5)
            recorder.save_episode()
    assert not (tmp_path / "cache").exists()


def test_lerobot_reads_every_frame_in_its_own_row(dataset: Path) -> None:
    rows = load(dataset)
    assert len(rows) == sum(LENGTHS)
    for row, expected in zip((rows[i] for i in range(len(rows))), EXPECTED):
        image = (row[HEAD].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        assert number_in(image) == expected
        assert row["observation.state"][0] == expected
        assert row["observation.t_state"] == pytest.approx((expected % 1000) / 20)
        assert row["observation.t_capture"] == pytest.approx((expected % 1000) / 20 - 0.05, abs=1e-6)
        assert row["task"] == TASK


def test_the_frame_cache_reads_every_frame_in_its_own_row(dataset: Path) -> None:
    for size in (SIZE, 48):
        cache = FrameCache.open(dataset, size)
        assert cache.images.shape == (sum(LENGTHS), size, size, 3)
        assert [number_in(image) for image in cache.images] == EXPECTED
    assert cache.states[:, 5].tolist() == EXPECTED
    assert (1000 * cache.episode + cache.frame).tolist() == EXPECTED
    assert (cache.tasks, cache.fps, set(cache.task_index)) == ([TASK], 20, {0})


def test_actions_are_those_at_the_capture_time(dataset: Path) -> None:
    cache = FrameCache.open(dataset, SIZE)
    expected = [1000 * (n // 1000) + max(0, n % 1000 - 1) for n in EXPECTED]  # a picture 50 ms old: one row earlier
    assert cache.actions[:, 0].tolist() == expected


def test_names_and_provenance_are_kept(dataset: Path) -> None:
    features = read_info(dataset)["features"]
    assert features["action"]["names"][14:] == ["gripper_left", "gripper_right", "s_x", "s_y", "s_psi", "height_m"]
    assert len(features["observation.state"]["names"]) == 68
    facts = json.loads((dataset / "meta" / "wbvla.json").read_text())
    assert [e["length"] for e in facts["episodes"]] == list(LENGTHS)
    assert (facts["robot"], facts["by"], facts["task"]) == ("g1", "test", TASK)


def test_only_the_dataset_is_left_behind(dataset: Path) -> None:
    assert {p.name for p in dataset.iterdir()} <= {"data", "meta", "videos", ".cache"}


def test_a_misfit_is_refused_in_one_line(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image_size.*got 96, expected 64"):
        EpisodeRecorder(dataset, get_robot("g1"), image_size=64, task_text=TASK, provenance={"by": "test"})
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        open_recorder(tmp_path)
    with open_recorder(tmp_path / "new") as recorder:
        with pytest.raises(ValueError, match="another process"):
            open_recorder(tmp_path / "new")
        with pytest.raises(ValueError, match=r"image: got uint8 \(48, 48, 3\)"):
            recorder.add(Observation(numbered(1)[::2, ::2], np.zeros(68), TASK, 0.0), np.zeros(20), 0.0)
        with pytest.raises(ValueError, match="finite"):
            recorder.add(Observation(numbered(1), np.zeros(68), TASK, 0.0), np.full(20, np.nan), 0.0)
        with pytest.raises(ValueError, match="no rows"):
            recorder.save_episode()


def test_a_lost_video_frame_is_noticed_and_costs_the_episode_only(tmp_path: Path) -> None:
    with open_recorder(tmp_path) as recorder:
        record(recorder, 0, 10)
        recorder.save_episode()
        record(recorder, 1, 250)
        next(recorder.stage.rglob("frame-000001.png")).unlink()  # one that LeRobot's statistics do not sample
        with pytest.raises(ValueError, match=r"249 video frames for 250 rows"):
            recorder.save_episode()
        record(recorder, 1, 6)
        recorder.save_episode()
    assert [number_in(i) for i in FrameCache.open(tmp_path, SIZE).images] == [*range(10), *range(1000, 1006)]


def test_kill_9_while_recording_costs_the_open_episode_only(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root, ignore=shutil.ignore_patterns(".cache"))
    process = _recording_process(root)
    for line in process.stdout:
        if line.strip() == "recording":
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    rows = load(root)
    assert rows.num_episodes == len(LENGTHS) + 1
    assert [number_in(i) for i in FrameCache.open(root, SIZE).images] == [*EXPECTED, *range(3000, 3005)]
    with open_recorder(root) as recorder:
        assert len(recorder.episodes) == len(LENGTHS) + 1
        record(recorder, 4, 3)
        recorder.save_episode()
    numbers = [number_in(i) for i in FrameCache.open(root, SIZE).images]
    assert numbers == [*EXPECTED, *range(3000, 3005), 4000, 4001, 4002]


def _recording_process(root: Path) -> subprocess.Popen:
    """Another Python that saves episode 3 and goes on recording until it is killed."""
    script = f"""
import pathlib, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_data_recorder as t
recorder = t.open_recorder(pathlib.Path({str(root)!r}))
t.record(recorder, 3, 5)
recorder.save_episode()
t.record(recorder, 4, 9)
print("recording", flush=True)
time.sleep(60)
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def _die_while_saving(root: Path, survive: int) -> None:
    """Save episode 3 and die at once, with kill -9, after `survive` files were put in place."""
    replace, left = os.replace, survive

    def replace_or_die(source, target) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        replace(source, target)

    with open_recorder(root) as recorder:
        record(recorder, 3, 5)
        os.replace = replace_or_die
        recorder.save_episode()


def test_kill_9_at_every_step_of_saving_leaves_a_loadable_dataset(dataset: Path, tmp_path: Path) -> None:
    """The steps: video, rows, episode, task, statistics, provenance, info."""
    load(dataset)  # lerobot is imported here once, the children are forks
    for survive in (0, 1, 2, 3, 6, 7):
        root = tmp_path / f"killed{survive}"
        shutil.copytree(dataset, root, ignore=shutil.ignore_patterns(".cache"))
        child = multiprocessing.get_context("fork").Process(target=_die_while_saving, args=(root, survive))
        child.start()
        child.join(60)
        assert child.exitcode == (-signal.SIGKILL if survive < 7 else 0)
        saved = 1 if survive == 7 else 0
        rows = load(root)
        assert len(rows) == sum(LENGTHS) + 5 * saved
        assert rows[len(rows) - 1]["episode_index"] == len(LENGTHS) - 1 + saved
        numbers = [number_in(i) for i in FrameCache.open(root, SIZE).images]
        assert numbers == [*EXPECTED, *[3000, 3001, 3002, 3003, 3004][: 5 * saved]]
        with open_recorder(root) as recorder:
            record(recorder, 4, 4)
            recorder.save_episode()
        numbers = [number_in(i) for i in FrameCache.open(root, SIZE).images]
        assert numbers == [*EXPECTED, *[3000, 3001, 3002, 3003, 3004][: 5 * saved], 4000, 4001, 4002, 4003]
        assert len(load(root)) == len(numbers)


@pytest.mark.parametrize(("name", "version"), [("g1_inspire_v21", "v2.1"), ("gr1_sim_v20_groot_demo", "v2.0")])
def test_older_lerobot_datasets_are_answered_with_the_converter(shared_data: Path, name: str, version: str) -> None:
    with pytest.raises(ValueError, match=rf"got a LeRobot {version} dataset, expected v3\.0") as error:
        FrameCache.open(shared_data / "lerobot" / name, SIZE)
    assert "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=" in str(error.value)
    assert "\n" not in str(error.value)


def edit_json(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_column(path: Path, name: str) -> None:
    parquet.write_table(parquet.read_table(path).drop_columns([name]), path)


def test_broken_datasets_are_named_in_one_line(dataset: Path, tmp_path: Path) -> None:
    def broken(name: str, damage) -> str:
        root = tmp_path / name
        shutil.copytree(dataset, root, ignore=shutil.ignore_patterns(".cache"))
        damage(root)
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            FrameCache.open(root, SIZE)
        assert "\n" not in str(error.value)
        return str(error.value)

    video = Path("videos", HEAD, "chunk-000", "file-001.mp4")
    table = Path("data", "chunk-000", "file-001.parquet")
    assert "file-001.mp4: this video of the dataset is missing" in broken("a", lambda r: (r / video).unlink())
    assert "cannot be decoded" in broken("b", lambda r: (r / video).write_bytes(b"broken"))
    other = Path("videos", HEAD, "chunk-000", "file-000.mp4")
    assert "no frame for 33 of 40 rows" in broken("c", lambda r: shutil.copy(r / other, r / video))
    assert "cannot be read" in broken("d", lambda r: (r / table).write_bytes((r / table).read_bytes()[:-4]))
    assert "got 30 rows, expected 70" in broken("e", lambda r: (r / table).unlink())
    assert "features: missing" in broken("g", lambda r: edit_json(r / "meta" / "info.json", features=None))
    assert "fps: missing or of a wrong type" in broken("h", lambda r: edit_json(r / "meta" / "info.json", fps="fast"))
    assert "has no column observation.state" in broken("i", lambda r: drop_column(r / table, "observation.state"))
    assert "tasks.parquet: cannot be read" in broken("j", lambda r: (r / "meta" / "tasks.parquet").write_text("no"))
    assert "no LeRobot dataset here" in broken("f", lambda r: shutil.rmtree(r / "meta"))
