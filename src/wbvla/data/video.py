"""Any video as training frames. In: video files, or folders of them. Out: square RGB frames with true times.

Sizes, frame rates, codecs and orientations may be mixed. `ClipCache` decodes everything once into one memory-mapped
array; `read_video` is the plain iterator under it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbvla.data.cache import cached, fingerprint
from wbvla.data.progress import Progress

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
_LAYOUT = "clips v1"


def find_videos(source: str | Path) -> list[Path]:
    """List the videos of a file or folder tree in name order; hidden folders are skipped.

    Raises:
        FileNotFoundError: there is nothing at `source`.
        ValueError: it holds no video.
    """
    source = Path(source)
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"{source}: got a {source.suffix or 'nameless'} file, expected one of {', '.join(SUFFIXES)}"
            )
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder; give a video or a folder of videos")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(source).parts)]
    if not found:
        raise ValueError(f"{source}: found no video, expected at least one file ending in {', '.join(SUFFIXES)}")
    return found


def square(frame, size: int) -> np.ndarray:
    """Scale a PyAV frame's short side to `size`, cut out the centre and turn it upright: (size, size, 3) uint8 RGB."""
    scale = size / min(frame.width, frame.height)
    width, height = max(size, round(frame.width * scale)), max(size, round(frame.height * scale))
    rgb = _scaled(frame, width, height)
    top, left = (height - size) // 2, (width - size) // 2
    return _upright(frame, rgb[top : top + size, left : left + size])


def squash(frame, size: int) -> np.ndarray:
    """Scale all of a PyAV frame to (size, size, 3) uint8 RGB without regard to proportions, and turn it upright."""
    return _upright(frame, _scaled(frame, size, size))


def _scaled(frame, width: int, height: int) -> np.ndarray:
    same = (width, height) == (frame.width, frame.height)
    return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC" if same else "AREA")


def _upright(frame, rgb: np.ndarray) -> np.ndarray:
    quarter_turns = round(frame.rotation / 90) % 4  # the display matrix turns counter-clockwise, as rot90 does
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def read_video(path: str | Path, size: int, max_fps: float | None = None) -> Iterator[tuple[np.ndarray, float]]:
    """Decode a video into (rgb (size, size, 3) uint8, t_s) pairs; t_s counts from the first frame.

    Args:
        path: the file.
        size: side of the centre square, pixels.
        max_fps: faster videos are thinned out to this rate; kept frames keep their true times.
    Raises:
        ValueError: one line naming the file when it cannot be decoded to its end.
    """
    for frame, t_s in decode_video(Path(path), max_fps):
        yield square(frame, size), t_s


def decode_video(path: Path, max_fps: float | None) -> Iterator[tuple[object, float]]:
    """Yield (PyAV frame, t_s), thinned out to max_fps, and check that the file was whole."""
    import av

    fix = "repair it, replace it or take it out of the folder"
    count, start_s, t_s, due = 0, 0.0, 0.0, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no video stream; {fix}")
            if container.format.name.endswith(("_pipe", "image2")):
                raise ValueError(f"{path}: is a picture, not a video; {fix}")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 30)
            for frame in container.decode(stream):
                raw_s = frame.time if frame.time is not None else start_s + count / rate
                start_s = raw_s if count == 0 else start_s
                t_s, count = raw_s - start_s, count + 1
                if max_fps is None:
                    yield frame, t_s
                elif t_s * max_fps >= due - 0.01:  # a hundredth of a period absorbs rounded time stamps
                    due = int(t_s * max_fps + 0.01) + 1
                    yield frame, t_s
            length_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: cannot be decoded after {t_s:.1f} s ({reason}); {fix}") from None
    if count == 0:
        raise ValueError(f"{path}: holds no frame; {fix}")
    if length_s - t_s > max(0.5, 0.05 * length_s, 3 / rate):
        raise ValueError(f"{path}: ends after {t_s:.1f} s, its header promises {length_s:.1f} s; {fix}")


@dataclass(frozen=True)
class ClipCache:
    """All frames of many videos, decoded once.

    Attributes:
        frames: (N, size, size, 3) uint8, memory-mapped, clip after clip.
        clip: (N,) int32, index into `names`.
        t_s: (N,) float64, seconds since the clip's first frame.
        names: one name a clip: its path below its source.
        source: (clips,) int32, index of the source a clip came from.
        fingerprint: changes when any video, the size or the rate does.
    """

    frames: np.ndarray
    clip: np.ndarray
    t_s: np.ndarray
    names: list[str]
    source: np.ndarray
    fingerprint: str

    @classmethod
    def open(
        cls, sources: tuple[str | Path, ...], size: int, cache_dir: str | Path, max_fps: float = 10.0
    ) -> ClipCache:
        """Open the cache of some videos, decoding them first when they are new or have changed.

        Args:
            sources: video files or folders of them.
            size: side of the square frames, pixels.
            cache_dir: where caches are kept.
            max_fps: faster videos are thinned out to this rate.
        Raises:
            FileNotFoundError, ValueError: a missing source, or a video that cannot be decoded.
        """
        if not sources:
            raise ValueError("videos: got no source, expected at least one video file or folder")
        videos = [(i, Path(s), path) for i, s in enumerate(sources) for path in find_videos(s)]
        names = [path.name if path == root else path.relative_to(root).as_posix() for _, root, path in videos]
        salt = f"{_LAYOUT} {size} {max_fps:g} {[i for i, _, _ in videos]}"
        key = fingerprint(((name, path) for name, (_, _, path) in zip(names, videos)), salt)
        where = hashlib.sha256(f"{size} {max_fps:g} {[str(Path(s).resolve()) for s in sources]}".encode()).hexdigest()
        folder = Path(cache_dir) / f"clips-{size}px-{where[:12]}"
        meta = cached(folder, key, lambda out: _build(out, [p for _, _, p in videos], size, max_fps))
        shape = (meta["frames"], size, size, 3)
        return cls(
            frames=np.memmap(folder / "frames.u8", np.uint8, "r", shape=shape),
            clip=np.load(folder / "clip.npy", allow_pickle=False),
            t_s=np.load(folder / "t_s.npy", allow_pickle=False),
            names=names,
            source=np.array([i for i, _, _ in videos], np.int32),
            fingerprint=key,
        )


def _build(folder: Path, videos: list[Path], size: int, max_fps: float) -> dict:
    """Decode the videos into a cache folder."""
    clip, t_s = [], []
    progress = Progress("decode videos", len(videos), "videos")
    with (folder / "frames.u8").open("wb") as stream:
        for index, path in enumerate(videos):
            for rgb, t in read_video(path, size, max_fps):
                stream.write(rgb.tobytes())
                clip.append(index)
                t_s.append(t)
            progress.advance(note=f"{len(clip)} frames")
    progress.close(f"{len(clip)} frames")
    np.save(folder / "clip.npy", np.array(clip, np.int32))
    np.save(folder / "t_s.npy", np.array(t_s, np.float64))
    return {"frames": len(clip)}
