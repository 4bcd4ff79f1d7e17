"""`wbvla sim view TASK`: watch the scripted operator at a task, in a window or as a film.

In: a `ViewTask` configuration. Out: MuJoCo's viewer in real time, or an mp4.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

import tyro

from wbvla.evaluation.film import check_name
from wbvla.sim.tasks import get_task


@dataclass(frozen=True)
class ViewTask:
    """Watch the operator.

    Attributes:
        task: what it does.
        robot: with whom.
        seed: of the episode; the viewer goes on with the next ones.
        video: write an mp4 of the episode to this file instead of opening a viewer.
        rendering: of the video: nice (shadows, smooth edges) or fast (what policies are trained on).
    """

    task: tyro.conf.Positional[str]
    robot: str = "g1"
    seed: int = 100_000
    video: str | None = None
    rendering: Literal["nice", "fast"] = "nice"

    def __post_init__(self) -> None:
        get_task(self.task)
        check_name(self.video)
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, expected at least 0")


def run(cfg: ViewTask) -> None:
    """Open the viewer, or write the video. Raises ValueError without a screen for the viewer."""
    if cfg.video is not None:
        film(cfg)
    elif sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise ValueError("no screen for the viewer: --video FILE.mp4 films the episode instead")
    else:
        watch(cfg)


def film(cfg: ViewTask) -> None:
    """Write one episode as an mp4, and print how it went."""
    from wbvla.data.progress import Progress
    from wbvla.evaluation.film import TICKS_PER_FRAME, Film
    from wbvla.evaluation.policies import Operator
    from wbvla.evaluation.rollout import TICK_S, rollout
    from wbvla.sim.nice import NiceCamera

    camera: NiceCamera | None = None
    limit_s = round(get_task(cfg.task).time_limit_s)
    writer, progress = Film(cfg.video), Progress(f"film {cfg.task}", limit_s, "simulated seconds at most")

    def nice(env) -> None:
        nonlocal camera
        camera = camera or NiceCamera(env.plant)
        if env.ticks % TICKS_PER_FRAME == 0:
            writer.add(camera.frame())

    def watch(env) -> None:
        (nice if cfg.rendering == "nice" else writer)(env)
        if env.ticks % round(1 / TICK_S) == 0:
            progress.advance(1)

    try:
        operator = Operator(cfg.task, cfg.robot)
        episode = rollout(cfg.task, cfg.robot, operator, cfg.seed, watch=watch)
    finally:
        writer.close()
        if camera is not None:
            camera.close()
    reached = ", ".join(name for name, done in episode.subgoals.items() if done) or "none"
    progress.close("success" if episode.success else episode.failure)
    print(f"seed {cfg.seed}: {episode.failure or 'success'}, {episode.simulated_s:.1f} s; subgoals: {reached}")
    print(f"video: {cfg.video}")


def watch(cfg: ViewTask) -> None:
    """Show episode after episode in MuJoCo's viewer until its window is closed."""
    import mujoco.viewer
    import numpy as np

    from wbvla.sim.env import TaskEnv
    from wbvla.sim.operator import get_operator

    env = TaskEnv(cfg.task, cfg.robot, image_size=0)
    operator = get_operator(env.task, env.robot, np.random.default_rng(cfg.seed))
    with mujoco.viewer.launch_passive(env.plant.model, env.plant.data) as viewer:
        seed = cfg.seed
        while viewer.is_running():
            with viewer.lock():
                env.reset(seed)
            operator.reset(np.random.default_rng([seed, 1]))
            began_s = time.monotonic() - env.t_s
            while viewer.is_running() and not env.info()["done"]:
                action = operator.act(env.privileged()).to_vector()
                with viewer.lock():
                    env.step(action)
                viewer.sync()
                time.sleep(max(0.0, began_s + env.t_s - time.monotonic()))
            print(f"seed {seed}: {env.info()['failure'] or 'success' if env.info()['done'] else 'stopped'}", flush=True)
            seed += 1
