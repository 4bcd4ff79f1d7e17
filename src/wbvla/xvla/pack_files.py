"""`wbvla xvla pack`: one robot of an X-VLA as a small file. In: a checkpoint folder. Out: a pack, or a new folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pack:
    """Write a robot's prompt, action layers and statistics as one file, or put a file's robot into a model.

    Attributes:
        model: checkpoint folder: this project's, LeRobot's `xvla` or 2toINF's.
        file: the pack; it fits the shared weights it was trained with and no others.
        robot: whom to write into the file: name or id.
        out: instead, folder of the model with the file's robot in it, new or in the place of the one of its name.
    """

    model: str
    file: str
    robot: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if (self.robot is None) == (self.out is None):
            raise ValueError("robot, out: expected one of them: --robot NAME writes the file, --out FOLDER reads it")


def run(cfg: Pack) -> dict[str, Any]:
    """Write what was asked for. Raises ValueError, FileNotFoundError: unknown robot, foreign pack; one line."""
    from wbvla.xvla.checkpoint import load_model, save_model
    from wbvla.xvla.packs import export_pack, import_pack

    model = load_model(cfg.model)
    if cfg.robot is not None:
        name = model.resolve(int(cfg.robot) if cfg.robot.isdecimal() else cfg.robot)
        export_pack(cfg.file, model, name)
        written = cfg.file
    else:
        name = import_pack(cfg.file, model)
        save_model(cfg.out, model)
        written = cfg.out
    print(f"{name}: wrote {written}")
    return {"robot": name, "written": str(Path(written))}
