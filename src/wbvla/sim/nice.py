"""Pictures for people: shadows and many samples a pixel, in contrast to Plant's fast ones for training.

In: a Plant. Out: third-person uint8 pictures with what the head camera sees, as a policy gets it, in the corner.
"""

from __future__ import annotations

import mujoco
import numpy as np

from wbvla.sim.plant import Plant

SAMPLES, SHADOW_PX, SLICES = 4, 2048, 28
INSET, MARGIN, FRAME = 3, 8, 2  # the inset is a third of the height; pixels around it


class NiceCamera:
    """A camera of the plant's scene, drawn well and slowly; `close` frees its graphics memory.

    Args:
        plant: its head camera goes on drawing fast pictures.
        width, height: pixels, even.
        camera: name of the scene's camera.
    """

    def __init__(self, plant: Plant, width: int = 640, height: int = 480, camera: str = "side") -> None:
        self._plant, self._camera, self._inset_px = plant, camera, height // INSET
        plant.render(self._inset_px)  # its graphics context keeps the fast settings that the model has now
        model = plant.model
        model.vis.quality.offsamples, model.vis.quality.shadowsize = SAMPLES, SHADOW_PX
        model.vis.quality.numslices, model.vis.quality.numstacks = SLICES, SLICES // 2
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.light_castshadow[:] = True
        self._renderer = mujoco.Renderer(model, height, width)
        self._look = mujoco.MjvOption()
        self._look.sitegroup[:] = 0

    def picture(self) -> np.ndarray:
        """Return the scene of now, (height, width, 3) uint8."""
        self._renderer.update_scene(self._plant.data, self._camera, self._look)
        return self._renderer.render().copy()

    def frame(self) -> np.ndarray:
        """Return the same with the head camera's view in its corner."""
        picture, size = self.picture(), self._inset_px
        corner = slice(MARGIN, MARGIN + size), slice(-MARGIN - size, -MARGIN)
        framed = slice(MARGIN - FRAME, MARGIN + size + FRAME), slice(-MARGIN - size - FRAME, -MARGIN + FRAME)
        picture[framed] = 255
        picture[corner] = self._plant.render(size)
        return picture

    def close(self) -> None:
        """Free the graphics memory."""
        self._renderer.close()
