"""Laws of depth and wrist pictures: true distances, the lens's limits, off by default, recorded as LeRobot has them."""

import json

import numpy as np
import pytest

from sim_world import StandStill
from wbvla.data.recorder import EpisodeRecorder
from wbvla.sim.env import TaskEnv
from wbvla.sim.tasks.base import palm_geoms
from wbvla.types import PICTURES

SIZE = 96


def make(robot="g1", **arguments):
    env = TaskEnv("box-loading", robot, image_size=SIZE, controller=StandStill(robot), **arguments)
    try:
        env.reset(0)
    except ValueError as error:
        pytest.skip(str(error))
    return env


@pytest.fixture(scope="module")
def env():
    return make(pictures=PICTURES)


def test_depth_is_the_distance_along_the_optical_axis(env):
    plant = env.plant
    model, data = plant.model, plant.data
    env.reset(3)
    depth = plant.picture("head_depth", SIZE)
    camera = model.camera("head").id
    turn, eye = data.cam_xmat[camera].reshape(3, 3), data.cam_xpos[camera]
    half = np.tan(np.radians(model.cam_fovy[camera] / 2))
    compared = 0
    for row in range(0, SIZE, 5):
        for column in range(0, SIZE, 5):
            x, y = ((2 * column + 1) / SIZE - 1) * half, (1 - (2 * row + 1) / SIZE) * half
            ray = turn @ [x, y, -1.0]
            expected = first_hit(model, data, eye, ray)
            got = depth[row, column, 0] / 1000
            assert got == 0 or abs(got - expected) < 0.02 * expected or edge(depth[..., 0], row, column)
            compared += got > 0
    assert compared > 200


def first_hit(model, data, eye, ray):
    """Metres along the optical axis to the first drawn thing."""
    import mujoco

    geom = np.zeros(1, np.int32)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    far = mujoco.mj_ray(model, data, eye, ray / np.linalg.norm(ray), groups, 1, -1, geom)
    return far / np.linalg.norm(ray)


def edge(depth, row, column):
    """Whether the distance jumps beside a pixel: there a ray and a pixel may see two things."""
    near = depth[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].astype(float)
    return near.max() > 1.03 * near.min()


def test_depth_ends_where_the_lens_ends(env):
    depth = env.plant.picture("head_depth", SIZE)
    assert (depth.dtype, depth.shape) == (np.uint16, (SIZE, SIZE, 1))
    rows = np.flatnonzero((depth > 0).any((1, 2)))
    seen = 2 * np.degrees(np.arctan(len(rows) / SIZE * np.tan(np.radians(69.0 / 2))))
    assert seen == pytest.approx(58.0, abs=1.5) and rows[0] == SIZE - 1 - rows[-1]
    assert (depth > 0).any((0, 2)).all(), "87 degrees are wider than the picture"
    assert depth[depth > 0].min() >= 280


def test_a_wrist_camera_sees_its_own_hand_and_not_the_other(env):
    model = env.plant.model
    palms = palm_geoms(model)
    colours = model.geom_rgba[palms].copy()
    try:
        for i, name in enumerate(("left_wrist", "right_wrist")):
            before = [env.plant.picture(n, SIZE).astype(int) for n in ("left_wrist", "right_wrist")]
            model.geom_rgba[palms[i], :3] = [1.0, 0.0, 0.0]
            after = [env.plant.picture(n, SIZE).astype(int) for n in ("left_wrist", "right_wrist")]
            changed = [float((np.abs(a - b).max(2) > 30).mean()) for a, b in zip(after, before)]
            assert 0.05 < changed[i] < 0.7, name
            assert changed[1 - i] < 0.05
    finally:
        model.geom_rgba[palms] = colours


def test_more_pictures_change_nothing_else_and_are_of_the_same_instant(env):
    plain = make()
    for seed in (1, 2):
        a, b = plain.reset(seed), env.reset(seed)
        for _ in range(3):
            assert np.array_equal(a.image, b.image) and np.array_equal(a.state, b.state)
            assert a.pictures == {} and tuple(b.pictures) == PICTURES
            a, b = plain.step(plain.applied)[0], env.step(env.applied)[0]
    seen = {}
    for _ in range(8):
        env.tick(env.body.last)
        seen[round(env.t_s, 4)] = env.plant.picture("left_wrist", SIZE)
    late = env.observe()
    assert np.array_equal(late.pictures["left_wrist"], seen[round(late.t_capture_s, 4)])


def test_gymnasium_gives_them_by_name():
    import gymnasium

    from wbvla.sim.gym import LeRobotView

    arguments = {"image_size": 48, "controller": StandStill()}
    wrapped = gymnasium.make("wbvla/BoxLoading-v0", pictures=PICTURES, **arguments)
    observation, _ = wrapped.reset(seed=5)
    assert list(observation) == ["image", "state", *PICTURES] and wrapped.observation_space.contains(observation)
    view = LeRobotView.make("box-loading", "test", pictures=("left_wrist",), **arguments)
    observation, _ = view.reset(seed=0)
    assert list(observation["pixels"]) == ["head", "left_wrist"] and view.observation_space.contains(observation)
    with pytest.raises(ValueError, match="expected different ones of head_depth, left_wrist, right_wrist"):
        gymnasium.make("wbvla/BoxLoading-v0", pictures=("left_foot",), **arguments)


def test_they_are_recorded_as_lerobot_has_them(env, tmp_path):
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    env.reset(4)
    shown = [env.step(env.applied)[0] for _ in range(5)]
    with EpisodeRecorder(tmp_path / "d", env.robot, 20, SIZE, "look", {}, PICTURES) as recorder:
        for i, observation in enumerate(shown):
            recorder.add(observation, env.applied, i / 20)
        recorder.save_episode()
        with pytest.raises(ValueError, match="expected .*left_wrist"):
            recorder.add(make().observe(), env.applied, 0.0)
    dataset = datasets.LeRobotDataset("local/d", root=tmp_path / "d", video_backend="pyav")
    assert dataset.meta.depth_keys == ["observation.images.head_depth"]
    for i, observation in enumerate(shown):
        row = dataset[i]
        depth = row["observation.images.head_depth"].numpy().reshape(SIZE, SIZE).astype(float)
        true = observation.pictures["head_depth"][..., 0]
        near = (true > 0) & (true < 9000)
        assert np.abs(depth - true)[near].max() < 8.0, "12 bits up to 10 m"
        wrist = 255 * row["observation.images.left_wrist"].numpy().transpose(1, 2, 0)
        assert np.abs(wrist - observation.pictures["left_wrist"]).mean() < 6.0
    assert "pictures" not in json.loads((tmp_path / "d" / "meta" / "wbvla.json").read_text())
    with pytest.raises(ValueError, match="head_depth"):
        EpisodeRecorder(tmp_path / "d", env.robot, 20, SIZE, "look", {})
