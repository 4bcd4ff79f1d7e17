"""Draw docs/images/world_TASK.jpg from real runs: start, subgoals, success, head views, typical failures.

In: tasks. Out: one picture a task, three rows: the scripted operator's first success on validation seeds, at its start
and in the moment of each subgoal; the head camera's view of the same moments; how trials end that fail: the operator's
on the test seeds that docs/results/world_trials.json names, then on unseen ranges, then half a body's and chance's.

    .venv/bin/python scripts/world_pictures.py --tasks all --seeds 8
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wbvla.data.progress import Progress
from wbvla.evaluation.policies import Operator, load_policy
from wbvla.sim.env import TaskEnv
from wbvla.sim.listing import choose_tasks
from wbvla.sim.nice import NiceCamera
from wbvla.sim.seeds import seeds_for
from wbvla.sim.tasks import get_task

DOCS = Path(__file__).resolve().parents[1] / "docs"
TILE, CAPTION_PX, FAILURES = (240, 180), 16, 7
FOV_DEG = 32  # nearer than in videos
Tile = tuple[str, np.ndarray]


class Stage:
    """One task's world with its camera, played by anybody from a seed on."""

    def __init__(self, task: str, robot: str = "g1", unseen: bool = False) -> None:
        axes = tuple(get_task(task).axes) if unseen else ()
        self.env = TaskEnv(task, robot, image_size=0, unseen=axes)
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


def acting(policy: str, task: str, robot: str, seed: int) -> Callable[[TaskEnv], np.ndarray]:
    """Return what a policy without learning does in an episode."""
    who = load_policy(policy, task, robot)
    who.reset(seed)
    if isinstance(who, Operator):
        return lambda env: who.act(env.privileged()).to_vector()
    return lambda env: who.infer(None)["chunk"][0]


def success(task: str, seeds: list[int]) -> tuple[list[Tile], list[Tile]]:
    """Return scenes and head views of the operator's first success. Raises ValueError without one."""
    stage = Stage(task)
    for seed in seeds:
        moments = [(name, *stage.look()) for name in stage.play(seed, acting("operator", task, "g1", seed))]
        if moments[-1][0] == "success":
            moments = moments[:-1]  # the last subgoal is the same moment
            return [(name, scene) for name, scene, _ in moments], [(f"head: {n}", head) for n, _, head in moments]
    raise ValueError(f"{task}: the operator has no success on {len(seeds)} validation seeds; give more with --seeds")


def failures(task: str, seeds: list[int]) -> list[Tile]:
    """Return the last moments of trials that failed: each way to fail once for each who tried."""
    rows = json.loads((DOCS / "results" / "world_trials.json").read_text())["rows"]
    failed = [row for row in rows if row["failed"] and row["task"] == task]
    tries = [("operator", row["robot"], False, some) for row in failed for some in row["failed"].values()]
    tries += [("operator", robot, True, seeds) for robot in ("g1", "x2")]
    tries += [(policy, "g1", False, seeds[:1]) for policy in ("walk-only", "reach-only", "random")]
    found: dict[str, np.ndarray] = {}
    for policy, robot, unseen, some in tries:
        stage = Stage(task, robot, unseen)
        for seed in some:
            *_, end = stage.play(seed, acting(policy, task, robot, seed))
            if end != "success":
                found.setdefault(f"{end}: {robot} {policy}{', unseen ranges' if unseen else ''}", stage.look()[0])
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
        path = DOCS / "images" / f"world_{task}.jpg"
        montage([*success(task, seeds), failures(task, seeds)]).save(path, quality=75, optimize=True)
        progress.advance(1, f"{path.name} {path.stat().st_size // 1000} kB")
    progress.close()


if __name__ == "__main__":
    main()
