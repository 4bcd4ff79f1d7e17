"""Draw docs/images/world_TASK.jpg from real runs: start, subgoals, success, head views, typical failures.

In: tasks. Out: one picture a task, three rows: the scripted operator's first success on validation seeds, at its start
and in the moment of each subgoal; the head camera's view of the same moments; how trials end that fail.

    .venv/bin/python scripts/world_pictures.py --tasks all --seeds 8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wbvla.data.progress import Progress
from wbvla.evaluation.policies import Operator, RandomActions
from wbvla.sim.env import TaskEnv
from wbvla.sim.listing import choose_tasks
from wbvla.sim.nice import NiceCamera
from wbvla.sim.seeds import seeds_for

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
TILE, CAPTION_PX, FAILURES = (240, 180), 16, 4
FOV_DEG = 32  # nearer than in videos
Tile = tuple[str, np.ndarray]


class Stage:
    """One task's world with its camera, played by anybody from a seed on."""

    def __init__(self, task: str, unseen: bool = False) -> None:
        axes = tuple(TaskEnv(task, image_size=0).task.axes) if unseen else ()
        self.env = TaskEnv(task, image_size=0, unseen=axes)
        self.env.plant.render(TILE[1])  # before the camera changes the settings: head views are drawn fast
        self.env.plant.model.camera("side").fovy[:] = FOV_DEG
        self.camera = NiceCamera(self.env.plant, *TILE)

    def play(self, seed: int, act: Callable[[TaskEnv], np.ndarray]) -> Iterator[str]:
        """Run an episode; yield "start", each subgoal when it is reached, and at the end its failure or "success"."""
        self.env.reset(seed)
        yield "start"
        reached: set[str] = set()
        while not self.env.info()["done"]:
            _, info = self.env.step(act(self.env))
            for name in [name for name, done in info["subgoals"].items() if done and name not in reached]:
                reached.add(name)
                yield name
        yield self.env.info()["failure"] or "success"

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scene and the head camera's view of now."""
        return self.camera.picture(), self.env.plant.render(TILE[1])


def operated(task: str, seed: int) -> Callable[[TaskEnv], np.ndarray]:
    """Return the scripted operator's actions."""
    operator = Operator(task, "g1")
    operator.reset(seed)
    return lambda env: operator.act(env.privileged()).to_vector()


def at_random(seed: int) -> Callable[[TaskEnv], np.ndarray]:
    """Return random actions."""
    policy = RandomActions("g1")
    policy.reset(seed)
    return lambda env: policy.infer(None)["chunk"][0]


def success(task: str, seeds: list[int]) -> tuple[list[Tile], list[Tile]]:
    """Return scenes and head views of the operator's first success. Raises ValueError without one."""
    stage = Stage(task)
    for seed in seeds:
        moments = [(name, *stage.look()) for name in stage.play(seed, operated(task, seed))]
        if moments[-1][0] == "success":
            moments = moments[:-1]  # the last subgoal is the same moment
            return [(name, scene) for name, scene, _ in moments], [(f"head: {n}", head) for n, _, head in moments]
    raise ValueError(f"{task}: the operator has no success on {len(seeds)} validation seeds; give more with --seeds")


def failures(task: str, seeds: list[int]) -> list[Tile]:
    """Return the last moments of trials that failed: each way to fail once for each who tried."""
    found: dict[str, np.ndarray] = {}
    tries = [("operator", False, seeds), ("operator, unseen ranges", True, seeds), ("random actions", False, seeds[:2])]
    for who, unseen, some in tries:
        stage = Stage(task, unseen)
        for seed in some:
            act = at_random(seed) if who == "random actions" else operated(task, seed)
            *_, end = stage.play(seed, act)
            if end != "success":
                found.setdefault(f"{end}: {who}", stage.look()[0])
    return list(found.items())[:FAILURES]


def montage(rows: list[list[Tile]]) -> Image.Image:
    """Lay out rows of captioned pictures."""
    width, height = max(map(len, rows)) * TILE[0], len(rows) * (TILE[1] + CAPTION_PX)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for k, (caption, picture) in enumerate(row):
            x, y = k * TILE[0], i * (TILE[1] + CAPTION_PX)
            draw.text((x + 4, y + 2), caption, fill="black")
            sheet.paste(Image.fromarray(picture), (x, y + CAPTION_PX))
    return sheet


def main() -> None:
    """Draw every wanted task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="all", help="a task, several with commas between them, or all")
    parser.add_argument("--seeds", type=int, default=8, help="validation seeds to try")
    cfg = parser.parse_args()
    tasks, seeds = choose_tasks(cfg.tasks), seeds_for("validation", cfg.seeds)
    progress = Progress("world pictures", len(tasks), "tasks")
    for task in tasks:
        path = IMAGES / f"world_{task}.jpg"
        montage([*success(task, seeds), failures(task, seeds)]).save(path, quality=75, optimize=True)
        progress.advance(1, f"{path.name} {path.stat().st_size // 1000} kB")
    progress.close()


if __name__ == "__main__":
    main()
