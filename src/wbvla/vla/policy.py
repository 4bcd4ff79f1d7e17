"""A trained VLA ready to answer. In: a checkpoint folder; images, states, sentences. Out: action chunks and codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbvla.vla.checkpoint import load_model
from wbvla.vla.contracts import check_robot
from wbvla.vla.text import tokenize

CAMERA = "head"


def fit_images(images_BHWC: Tensor, size: int) -> Tensor:
    """Cut out the centre square and scale it to (B, size, size, 3); images of that size pass unchanged."""
    _, height, width, _ = images_BHWC.shape
    if (height, width) == (size, size):
        return images_BHWC
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images_BHWC[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
    scaled = torch.nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1)


class VlaPolicy:
    """Answers observations; keeps nothing between calls.

    Args:
        checkpoint: folder of `wbvla vla finetune`, or a LeRobot checkpoint of policy type `wholebodyvla`.
        robot: refuse checkpoints for other robots; None takes any known one.
    Attributes:
        config: the model's VlaConfig; contract: its contract; model: the torch module.
    Raises:
        FileNotFoundError, ValueError: nothing there, foreign or damaged; one line with the fix.
    """

    def __init__(self, checkpoint: str | Path, robot: str | None = None) -> None:
        self.model, self.contract = load_model(checkpoint)
        self.config = self.model.config
        check_robot(self.contract, str(checkpoint), robot)
        if self.contract.get("stage") != "finetune":
            raise ValueError(
                f"{checkpoint}: predicts codes only; run `wbvla vla finetune --init {checkpoint}` to teach it actions"
            )

    def infer(self, image: np.ndarray, state: np.ndarray, task: str) -> dict[str, Any]:
        """Return {"chunk": (T, 20) float32, "codes_mani": (n,) int64, "codes_loco": (m,) int64}.

        Args:
            image: head image (H, W, 3) uint8; another size than the model's is cut square and scaled.
            state: (S,) `observation.state` in physical units.
            task: what the robot is told.
        Raises:
            ValueError: a shape or type does not fit, or the state is not finite.
        """
        prediction = self._predict([self.prepare({CAMERA: image}, state, task)])
        codes = prediction.code_logits[0].argmax(-1).numpy()
        chunk = prediction.actions[0].numpy()
        return {"chunk": chunk, "codes_mani": codes[: self.config.n_mani], "codes_loco": codes[self.config.n_mani :]}

    def prepare(
        self,
        images: Mapping[str | int, np.ndarray],
        state: np.ndarray,
        task: str,
        domain: int | None = None,
        steps: int = 1,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor, str]:
        """Check one observation and scale its image; domain, steps and seed mean nothing to this policy.

        Raises:
            ValueError: as `infer`, or other cameras than "head".
        """
        if len(images) != 1 or next(iter(images)) not in (CAMERA, 0):
            raise ValueError(f"images: got {', '.join(map(str, images))}, expected one, of the camera {CAMERA!r}")
        image, state = np.array(next(iter(images.values()))), np.array(state, np.float32)  # torch wants to own them
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 16:
            raise ValueError(f"image: got {image.dtype} {image.shape}, expected uint8 (H, W, 3) of at least 16 x 16")
        if state.shape != (self.config.state_dim,) or not np.isfinite(state).all():
            raise ValueError(f"state: got shape {state.shape}, expected ({self.config.state_dim},) finite numbers")
        fitted = fit_images(torch.from_numpy(image).unsqueeze(0), self.config.image_size)
        return fitted, torch.from_numpy(state).unsqueeze(0), task

    def answer(self, prepared: Sequence[tuple[Tensor, Tensor, str]]) -> list[np.ndarray]:
        """Return a chunk (T, 20) for each prepared observation, in one forward pass."""
        return list(self._predict(prepared).actions.numpy())

    @torch.inference_mode()
    def _predict(self, prepared: Sequence[tuple[Tensor, Tensor, str]]):
        images, states, tasks = zip(*prepared)
        return self.model(torch.cat(images), torch.from_numpy(tokenize(tasks)), torch.cat(states))
