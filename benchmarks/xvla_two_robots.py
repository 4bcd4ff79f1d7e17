"""Two robots, one X-VLA: do soft prompts tell them apart, and does a prompt with its action layers add a robot?

    python benchmarks/xvla_two_robots.py --seeds 0 1 2 --out outputs/xvla_two_robots
    python benchmarks/xvla_two_robots.py --seeds 0 --steps 20 --demonstrations 4 --trials 2     # does it run?

Task: a ball hangs before the robot; both palms must come within 4 cm of their places 12 cm left and right of it and
stay for 0.3 s, within 4 s. Robots: the simulated G1 and X2, other arms and other cameras, legs and waist held (the X2
has no legs' policy yet), actions in the whole-body space. Demonstrations are inverse kinematics. Three models a seed:
one of both robots, one of the G1, and that with the X2 added by prompt and action layers only. Success is measured in
closed loop with the right domain, with the other robot's (prompt and action layers), and with its prompt alone.
Everything goes on where it was stopped. Writes OUT/results.json. A seed takes about half an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mujoco
import numpy as np
import torch

from wbvla.contract import save_contract
from wbvla.data.progress import Progress
from wbvla.recipes.xvla import TRAINING_RECIPES, XVLA_RECIPES, xvla_pretrain_tiny, xvla_tiny_trunk
from wbvla.robots import get_robot
from wbvla.sim.ik import ArmSolver
from wbvla.sim.operator.motion import MinimumJerk
from wbvla.sim.tasks.base import add_room, palm_geoms, randomise_room
from wbvla.types import ACTION_DIM, Observation, WholeBodyAction, action_names
from wbvla.vla.config import VlaConfig
from wbvla.xvla.adapt import Adapt, run
from wbvla.xvla.checkpoint import load_model
from wbvla.xvla.config import robot_facts
from wbvla.xvla.policy import RobotPolicy

ROBOTS = ("g1", "x2")
TASK = "hold the ball between both hands"
SIZE, FPS, TIME_S = 64, 20, 4.0
PHYSICS_STEPS = 10  # of 5 ms in one row
BALL_M = np.array([[0.28, 0.38], [-0.12, 0.12], [0.02, 0.20]])  # in the pelvis frame
ASIDE_M, NEAR_M, HOLD_S = 0.12, 0.04, 0.3
START_RAD, HOLD_ROWS = 0.15, 12  # the arms begin anywhere near their default; rows after success
PLAY_STEPS = 8  # of a chunk before the next look


def model_shape(domains):
    """1.5 million parameters, of which one robot's are less than 1 %."""
    tiny = xvla_tiny_trunk(domains)
    trunk = VlaConfig(image_size=SIZE, layers=3).to_dict()
    return replace(tiny, trunk=trunk, image_size=SIZE, depth=5, prompt_tokens=8, time_dim=8)


XVLA_RECIPES["two_robots"] = model_shape
TRAINING_RECIPES["two_robots"] = lambda: replace(xvla_pretrain_tiny(), model="two_robots")


class Reach:
    """One robot whose arms alone move, and a ball; the same seed gives the same episode."""

    def __init__(self, name: str) -> None:
        self.robot = get_robot(name)
        spec = self.robot.build(collisions="feet")
        for joint in self.robot.lmo_joints:
            spec.delete(spec.actuator(joint))
        for joint in ("root", *self.robot.lmo_joints):
            spec.delete(spec.joint(joint))
        spec.body("pelvis").pos = [0, 0, self.robot.nominal_height_m + 0.1]
        add_room(spec)
        ball = spec.worldbody.add_body(name="ball", mocap=True)
        ball.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.04, 0, 0], rgba=[0.9, 0.1, 0.1, 1], contype=0, conaffinity=0
        )
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        arms = slice(self.robot.n_lmo, self.robot.n_lmo + 14)
        joints = [self.model.joint(joint) for joint in self.robot.arm_joints]
        self._qpos, self._qvel = (np.array([getattr(j, a)[0] for j in joints]) for a in ("qposadr", "dofadr"))
        self._ctrl = np.array([self.model.actuator(joint).id for joint in self.robot.arm_joints])
        self._default, self._range = self.robot.array("default")[arms], self.robot.range_rad[arms].T
        self._palms = palm_geoms(self.model)
        self._renderer = mujoco.Renderer(self.model, SIZE, SIZE)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def reset(self, seed: int) -> None:
        """Draw the ball's place, the room's looks and the arms' first pose."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        randomise_room(self.model, rng)
        self.ball_m = rng.uniform(*BALL_M.T)
        self.data.mocap_pos[0] = self.model.body("pelvis").pos + self.ball_m
        self.arms = np.clip(self._default + rng.uniform(-START_RAD, START_RAD, 14), *self._range)
        self.data.qpos[self._qpos] = self.data.ctrl[self._ctrl] = self.arms
        self._held_s, self.t_s = 0.0, 0.0
        mujoco.mj_forward(self.model, self.data)

    @property
    def places_m(self) -> np.ndarray:
        """Where the palms shall be (2, 3), pelvis frame."""
        return self.ball_m + np.array([[0, ASIDE_M, 0], [0, -ASIDE_M, 0]])

    def observe(self) -> Observation:
        """Return the head camera's picture and the arms' joints, speeds and the standing command (32,)."""
        self._renderer.update_scene(self.data, "head")
        q, dq = self.data.qpos[self._qpos], self.data.qvel[self._qvel]
        state = np.concatenate([q, dq, [0, 0, 0, self.robot.nominal_height_m]]).astype(np.float32)
        return Observation(self._renderer.render().copy(), state, TASK, self.t_s)

    def step(self, action: np.ndarray) -> bool:
        """Play a whole-body action (20,) for 50 ms; return whether the palms have been in place long enough."""
        self.data.ctrl[self._ctrl] = np.clip(WholeBodyAction.from_vector(action).arms.positions_rad, *self._range)
        mujoco.mj_step(self.model, self.data, PHYSICS_STEPS)
        self.t_s += 1 / FPS
        palms = self.data.geom_xpos[self._palms] - self.model.body("pelvis").pos
        near = bool((np.linalg.norm(palms - self.places_m, axis=1) < NEAR_M).all())
        self._held_s = self._held_s + 1 / FPS if near else 0.0
        return self._held_s >= HOLD_S - 1e-9

    def action(self, arms: np.ndarray) -> np.ndarray:
        """Return the whole-body action (20,) that moves the arms and stands."""
        action = np.zeros(ACTION_DIM, np.float32)
        action[:14], action[19] = arms, self.robot.nominal_height_m
        return action


def record(root: Path, name: str, demonstrations: int) -> Path:
    """Record demonstrations of one robot, or keep what is recorded."""
    folder = root / f"{name}_{demonstrations}"
    if (folder / "meta" / "wbvla.json").is_file():
        return folder
    import shutil

    import av
    from datasets import disable_progress_bars
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset

    av.logging.set_libav_level(av.logging.ERROR)
    disable_progress_bars()
    shutil.rmtree(folder, ignore_errors=True)
    env, solver = Reach(name), ArmSolver(get_robot(name))
    arms = env.robot.arm_joints
    state = [*(f"{j}.q_rad" for j in arms), *(f"{j}.dq_rad_s" for j in arms), "s_x", "s_y", "s_psi", "height_m"]
    features = {
        "observation.images.head": {
            "dtype": "video",
            "shape": (SIZE, SIZE, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (len(state),), "names": state},
        "action": {"dtype": "float32", "shape": (ACTION_DIM,), "names": action_names(arms)},
    }
    encoder = RGBEncoderConfig(vcodec="h264", preset="ultrafast", crf=20, g=2)
    dataset = LeRobotDataset.create(
        f"local/{name}", FPS, features, root=folder, robot_type=name, video_backend="pyav", rgb_encoder=encoder
    )
    progress, reached, seed = Progress(f"record {name}", demonstrations, "episodes"), 0, 0
    while progress.done < demonstrations:
        seed += 1
        env.reset(seed)
        try:
            path = MinimumJerk(env.arms, solver.solve(*env.places_m))
        except ValueError:  # a place that these arms do not reach is nobody's task
            continue
        done, left = False, HOLD_ROWS
        for _ in range(round(TIME_S * FPS)):
            seen, action = env.observe(), env.action(path.step())
            done = env.step(action) or done
            frame = {"observation.images.head": seen.image, "observation.state": seen.state}
            dataset.add_frame({**frame, "action": action, "task": TASK})
            left -= done
            if not left:
                break
        reached += done
        dataset.save_episode()
        progress.advance(1, f"{reached} reached")
    dataset.finalize()
    env.close()
    progress.close(f"{reached} reached")
    save_contract(folder / "meta" / "wbvla.json", {"domain": robot_facts(name), "reached": reached / demonstrations})
    return folder


def success(model, robot: str, domain: str, trials: int) -> float:
    """Return the share of test episodes in which a robot reaches the ball, steered as `domain`."""
    env, solver = Reach(robot), ArmSolver(get_robot(robot))
    policy, wins, done, seed = RobotPolicy(model, domain), 0, 0, 200_000
    while done < trials:
        seed += 1
        env.reset(seed)
        try:
            solver.solve(*env.places_m)
        except ValueError:
            continue
        policy.reset(seed)
        chunk, won = np.empty((0, ACTION_DIM)), False
        for row in range(round(TIME_S * FPS)):
            if row % PLAY_STEPS == 0:
                chunk = policy.infer(env.observe())["chunk"]
            won = won or env.step(chunk[row % PLAY_STEPS])
        wins, done = wins + won, done + 1
    env.close()
    return wins / trials


def with_swapped_prompts(model):
    """Return a copy in which the two robots have each other's soft prompts."""
    swapped = copy.deepcopy(model)
    one, other = (swapped.domains[name] for name in ROBOTS)
    one.prompt.data, other.prompt.data = other.prompt.data, one.prompt.data
    return swapped


def run_seed(seed: int, args: argparse.Namespace, data: dict[str, Path]) -> dict:
    """Train the three models of a seed and measure them."""
    root, first, second = args.out / f"seed{seed}", *ROBOTS
    both = tuple(str(data[name]) for name in ROBOTS)
    shared = {"recipe": "two_robots", "seed": seed, "hold_out": 0.05, "steps": args.steps}
    runs = {
        "joint": Adapt(str(root / "joint"), both, **shared),
        "first": Adapt(str(root / "first"), both[:1], **shared),
        "added": Adapt(
            str(root / "added"), both[1:], init=str(root / "first"), like=first, mode="warmup", learning_rate=3e-3,
            **shared,
        ),
    }  # fmt: skip
    results = _read(root / "results.json")
    results.setdefault("seconds", {})
    for name, cfg in runs.items():
        started = time.monotonic()
        run(cfg)
        results["seconds"].setdefault(name, round(time.monotonic() - started, 1))
    joint, alone, added = (load_model(root / name) for name in runs)
    moved = sum(p.numel() for p in added.domains[second].parameters())
    results["added_share"] = moved / sum(p.numel() for p in added.parameters())
    assert results["added_share"] < 0.01, results["added_share"]
    swapped = with_swapped_prompts(joint)
    conditions = {
        f"joint, {first}": (joint, first, first),
        f"joint, {second}": (joint, second, second),
        f"joint, {first} as {second}": (joint, first, second),
        f"joint, {second} as {first}": (joint, second, first),
        f"joint, {first} with {second}'s prompt alone": (swapped, first, first),
        f"joint, {second} with {first}'s prompt alone": (swapped, second, second),
        f"{first} alone": (alone, first, first),
        f"{second} added": (added, second, second),
        f"{second} added, {first}": (added, first, first),
    }
    measured = results.setdefault("success", {})
    progress = Progress(f"seed {seed}: measure", len(conditions), "conditions", len(measured))
    for condition, (model, robot, domain) in conditions.items():
        if condition not in measured:
            measured[condition] = success(model, robot, domain, args.trials)
            save_contract(root / "results.json", results)
            progress.advance(1, f"{condition}: {measured[condition]:.2f}")
    progress.close()
    return results


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def main() -> None:
    """Run all seeds, print the table, write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=4000, help="of the optimiser, for each model")
    parser.add_argument("--demonstrations", type=int, default=200, help="of each robot")
    parser.add_argument("--trials", type=int, default=40, help="episodes for each condition")
    parser.add_argument("--out", type=Path, default=Path("outputs/xvla_two_robots"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = {name: record(args.out / "data", name, args.demonstrations) for name in ROBOTS}
    seeds = {seed: run_seed(seed, args, data) for seed in args.seeds}
    conditions = list(next(iter(seeds.values()))["success"])
    table = {c: [seeds[seed]["success"][c] for seed in seeds] for c in conditions}
    for condition, values in table.items():
        print(f"{condition:<40} {np.mean(values):.2f}   {' '.join(f'{v:.2f}' for v in values)}")
    added, joint = (np.mean(table[c]) for c in (f"{ROBOTS[1]} added", f"joint, {ROBOTS[1]}"))
    share = next(iter(seeds.values()))["added_share"]
    print(f"{ROBOTS[1]} added by {share:.2%} of the parameters: {added / max(joint, 1e-9):.0%} of joint training")
    settings = {"steps": args.steps, "demonstrations": args.demonstrations, "trials": args.trials}
    reached = {name: _read(folder / "meta" / "wbvla.json")["reached"] for name, folder in data.items()}
    facts = {"settings": settings, "demonstrations_reached": reached, "seeds": {str(k): v for k, v in seeds.items()}}
    save_contract(args.out / "results.json", facts)
    print(f"wrote {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
