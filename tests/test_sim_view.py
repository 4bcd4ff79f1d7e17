"""Laws of looking on: nice pictures leave the policy's view alone, the viewer needs a screen, a film shows a trial."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("mujoco")

from wbvla.data.video import read_video
from wbvla.sim.env import TaskEnv
from wbvla.sim.nice import FRAME, INSET, MARGIN, NiceCamera


def test_nice_pictures_leave_the_policys_view_and_the_world_alone():
    env = TaskEnv("box-loading", image_size=0)
    env.reset(1)
    size, qpos = 120 // INSET, env.plant.data.qpos.copy()
    head, fast = env.plant.render(size), env.plant.render_from("side", 160, 120)
    camera = NiceCamera(env.plant, 160, 120)
    nice, frame = camera.picture(), camera.frame()
    assert nice.shape == frame.shape == (120, 160, 3) and nice.dtype == np.uint8
    difference = np.abs(nice.astype(int) - fast).max(axis=2)
    assert 0.002 < (difference > 20).mean() < 0.5, "shadows and edges differ, the scene is the same"
    inset = frame[MARGIN : MARGIN + size, -MARGIN - size : -MARGIN]
    np.testing.assert_array_equal(inset, head)
    assert (frame[MARGIN - FRAME, -MARGIN - size : -MARGIN] == 255).all()
    np.testing.assert_array_equal(env.plant.data.qpos, qpos)
    camera.close()
    env.close()


def test_the_viewer_without_a_screen_names_the_film(wbvla, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = wbvla("sim", "view", "box-loading")
    assert done.returncode == 2 and "--video FILE.mp4 films the episode" in done.stderr
    assert "got 'all', expected one of bag-packing" in wbvla("sim", "view", "all").stderr


@pytest.mark.slow
def test_a_film_shows_the_whole_trial(wbvla, tmp_path):
    done = wbvla("sim", "view", "cart-pushing", "--rendering", "fast", "--video", "film.mp4", env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "subgoals: approach, grasp" in done.stdout
    frames = [frame for frame, _ in read_video(tmp_path / "film.mp4", 96)]
    assert len(frames) > 50 and np.std(frames) > 10
