"""Laws of the way between joints and end-effector poses: rotations, both arms, and whole datasets go there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vla_world import edit_json
from wbvla.data.frames import FrameCache, read_info, read_tables
from wbvla.data.recorder import EpisodeRecorder
from wbvla.robots import get_robot
from wbvla.types import Observation
from wbvla.xvla.config import Source
from wbvla.xvla.convert import Convert, run
from wbvla.xvla.poses import PalmPoses
from wbvla.xvla.rotations import rotation_6d, rotation_matrix
from wbvla.xvla.sources import describe, stored_domain

REAL = Path(__file__).parents[2] / "shared/data/lerobot/g1_inspire_v21/data/chunk-000/episode_000028.parquet"
SEVENTH_JOINT_RAD = 0.02  # a palm's pose leaves an arm of seven joints one way to move; see poses.PalmPoses.inverse


def test_rotations_go_there_and_back():
    rng = np.random.default_rng(0)
    matrices = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
    matrices *= np.sign(np.linalg.det(matrices))[:, None, None]
    assert np.array_equal(rotation_6d(matrices)[:, :3], matrices[:, :, 0])  # first column, then second
    np.testing.assert_allclose(rotation_matrix(rotation_6d(matrices)), matrices, atol=1e-12)
    rough = rotation_matrix(rotation_6d(matrices) * 1.3 + rng.normal(size=(50, 6)) * 0.05)
    np.testing.assert_allclose(rough @ rough.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-9)
    with pytest.raises(ValueError, match="two columns that are zero or parallel"):
        rotation_matrix(np.zeros((1, 6)))


@pytest.mark.parametrize("name", ["g1", "x2"])
def test_arms_go_there_and_back(name):
    """Joints near the answer are found again; the palms' poses always are."""
    robot, rng = get_robot(name), np.random.default_rng(1)
    poses = PalmPoses(robot)
    low, high = robot.range_rad[robot.n_lmo : robot.n_lmo + 14].T
    middle = robot.array("default")[robot.n_lmo : robot.n_lmo + 14]
    arms = np.clip(middle + rng.uniform(-0.3, 0.3, (6, 14)), low + 0.05, high - 0.05)
    held = rng.uniform(size=(6, 2))
    there = poses.forward(arms, held)
    back, grippers = poses.inverse(there, arms + rng.normal(size=(6, 14)) * 0.01)
    np.testing.assert_allclose(back, arms, atol=SEVENTH_JOINT_RAD)
    np.testing.assert_allclose(grippers, held, atol=1e-6)
    np.testing.assert_allclose(poses.forward(back, grippers), there, atol=2e-4)
    far, _ = poses.inverse(there, np.tile(middle, (6, 1)))  # from farther, the palms arrive all the same
    np.testing.assert_allclose(poses.forward(far, held), there, atol=2e-4)
    there[3, 0] += 2.0
    with pytest.raises(ValueError, match=f"row 3: the palms' poses are beyond the arms of '{name}' by"):
        poses.inverse(there, arms)
    with pytest.raises(ValueError, match=r"arm joints: got \(6, 13\), expected \(N, 14\)"):
        poses.forward(arms[:, :13], held)


def test_a_mirrored_robot_has_mirrored_poses():
    """Left and right are not confused: mirrored joints give mirrored palms."""
    robot = get_robot("g1")
    poses, rng = PalmPoses(robot), np.random.default_rng(2)
    index, sign = robot.mirror()
    n = robot.n_lmo
    arms = rng.uniform(-0.4, 0.4, (3, 14))
    mirrored = arms[:, index[n : n + 14] - n] * sign[n : n + 14]
    one, other = (poses.forward(a, np.zeros((3, 2))) for a in (arms, mirrored))
    np.testing.assert_allclose(other[:, 10:13], one[:, 0:3] * [1, -1, 1], atol=1e-4)


@pytest.mark.skipif(not REAL.is_file(), reason=f"no recording of a real G1 at {REAL}")
def test_a_real_recording_goes_there_and_back():
    """Commands of a teleoperated G1, seeded with what its arms measured."""
    from pyarrow import parquet

    table = parquet.read_table(REAL)
    action, state = (np.stack(table[k].to_numpy())[::40, :14] for k in ("action", "observation.state"))
    robot = get_robot("g1")
    limits = robot.range_rad[robot.n_lmo : robot.n_lmo + 14].T
    action = np.clip(action, *limits)
    poses = PalmPoses(robot)
    there = poses.forward(action, np.zeros((len(action), 2)))
    back, _ = poses.inverse(there, state)
    np.testing.assert_allclose(poses.forward(back, np.zeros((len(action), 2))), there, atol=2e-4)
    np.testing.assert_allclose(back, action, atol=SEVENTH_JOINT_RAD)
    assert np.abs(action - state).max() > 3 * SEVENTH_JOINT_RAD  # the seeds are not the answer


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A short recording of arms that lag a little behind their targets."""
    root, robot, rng = tmp_path_factory.mktemp("data") / "joints", get_robot("g1"), np.random.default_rng(3)
    with EpisodeRecorder(root, robot, image_size=32, task_text="wave") as recorder:
        for _ in range(2):
            phase = rng.uniform(0, 6)
            for i in range(8):
                targets = robot.array("default")[15:29] + 0.3 * np.sin(phase + 0.1 * i + np.arange(14))
                targets = np.clip(targets, *robot.range_rad[15:29].T)
                state = np.zeros(68, np.float32)
                state[15:29] = targets - 0.01
                action = np.concatenate([targets, [0, 0, 1, 0, -1, 0.7]]).astype(np.float32)
                image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                recorder.add(Observation(image, state, "wave", i / 20), action, i / 20)
            recorder.save_episode()
    return root


def column(root: Path, key: str) -> np.ndarray:
    return np.stack(read_tables(root, "data", [key])[key].to_numpy())


def test_a_dataset_goes_there_and_back(recording, tmp_path):
    run(Convert(str(recording), str(tmp_path / "poses")))
    run(Convert(str(tmp_path / "poses"), str(tmp_path / "back"), "joints"))
    before, after = column(recording, "action"), column(tmp_path / "back", "action")
    np.testing.assert_allclose(after[:, :14], before[:, :14], atol=SEVENTH_JOINT_RAD)
    assert np.array_equal(after[:, 14:], before[:, 14:])  # flags and height
    assert np.array_equal(column(tmp_path / "back", "observation.state"), column(recording, "observation.state"))
    features = [read_info(root)["features"] for root in (recording, tmp_path / "back")]
    for key in ("action", "observation.state"):
        assert features[0][key]["names"] == features[1][key]["names"]
    assert features[0].keys() == features[1].keys()
    pictures = [FrameCache.open(root, 32).images for root in (recording, tmp_path / "back")]
    assert np.array_equal(*pictures)
    # what is stored fits what is in it, and training takes it for another robot than the one with joints
    poses = column(tmp_path / "poses", "action")
    assert poses.shape == (16, 20)
    stats = json.loads((tmp_path / "poses" / "meta" / "stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["mean"], poses.mean(0), atol=1e-4)
    name, domain = describe(Source(str(tmp_path / "poses")), {})
    assert (name, domain.action, domain.state_dim) == ("g1_ee6d", "ee6d", 20) and domain.id >= 1000
    assert stored_domain(tmp_path / "back") == stored_domain(recording)
    from lerobot.datasets import LeRobotDataset

    row = LeRobotDataset("local/poses", root=tmp_path / "poses", video_backend="pyav")[3]
    assert row["action"].shape == (20,) and row["task"] == "wave"


def test_what_cannot_be_converted_is_refused(recording, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(ValueError, match="got 20 entries without 'left_wrist_yaw.*choose another --robot") as caught:
        bad = copy_meta(recording, tmp_path / "renamed", "left_wrist_yaw")
        run(Convert(str(bad), out))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="got no observation.body beside 20-D poses"):
        run(Convert(str(recording), out, "joints"))
    with pytest.raises(ValueError, match="robot: got 'r2d2'"):
        run(Convert(str(recording), out, robot="r2d2"))
    with pytest.raises(FileNotFoundError, match="no LeRobot dataset here"):
        run(Convert(str(tmp_path / "nothing"), out))
    with pytest.raises(ValueError, match="holds something, expected a new or empty folder"):
        run(Convert(str(recording), str(recording)))
    assert not Path(out).exists()


def copy_meta(root: Path, copy: Path, unnamed: str) -> Path:
    """Copy a dataset and give one of its action entries another name."""
    import shutil

    shutil.copytree(root, copy)
    features = read_info(copy)["features"]
    names = features["action"]["names"]
    names[names.index(unnamed)] = "joint_7"
    edit_json(copy / "meta" / "info.json", features=features)
    return copy
