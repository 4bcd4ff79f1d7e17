"""Laws of first-person clips: a clip follows from its seed and index, families move what they say, runs continue."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wbvla.collect import egocentric
from wbvla.collect.egocentric import KINDS, CollectClips, run, run_clips
from wbvla.collect.motion import DT_S, PRIMITIVES, approach, primitive, reach, walk
from wbvla.data.video import ClipCache
from wbvla.robots import get_robot

N_LOCO, N_MANI = 5, 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("clips")
    return out, run_clips(out, N_LOCO, N_MANI, size=48, seed=5, workers=1)


def test_clips_decode_and_their_truth_fits(clips: tuple[Path, dict]) -> None:
    out, truth = clips
    cache = ClipCache.open((out / "loco", out / "mani"), 48, out / ".cache")
    assert cache.source.tolist() == [0] * N_LOCO + [1] * N_MANI
    for clip, name in enumerate(truth["clips"]):
        facts = truth["clips"][name]
        times = cache.t_s[cache.clip == clip]
        np.testing.assert_allclose(times, np.arange(len(facts["pelvis"])) / 10, atol=1e-3)
        assert 3.0 <= times[-1] <= 4.0
        moved = np.ptp(np.array(facts["pelvis"])[:, [0, 1, 5]], axis=0).max()
        arms = np.ptp(facts["arms_rad"], axis=0).max()
        assert (arms > 0.1 and moved < 0.05) if name.startswith("mani") else arms == 0
    assert cache.frames.std() > 10
    assert json.loads((out / "truth.json").read_text()) == truth


def test_every_primitive_is_filmed_in_every_room_and_some_without_a_body(tmp_path: Path) -> None:
    cfg = CollectClips(str(tmp_path / "clips"), loco=2 * len(KINDS), mani=2, image_size=32, workers=1)
    cfg = replace(cfg, task="box-loading,cart-pushing")
    truth = run(cfg)["clips"]
    loco = [facts for facts in truth.values() if facts["family"] == "loco"]
    assert {(f["kind"], f["task"]) for f in loco} == {(k, t) for k in KINDS for t in ("box-loading", "cart-pushing")}
    assert {f["body"] for f in loco} == {True, False}
    assert [f["body"] for f in truth.values() if f["family"] == "mani"] == [True, True]
    assert {p.name for p in (tmp_path / "clips").iterdir()} == {"loco", "mani", "truth.json"}
    cache = ClipCache.open((tmp_path / "clips" / "loco",), 32, tmp_path / "cache")
    assert min(cache.frames[cache.clip == i].std() for i in range(len(loco))) > 5


def test_a_motion_through_the_furniture_is_never_filmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = egocentric.Studio(egocentric.ClipSettings(0, 32, kinds=("approach",)), "box-loading")
    monkeypatch.setattr(studio, "_touches", lambda qpos: True)
    with pytest.raises(
        ValueError, match="0000.mp4: got 100 motions .approach. that go into the furniture of box-loading"
    ):
        studio.make(tmp_path / "loco" / "0000.mp4")


def test_a_primitive_moves_in_its_own_direction_only() -> None:
    robot = get_robot("g1")
    rest = robot.array("default")[robot.n_lmo : robot.n_lmo + 14]
    for seed, (name, flags) in enumerate(PRIMITIVES.items()):
        motion = primitive(robot, np.random.default_rng(seed), name, rest, 3.5)
        first, last = motion.pelvis[0], motion.pelvis[-1]
        c, s = np.cos(first[5]), np.sin(first[5])
        ahead, aside = np.array([[c, s], [-s, c]]) @ (last - first)[:2]
        moved = np.array([ahead, aside, last[5] - first[5]])
        for amount, flag in zip(moved, flags):
            assert amount * flag > 0.3 if flag else abs(amount) < 0.25, (name, moved)
        sinks = last[2] - first[2]
        assert (sinks < -0.08) == (name == "squat") and (sinks > 0.08) == (name == "stand up")
    ends = [approach(robot, np.random.default_rng(i), rest, 3.5).pelvis[[0, -1]] for i in range(10)]
    assert all(abs(end[0]) < 0.7 < np.hypot(*(end - start)[:2]) for start, end in ends)


def test_a_run_continues_and_repeats_itself_bit_for_bit(clips: tuple[Path, dict]) -> None:
    out, truth = clips
    before = {p: p.read_bytes() for p in out.rglob("*.mp4")}
    stamp = (out / "loco" / "0000.mp4").stat().st_mtime_ns
    lost = out / "loco" / "0002.mp4"
    lost.unlink()
    (out / "mani" / "0000.mp4").unlink()
    assert run_clips(out, N_LOCO, N_MANI, size=48, seed=5, workers=1) == truth
    assert {p: p.read_bytes() for p in out.rglob("*.mp4")} == before
    assert (out / "loco" / "0000.mp4").stat().st_mtime_ns == stamp


def test_other_settings_are_refused(clips: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = clips
    with pytest.raises(ValueError, match="seed: got 5, expected 6"):
        run_clips(out, N_LOCO, N_MANI, size=48, seed=6)


@pytest.mark.parametrize(
    "name, known",
    [
        ("holiday.mp4", False),
        ("loco/holiday.mp4", False),
        ("loco/0007.mp4", False),
        ("old/loco/0000.mp4", False),
        ("loco/holiday.mp4", True),
    ],
)
def test_videos_of_others_are_refused_and_kept(
    clips: tuple[Path, dict], tmp_path: Path, name: str, known: bool
) -> None:
    out, _ = clips
    if known:
        (tmp_path / "truth.json").write_bytes((out / "truth.json").read_bytes())
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"other videos .{Path(name).name}.*choose another"):
        run_clips(tmp_path, 1, 1, size=48, seed=5)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / name).read_bytes() == b"mine"


def test_a_run_that_stopped_before_its_first_truth_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(egocentric, "Workers", stops)
        run_clips(tmp_path, 1, 0, size=48, seed=5)
    (tmp_path / "loco" / "0000.mp4").write_bytes(b"half a run's")
    assert run_clips(tmp_path, 0, 0, size=48, seed=5)["clips"] == {}
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_smaller_run_forgets_the_clips_it_deletes(clips: tuple[Path, dict], tmp_path: Path) -> None:
    out, truth = clips
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    fewer = run_clips(tmp_path, 2, 1, size=48, seed=5)
    names = {"loco/0000.mp4", "loco/0001.mp4", "mani/0000.mp4"}
    assert fewer["clips"] == {name: truth["clips"][name] for name in names}
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.mp4")} == names
    assert json.loads((tmp_path / "truth.json").read_text()) == fewer


def test_motions_are_smooth_and_inside_the_room() -> None:
    robot = get_robot("g1")
    rest = robot.array("default")[robot.n_lmo : robot.n_lmo + 14]
    limit = np.array([0.9, 0.9, 0.5, 1.0, 1.0, 1.2]) * DT_S  # m and rad a step
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for motion in (walk(robot, rng, rest, 3.5, seed % 2 == 0), reach(robot, rng, [rest, rest + 0.8, rest], 3.5)):
            assert (np.abs(np.diff(motion.pelvis, axis=0)).max(axis=0) < limit).all()
            assert np.abs(motion.pelvis[:, 1]).max() < 4
            assert motion.pelvis[:, 2].min() > robot.height_range_m[0] - 0.05
            assert np.abs(np.diff(motion.arms_rad, axis=0)).max() < 4.0 * DT_S
            assert set(np.unique(motion.flags)) <= {-1.0, 0.0, 1.0}
