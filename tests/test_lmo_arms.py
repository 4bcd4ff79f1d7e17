"""Laws of recorded arm motion in the legs' training: what is read, what is refused, and how it is played."""

import json

import numpy as np
import pytest

from wbvla.robots import get_robot
from wbvla.types import action_names

pytest.importorskip("mujoco")
from wbvla.lmo.arm_clips import MAX_SPEED_RAD_S, NOISE_RAD, ClipMotion, arm_motion, load_trajectories
from wbvla.lmo.bench.arms import committed
from wbvla.lmo.command import STEP_S
from wbvla.lmo.randomisation import ArmMotion

ROBOT = get_robot("g1")
ARMS = slice(ROBOT.n_lmo, ROBOT.n_lmo + 14)
DEFAULT = ROBOT.array("default")[ARMS]


def wave(seconds=3.0, fps=20.0):
    """Arms that swing about the default pose, different on every joint."""
    time = np.arange(round(seconds * fps) + 1)[:, None] / fps
    return DEFAULT + 0.2 * np.sin(2 * time + np.arange(14))


def write_dataset(root, episodes, fps=20, names=None, robot="g1"):
    """Write the parts of a LeRobot v3 recording that arm motion is read from."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = sum(len(e) for e in episodes)
    names = action_names(ROBOT.arm_joints) if names is None else names
    info = {"codebase_version": "v3.0", "robot_type": robot, "fps": fps, "total_frames": rows,
            "total_episodes": len(episodes), "features": {"action": {"dtype": "float32", "names": names}}}  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (root / "data" / "chunk-000").mkdir(parents=True)
    actions = np.concatenate([np.pad(e, ((0, 0), (0, 6))) for e in episodes]).astype(np.float32)
    columns = {"index": np.arange(rows), "action": list(actions),
               "episode_index": np.repeat(np.arange(len(episodes)), [len(e) for e in episodes])}  # fmt: skip
    order = np.random.default_rng(0).permutation(rows)  # files may hold rows in any order
    table = pyarrow.table({name: [column[i] for i in order] for name, column in columns.items()})
    parquet.write_table(table, root / "data" / "chunk-000" / "file-000.parquet")
    return root


def test_a_trajectory_is_the_same_motion_at_50_hz_whatever_holds_it(tmp_path):
    motion = wave()
    np.savez(tmp_path / "a.npz", arms_rad=motion, fps=20)
    fine = wave(fps=50)
    np.save(tmp_path / "b.npy", fine)
    dataset = write_dataset(tmp_path / "dataset", [motion, motion[::-1]])
    a, b, c, d = load_trajectories([tmp_path / "a.npz", tmp_path / "b.npy", dataset], ROBOT)
    assert a.shape == b.shape == c.shape == d.shape == (151, 14)
    np.testing.assert_allclose(a[::5], motion[::2], atol=1e-12)  # rows of both rates: every 0.1 s
    np.testing.assert_allclose(b, fine, atol=1e-12)
    np.testing.assert_allclose(c, a, atol=1e-6)
    np.testing.assert_allclose(d, a[::-1], atol=1e-6)
    assert np.abs(a - b).max() < 2e-3


def test_the_committed_clip_is_a_trajectory():
    (motion,) = load_trajectories([committed("g1")], ROBOT)
    assert motion.shape == (2998, 14)


def broken(**change):
    motion = wave()
    for (row, joint), value in change.pop("at", {}).items():
        motion[row, joint] = value
    return {"arms_rad": motion, "fps": 20.0} | change


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(at={(7, 3): np.nan}), "got a number that is none in row 7, expected finite"),
        (broken(at={(7, 3): 9.0}), "got left_elbow at 9.00 rad in row 7, expected -1.05 to 2.09; are these degrees"),
        (broken(fps=200.0), r"got 0.30 s, expected at least 1.0 s"),
        (broken(at={(20, 0): 2.0}), r"got left_shoulder_pitch at .* rad/s in row (18|20), expected at most 3.0 rad/s"),
        (broken(arms_rad=wave()[:, :7]), r"got shape \(61, 7\), expected \(T, 14\)"),
        (broken(fps=0.0), "got fps 0.0, expected rows a second above 0"),
        ({"arms": wave()}, r"got something else, expected an .npz with arms_rad \(T, 14\) and fps"),
        ({"arms_rad": np.array([{}]), "fps": 20}, "without pickle"),
    ],
)
def test_unfit_trajectories_are_refused_in_one_line(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ValueError, match=message) as error:
        load_trajectories([tmp_path / "a.npz"], ROBOT)
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


def test_unfit_places_are_refused_in_one_line(tmp_path):
    (tmp_path / "cut.npz").write_bytes(committed("g1").read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    names = [f"other_{name}" for name in action_names(ROBOT.arm_joints)]
    cases = {
        tmp_path / "none.npz": "check the path",
        tmp_path / "cut.npz": "got something else",
        tmp_path / "empty": "no LeRobot dataset here",
        write_dataset(tmp_path / "x2", [wave()], names=names, robot="x2"): "got a dataset of robot 'x2', expected the",
        write_dataset(tmp_path / "odd", [wave()], names=names[:9]): "got action names",
        write_dataset(tmp_path / "short", [wave(), wave()[:5]]): "short, episode 1: got 0.20 s",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            load_trajectories([path], ROBOT)
        assert "\n" not in str(error.value)


def clip_motion(n=64, seed=0, trajectories=None):
    return ClipMotion(
        ROBOT, n, np.random.default_rng(seed), trajectories or load_trajectories([committed("g1")], ROBOT)
    )


def test_half_of_the_worlds_play_and_never_faster_than_the_robot_may():
    motion, low, high = clip_motion(), *ROBOT.range_rad[ARMS].T
    everyone = np.ones(64, bool)
    motion.reset(everyone)
    before, visited, outputs = motion.playing.copy(), [], []
    for _ in range(400):
        outputs.append(motion.step(1.0))
        assert np.abs(motion.playing - before).max() <= MAX_SPEED_RAD_S * STEP_S + 1e-12
        before = motion.playing.copy()
        visited.append(motion.begin.copy())
    outputs = np.array(outputs)
    assert (outputs >= low).all() and (outputs <= high).all()
    assert motion.plays.sum() == 32
    clips = [len(np.unique(world)) for world in np.array(visited).T]
    assert min(clips[:32]) >= 2 and set(clips[32:]) == {1}, "8 s hold some clips of 0.8-2.5 s; the others draw none"
    np.testing.assert_array_equal(outputs[-1, 32:], motion.target[32:])
    noise = outputs[:, :32][-1] - motion.playing[:32]
    assert NOISE_RAD / 2 < noise.std() < 2 * NOISE_RAD
    assert 0.2 < motion.mirrored[:32].mean() < 0.8


def test_a_clip_is_the_recorded_motion_or_its_mirror_image():
    """Once a world has reached its clip, its targets before noise lie on the trajectory."""
    motion, (recorded,) = clip_motion(), load_trajectories([committed("g1")], ROBOT)
    index, sign = ROBOT.mirror()
    mirrored = recorded[:, index[ARMS] - ROBOT.n_lmo] * sign[ARMS]
    for _ in range(150):
        motion.step(1.0)
    away = []
    for world in np.flatnonzero(motion.plays & (motion.played_s > 0.3)):
        there = (mirrored if motion.mirrored[world] else recorded) - motion.playing[world]
        away.append(np.abs(there).max(1).min())
    # A step of 3 rad/s is 0.06 rad; rows are 20 ms apart and a world stands between two of them.
    assert len(away) >= 10 and max(away) < 2 * MAX_SPEED_RAD_S * STEP_S


def test_amplitude_scales_everything_and_zero_is_the_default_pose():
    still, half, full = clip_motion(seed=3), clip_motion(seed=3), clip_motion(seed=3)
    for _ in range(100):
        a, b, c = (m.step(x)[:32] for m, x in ((still, 0.0), (half, 0.5), (full, 1.0)))
        np.testing.assert_allclose(a, np.tile(DEFAULT, (32, 1)), atol=1e-12)
    low, high = ROBOT.range_rad[ARMS].T
    inside = (c > low) & (c < high)
    np.testing.assert_allclose((b - DEFAULT)[inside] * 2, (c - DEFAULT)[inside], atol=1e-9)


def test_reset_touches_only_the_masked_worlds():
    motion = clip_motion()
    for _ in range(50):
        motion.step(1.0)
    before = {name: getattr(motion, name).copy() for name in motion.STATE}
    mask = np.arange(64) % 3 == 0
    motion.reset(mask)
    np.testing.assert_array_equal(motion.playing[mask], np.tile(DEFAULT, (mask.sum(), 1)))
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(motion, name)[~mask], value[~mask])


def test_state_and_generator_are_all_that_a_continuation_needs():
    motion = clip_motion()
    for _ in range(80):
        motion.step(0.7)
    saved = {name: getattr(motion, name).copy() for name in motion.STATE}
    generator = motion.rng.bit_generator.state
    straight = np.array([motion.step(0.7) for _ in range(80)])
    again = clip_motion(seed=9)
    for name, value in saved.items():
        setattr(again, name, value)
    again.rng.bit_generator.state = generator
    np.testing.assert_array_equal(np.array([again.step(0.7) for _ in range(80)]), straight)


def test_random_goals_stay_as_they_were_without_trajectories():
    rng = np.random.default_rng(0)
    motion = arm_motion(ROBOT, 4, rng)
    assert type(motion) is ArmMotion
    assert type(arm_motion(ROBOT, 4, rng, (str(committed("g1")),))) is ClipMotion


def test_the_engine_plays_clips_in_training_only():
    from dataclasses import replace

    from wbvla.lmo.cpu_engine import CpuEngine
    from wbvla.recipes.lmo import get_recipe

    config = replace(get_recipe("lmo_g1_tiny"), arms=(str(committed("g1")),))
    engine = CpuEngine(ROBOT, config, 4, 0, 1)
    engine.level[:] = 1.0
    for _ in range(20):
        engine.step(np.zeros((4, 15)))
    assert type(engine.arms) is ClipMotion and np.isfinite(engine.state).all()
    assert type(CpuEngine(ROBOT, config, 4, 0, 1, training=False).arms) is ArmMotion
