"""wbvla: humanoid loco-manipulation from egocentric video to legs that carry it out."""

import ctypes
import os
import sys

__version__ = "0.1.0"


def _choose_headless_graphics() -> None:
    """Without a display let MuJoCo draw through EGL, if there is one; it reads the choice when it is first imported."""
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or os.environ.get("DISPLAY"):
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return
    os.environ["MUJOCO_GL"] = "egl"


_choose_headless_graphics()
