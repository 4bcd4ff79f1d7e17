"""`wbvla collect clips`: first-person clips without actions, from simulation, for the latent action models.

In: counts, a seed. Out: DIR/loco/*.mp4 (the head camera walks, turns, squats, approaches, pushes a cart) and
DIR/mani/*.mp4 (it stands and the arms move), 10 frames a second; DIR/truth.json with the motions behind them, which
training never reads. A clip depends on its index and the settings only; a stopped run makes the missing clips.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wbvla.collect.motion import DT_S, PRIMITIVES, Motion, approach, primitive, reach, walk
from wbvla.collect.workers import Workers
from wbvla.contract import require_match, save_contract
from wbvla.data.progress import Progress
from wbvla.sim.listing import choose_tasks

FPS = 10
CLIPS_PER_JOB = 4
TRUTH, OURS = "truth.json", re.compile(r"(loco|mani)/\d{4,}\.mp4")
KINDS = (*PRIMITIVES, "approach", "walk")  # of a loco clip, in turn; a walk is a mixture, with a cart also a push
ATTEMPTS, TOUCH_M = 100, 0.02  # motions drawn until one stays off the furniture


@dataclass(frozen=True)
class CollectClips:
    """First-person video without actions.

    Attributes:
        out: folder of the clips; missing ones of the same settings are added.
        task: whose rooms: a task, several with commas between them, or all.
        robot: whose head camera and hands.
        loco: clips of a moving head.
        mani: clips of moving arms.
        image_size: side of the square frames, pixels; even.
        bare: share of the loco clips without a body: no hands or arms in view.
        seed: of all clips.
        workers: processes.
    """

    out: str
    task: str = "all"
    robot: str = "g1"
    loco: int = 120
    mani: int = 80
    image_size: int = 96
    bare: float = 0.5
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        choose_tasks(self.task)
        for name, least in (("loco", 0), ("mani", 0), ("image_size", 32), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        if not 0.0 <= self.bare <= 1.0:
            raise ValueError(f"bare: got {self.bare}, expected a share between 0 and 1")


def run(cfg: CollectClips) -> dict[str, Any]:
    """Film until the folder holds all clips; returns the truth about them. Raises ValueError on other settings."""
    settings = ClipSettings(cfg.seed, cfg.image_size, cfg.robot, choose_tasks(cfg.task), KINDS, cfg.bare)
    return film(cfg.out, settings, cfg.loco, cfg.mani, cfg.workers)


@dataclass(frozen=True)
class ClipSettings:
    """What all clips of a folder share; `version` changes when the clips do. Tasks and kinds are taken in turn."""

    seed: int
    size: int
    robot: str = "g1"
    tasks: tuple[str, ...] = ("cart-pushing",)
    kinds: tuple[str, ...] = ("walk",)
    bare: float = 0.0
    version: int = 3

    def facts(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return json.loads(json.dumps(asdict(self)))


def run_clips(
    out: str | Path, n_loco: int = 120, n_mani: int = 80, size: int = 96, seed: int = 0, workers: int = 2
) -> dict[str, Any]:
    """Film the demo's clips: walks and pushes with a cart, arms at its handle. See `film`."""
    return film(out, ClipSettings(seed, size), n_loco, n_mani, workers)


def film(out: str | Path, settings: ClipSettings, n_loco: int, n_mani: int, workers: int) -> dict[str, Any]:
    """Make the clips that are missing in a folder and return the truth about all of them.

    Args:
        out: the folder.
        n_loco, n_mani: clips of each family.
        workers: processes.
    Raises:
        ValueError: the folder holds clips of other settings, or videos that are none of its clips.
    """
    out = Path(out)
    if settings.size % 2:
        raise ValueError(f"image_size: got {settings.size}, expected an even number of pixels")
    names = [f"loco/{i:04d}.mp4" for i in range(n_loco)] + [f"mani/{i:04d}.mp4" for i in range(n_mani)]
    truth = _old_truth(out, settings)
    clips = {name: truth["clips"][name] for name in names if name in truth["clips"] and (out / name).is_file()}
    # Before the first clip, so that the next run knows the folder for its own wherever this one stops.
    save_contract(out / TRUTH, {"kind": "clips", "settings": settings.facts(), "clips": clips})
    for family in ("loco", "mani"):
        (out / family).mkdir(exist_ok=True)
        for path in (out / family).glob("*.mp4"):
            if f"{family}/{path.name}" not in clips:
                path.unlink()  # of an interrupted run, or beyond the wanted number
    missing = [name for name in names if name not in clips]
    if missing:
        progress = Progress("first-person clips", len(names), "clips", done=len(clips))
        with Workers(workers) as pool:
            jobs = [missing[i : i + CLIPS_PER_JOB] for i in range(0, len(missing), CLIPS_PER_JOB)]
            for future in [pool.submit(make_clips, str(out), settings, job) for job in jobs]:
                made = future.result()
                clips |= made
                progress.advance(len(made))
                save_contract(out / TRUTH, {"kind": "clips", "settings": settings.facts(), "clips": clips})
        progress.close()
    return {"kind": "clips", "settings": settings.facts(), "clips": {name: clips[name] for name in names}}


def make_clips(out: str, settings: ClipSettings, names: list[str]) -> dict[str, dict]:
    """Make some clips; returns the truth about each. Runs in a worker."""
    tasks = settings.tasks
    return {name: _studio(settings, tasks[int(Path(name).stem) % len(tasks)]).make(Path(out) / name) for name in names}


def _old_truth(out: Path, settings: ClipSettings) -> dict:
    path = out / TRUTH
    for video in out.rglob("*.mp4"):
        if not (path.is_file() and OURS.fullmatch(video.relative_to(out).as_posix())):
            raise ValueError(
                f"{out}: got other videos ({video.name}), expected a new folder or one of clips; choose another"
            )
    if not path.is_file():
        return {"clips": {}}
    try:
        truth = json.loads(path.read_text())
        require_match(settings.facts(), truth["settings"], f"{out}: clips")
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path}: got no truth of clips, expected one; choose another folder") from None
    return truth


@cache  # this worker's scenes
def _studio(settings: ClipSettings, task: str) -> Studio:
    return Studio(settings, task)


class Studio:
    """A task's scene with a robot that is posed, not simulated, and a video encoder."""

    def __init__(self, settings: ClipSettings, task: str) -> None:
        import mujoco

        from wbvla.robots import get_robot
        from wbvla.sim.ik import ArmSolver
        from wbvla.sim.plant import Plant
        from wbvla.sim.tasks import get_task

        self.settings = settings
        self.robot, self.task = get_robot(settings.robot), get_task(task)
        self.plant, self._solver = Plant(self.robot, self.task), ArmSolver(self.robot)
        self._rest = self.robot.array("default")[self.robot.n_lmo : self.robot.n_lmo + 14]
        self._range = self.robot.range_rad[self.robot.n_lmo : self.robot.n_lmo + 14]
        model = self.plant.model
        self._arms = [model.joint(j).qposadr[0] for j in self.robot.arm_joints]
        self._rolls = "cart_x" in (model.joint(i).name for i in range(model.njnt))
        if self._rolls:
            self._cart = [model.joint(f"cart_{axis}").qposadr[0] for axis in ("x", "y", "yaw")]
            self._cart_pivot = model.joint("cart_yaw").pos[:2].copy()
        pelvis = model.body("pelvis").id
        self._body = np.flatnonzero(model.body_rootid[model.geom_bodyid] == pelvis)
        self._trial = mujoco.MjData(model)

    def make(self, path: Path) -> dict:
        """Invent, draw and write one clip; returns its truth. The clip's name and the seed decide everything.

        Raises ValueError where no motion stays off the furniture.
        """
        family, index = path.parent.name, int(path.stem)
        rng = np.random.default_rng([self.settings.seed, ("loco", "mani").index(family), index])
        seconds = float(rng.uniform(3.0, 4.0))
        kinds = self.settings.kinds
        # Tasks and kinds both go by the index: whole rounds of the tasks pass before the kind changes.
        kind = kinds[index // len(self.settings.tasks) % len(kinds)] if family == "loco" else "reach"
        motion = self._draw(kind, rng, seconds)
        self.task.start(self.plant, rng)  # looks; the poses are replaced
        for _ in range(ATTEMPTS):
            chosen = np.arange(0, len(motion.pelvis), round(1 / (FPS * DT_S)))
            if (kind in ("walk", "reach") and self._rolls) or not any(
                self._touches(self._qpos(motion, i)) for i in chosen
            ):
                break  # with a cart, walks keep clear by themselves, and hands may be on its handle
            motion = self._draw(kind, rng, seconds)
        else:
            touching = f"{ATTEMPTS} motions ({kind}) that go into the furniture of {self.task.name}"
            raise ValueError(f"{path.name}: got {touching}, expected one that does not; use another seed")
        bare = family == "loco" and np.random.default_rng([self.settings.seed, 2, index]).random() < self.settings.bare
        alpha = self.plant.model.geom_rgba[self._body, 3].copy()
        if bare:
            self.plant.model.geom_rgba[self._body, 3] = 0.0
        self._write(path, [self.plant.render(self.settings.size, self._qpos(motion, i)) for i in chosen])
        self.plant.model.geom_rgba[self._body, 3] = alpha
        fields = {name: np.round(value[chosen], 4).tolist() for name, value in vars(motion).items()}
        return {"family": family, "kind": kind, "task": self.task.name, "body": not bare, "fps": FPS, **fields}

    def _draw(self, kind: str, rng: np.random.Generator, seconds: float) -> Motion:
        """Draw a motion of a kind."""
        if kind == "reach":
            return reach(self.robot, rng, self._waypoints(rng), seconds)
        pushing = kind == "walk" and bool(rng.uniform() < 0.35) and self._rolls
        arms = self._reach(rng) if pushing or rng.uniform() < 0.3 else self._jitter(rng, self._rest, 0.15)
        if kind == "walk":
            return walk(self.robot, rng, arms, seconds, pushing)
        if kind == "approach":
            return approach(self.robot, rng, arms, seconds)
        return primitive(self.robot, rng, kind, arms, seconds)

    def _touches(self, qpos: np.ndarray) -> bool:
        """Whether the body, posed so, goes deep into anything but the floor."""
        import mujoco

        self._trial.qpos[:] = qpos
        mujoco.mj_kinematics(self.plant.model, self._trial)
        mujoco.mj_comPos(self.plant.model, self._trial)
        mujoco.mj_collision(self.plant.model, self._trial)
        floor, contact = self.plant.model.geom("floor").id, self._trial.contact
        pairs = contact.geom[contact.dist < -TOUCH_M]
        theirs = np.isin(pairs, self._body)
        return bool((theirs.any(1) & ~theirs.all(1) & ~(pairs == floor).any(1)).any())

    def _waypoints(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Two to three arm poses (14,): rest, both hands to a reach, one hand alone, or a small move."""
        points = [self._rest if rng.uniform() < 0.5 else self._reach(rng)]
        for _ in range(rng.integers(1, 3)):
            kind = rng.uniform()
            if kind < 0.5:
                goal = self._reach(rng)
                if rng.uniform() < 0.3:
                    still = slice(0, 7) if rng.uniform() < 0.5 else slice(7, 14)
                    goal[still] = points[-1][still]
            elif kind < 0.7 and points[-1] is not self._rest:
                goal = self._rest
            else:
                goal = self._jitter(rng, points[-1], 0.5)
            points.append(goal)
        return points

    def _reach(self, rng: np.random.Generator) -> np.ndarray:
        """Arm pose (14,) with both palms somewhere in front of the chest."""
        for _ in range(5):
            ahead, aside, up = rng.uniform([0.24, 0.08, 0.0], [0.40, 0.28, 0.30])
            left = np.array([ahead, aside, up])
            right = left * [1, -1, 1] + rng.uniform(-0.06, 0.06, 3)
            try:
                return self._jitter(rng, self._solver.solve(left, right), 0.05)
            except ValueError:  # out of reach: draw again
                continue
        return self._jitter(rng, self._rest, 0.3)

    def _jitter(self, rng: np.random.Generator, arms_rad: np.ndarray, amount_rad: float) -> np.ndarray:
        return np.clip(arms_rad + rng.uniform(-amount_rad, amount_rad, 14), self._range[:, 0], self._range[:, 1])

    def _qpos(self, motion: Motion, i: int) -> np.ndarray:
        """MuJoCo's position vector of one instant."""
        qpos = self.plant.data.qpos.copy()
        x, y, z, roll, pitch, yaw = motion.pelvis[i]
        qpos[:3], qpos[3:7] = (x, y, z), _quat_wxyz(roll, pitch, yaw)
        qpos[self._arms] = motion.arms_rad[i]
        if not self._rolls:
            return qpos
        handle_x, handle_y, heading = motion.cart[i]
        c, s = np.cos(heading), np.sin(heading)
        turned = np.array([[c, -s], [s, c]]) @ self._cart_pivot  # the cart turns about its middle, not its handle
        qpos[self._cart] = [*(np.array([handle_x, handle_y]) + turned - self._cart_pivot), heading]
        return qpos

    @staticmethod
    def _write(path: Path, frames: list[np.ndarray]) -> None:
        """Encode frames (S, S, 3) to a file that appears complete or not at all."""
        import av

        av.logging.set_libav_level(av.logging.ERROR)
        temporary = path.with_name(f".{path.name}.tmp")
        # superfast is x264's best preset without look-ahead: with it, the same frames give other bytes now and then.
        options = {"crf": "18", "preset": "superfast", "threads": "1"}
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("h264", FPS, options=options)
            stream.width = stream.height = frames[0].shape[0]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)


def _quat_wxyz(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Unit quaternion of a rotation about x, then y, then z of the world."""
    cr, sr, cp, sp, cy, sy = (f(a / 2) for a in (roll, pitch, yaw) for f in (np.cos, np.sin))
    return np.array(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]
    )
