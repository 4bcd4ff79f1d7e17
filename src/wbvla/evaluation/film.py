"""Films of episodes. In: an environment after every tick. Out: h264 mp4, third-person view with head camera inset."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

TICKS_PER_FRAME = 4
FPS = 12.5


def check_name(path: str | None) -> None:
    """Raise ValueError unless this is the name of an mp4, or none."""
    if path is not None and Path(path).suffix != ".mp4":
        raise ValueError(f"video: got {path!r}, expected a name that ends in .mp4")


class Film:
    """Writes one mp4; call it after every 20 ms tick, then `close`. Until then it is FILE.part."""

    def __init__(self, path: str | Path) -> None:
        import av

        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._path.with_name(self._path.name + ".part")
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = None
        self._ticks = 0

    def __call__(self, env: Any) -> None:
        """Add a frame of this instant, every fourth tick."""
        self._ticks += 1
        if self._ticks % TICKS_PER_FRAME == 0:
            self.add(env.render_video_frame())

    def add(self, frame: np.ndarray) -> None:
        """Add one (H, W, 3) uint8 picture; H and W even."""
        import av

        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=Fraction(FPS), options={"crf": "28", "preset": "veryfast"}
            )
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.thread_count = 1
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        self._part.replace(self._path)
