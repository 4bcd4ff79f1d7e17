"""Laws of video reading: true times, square upright frames, caches that fit their files, clear errors for bad ones."""

from __future__ import annotations

import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from wbvla.data.cache import cached
from wbvla.data.video import ClipCache, find_videos, read_video


def write_video(path: Path, frames: list[np.ndarray], fps: int, **options: str) -> Path:
    """Encode frames (H, W, 3) uint8; container options by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("h264", fps, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def grey(level: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def noise(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 255, (n, 64, 64, 3), np.uint8))


def test_mixed_sizes_and_rates_keep_their_true_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "wide.mp4", [grey(i * 4, 64, 128) for i in range(60)], 30)
    write_video(tmp_path / "b.mkv", [grey(i * 10, 96, 64) for i in range(20)], 5)
    cache = ClipCache.open((tmp_path,), 48, tmp_path / ".cache", max_fps=10)
    assert cache.names == ["a/wide.mp4", "b.mkv"]
    assert cache.frames.shape == (40, 48, 48, 3)
    fast, slow = cache.clip == 0, cache.clip == 1
    np.testing.assert_allclose(cache.t_s[fast], np.arange(20) / 10, atol=2e-3)  # 30 Hz thinned out to 10
    np.testing.assert_allclose(cache.t_s[slow], np.arange(20) / 5, atol=2e-3)  # 5 Hz kept
    np.testing.assert_allclose(cache.frames[fast].mean(axis=(1, 2, 3)), 12 * np.arange(20), atol=4)
    np.testing.assert_allclose(cache.frames[slow].mean(axis=(1, 2, 3)), 10 * np.arange(20), atol=4)


@pytest.mark.parametrize(("fps", "max_fps"), [(25, 10), (24, 10), (29, 10), (50, 7), (8, 10)])
def test_thinning_never_exceeds_the_rate_by_much_and_never_starves(tmp_path: Path, fps: int, max_fps: int) -> None:
    video = write_video(tmp_path / "v.mp4", [grey(100)] * (4 * fps), fps)
    times = np.array([t for _, t in read_video(video, 32, max_fps)])
    rate = min(fps, max_fps)
    assert abs(len(times) - 4 * rate) <= 1
    assert np.diff(times).max() <= 1 / rate + 1 / fps + 1e-3


def test_a_picture_is_cut_out_of_the_centre(tmp_path: Path) -> None:
    picture = grey(0, 64, 192)
    picture[:, 64:128] = 255
    (rgb, t_s), *_ = read_video(write_video(tmp_path / "v.mp4", [picture] * 3, 10), 32)
    assert t_s == 0.0
    assert rgb.shape == (32, 32, 3)
    assert rgb[:, 2:-2].min() > 230


def test_a_phone_video_is_turned_upright(tmp_path: Path) -> None:
    picture = grey(0)
    picture[:32] = 255  # bright on top as stored; the header below asks players to turn it by 90 degrees clockwise
    video = write_video(tmp_path / "v.mp4", [picture] * 3, 10)
    data = bytearray(video.read_bytes())
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = matrix
    video.write_bytes(bytes(data))
    rgb, _ = next(read_video(video, 32))
    assert rgb[:, 18:].mean() > 230, "the top must come to the right"
    assert rgb[:, :14].mean() < 25


def test_the_cache_is_read_until_a_file_changes(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_video(tmp_path / "in" / "v.mp4", noise(5), 5)
    first = ClipCache.open((tmp_path / "in",), 32, tmp_path / "out")
    capfd.readouterr()
    again = ClipCache.open((tmp_path / "in",), 32, tmp_path / "out")
    assert capfd.readouterr().err == "", "nothing is decoded twice"
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.frames, first.frames)
    os.utime(tmp_path / "in" / "v.mp4")
    assert ClipCache.open((tmp_path / "in",), 32, tmp_path / "out").fingerprint == first.fingerprint
    write_video(tmp_path / "in" / "v.mp4", noise(7, seed=1), 5)
    changed = ClipCache.open((tmp_path / "in",), 32, tmp_path / "out")
    assert changed.fingerprint != first.fingerprint
    assert len(changed.frames) == 7
    assert len(list((tmp_path / "out").glob("[!.]*"))) == 1, "the stale cache is gone"


def test_of_many_who_want_one_cache_one_builds_it(tmp_path: Path) -> None:
    def build(folder: Path) -> dict:
        with (tmp_path / "builds").open("a") as log:
            log.write("x")
        time.sleep(0.2)
        (folder / "data").write_text("whole")
        return {}

    def want(_) -> str:
        cached(tmp_path / "cache", "key", build)
        return (tmp_path / "cache" / "data").read_text()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(want, range(6))) == ["whole"] * 6
    assert (tmp_path / "builds").read_text() == "x"


def test_a_failed_build_leaves_no_cache(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", noise(5), 5)
    (tmp_path / "in" / "b.mp4").write_bytes(b"not a video")
    with pytest.raises(ValueError, match=r"b\.mp4: cannot be decoded"):
        ClipCache.open((tmp_path / "in",), 32, tmp_path / "out")
    assert list((tmp_path / "out").glob("[!.]*")) == []
    (tmp_path / "in" / "b.mp4").unlink()
    assert len(ClipCache.open((tmp_path / "in",), 32, tmp_path / "out").frames) == 5


def test_a_truncated_streamable_video_is_noticed(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", noise(50), 10, movflags="faststart")
    data = video.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the header survives the cut"
    video.write_bytes(data[: int(0.6 * len(data))])
    with pytest.raises(ValueError, match=r"v\.mp4") as error:
        list(read_video(video, 32))
    assert "\n" not in str(error.value)


def test_a_renamed_picture_is_no_video(tmp_path: Path) -> None:
    from PIL import Image

    for kind in ("png", "jpeg"):
        Image.fromarray(noise(1)[0]).save(tmp_path / f"{kind}.mp4", kind)
        with pytest.raises(ValueError, match=rf"{kind}\.mp4: is a picture, not a video"):
            list(read_video(tmp_path / f"{kind}.mp4", 32))


def test_missing_empty_and_foreign_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found no video"):
        find_videos(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"expected one of \.mp4"):
        find_videos(tmp_path / "notes.txt")


def test_real_recordings_decode_with_their_times(tmp_path: Path, shared_data: Path) -> None:
    cache = ClipCache.open((shared_data / "ego_video",), 96, tmp_path)
    length = {"03_blocks.mp4": 9.7, "human_hand_video.mp4": 20.6, "max-heromode.mp4": 10.4}
    assert {Path(n).name for n in cache.names} == set(length)
    for clip, name in enumerate(cache.names):
        times = cache.t_s[cache.clip == clip]
        assert times[0] == 0.0
        assert times[-1] == pytest.approx(length[Path(name).name], abs=0.15)
        assert np.abs(np.diff(times) - 0.1).max() < 0.02


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_copy_of_a_real_recording_is_named(tmp_path: Path, shared_data: Path, share: float) -> None:
    whole = (shared_data / "ego_video" / "fixedcam_hands_sam2" / "03_blocks.mp4").read_bytes()
    (tmp_path / "copy.mp4").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"copy\.mp4") as error:
        ClipCache.open((tmp_path,), 96, tmp_path / ".cache")
    assert "\n" not in str(error.value)
