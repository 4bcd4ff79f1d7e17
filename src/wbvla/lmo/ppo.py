"""rsl_rl's PPO around an engine: rollouts, left-right symmetry, curriculum, checkpoints without pickle.

In: robot, recipe and engine. Out: a `Trainer` that updates, evaluates, saves and loads.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel
from rsl_rl.modules import EmpiricalNormalization
from rsl_rl.storage import RolloutStorage
from safetensors.torch import load_file, save_file
from tensordict import TensorDict

from wbvla.contract import differences
from wbvla.lmo.cpu_engine import CpuEngine
from wbvla.lmo.evaluate import nine_commands
from wbvla.lmo.observation import layout, mirror_action, mirror_observation
from wbvla.lmo.train import Curriculum
from wbvla.recipes.lmo import LmoConfig, get_recipe
from wbvla.robots import get_robot
from wbvla.robots.base import Robot

NETWORKS = "symmetric"  # in a checkpoint, which stores the same parameters as networks that are not
Mirror = tuple[torch.Tensor, torch.Tensor]  # index and sign: the mirror image of x is x[:, index] * sign


class Symmetric(torch.nn.Sequential):
    """Layers whose answer to a mirrored input is the mirrored answer, exactly: the mean of both ways round.

    A policy that is only shown mirrored samples drifts away from its mirror image until their likelihood ratios are
    zero, and half of every batch teaches nothing (docs/log.md).

    Args:
        layers: as they are; names and parameters stay theirs.
        inputs, outputs: the mirror, (index, sign).
    """

    def __init__(self, layers: torch.nn.Sequential, inputs: Mirror, outputs: Mirror) -> None:
        super().__init__(*layers)
        for name, (index, sign) in (("in", inputs), ("out", outputs)):
            self.register_buffer(f"{name}_index", index, persistent=False)
            self.register_buffer(f"{name}_sign", sign, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs) to (B, outputs)."""
        mirrored = super().forward(x[:, self.in_index] * self.in_sign)
        return (super().forward(x) + mirrored[:, self.out_index] * self.out_sign) / 2


class SymmetricNormalization(EmpiricalNormalization):
    """rsl_rl's normaliser with statistics that are their own mirror image."""

    def __init__(self, width: int, mirror: Mirror) -> None:
        super().__init__(width)
        self.register_buffer("index", mirror[0], persistent=False)
        self.register_buffer("sign", mirror[1], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width) to about zero mean and unit deviation."""
        mean = (self._mean + self._mean[:, self.index] * self.sign) / 2
        return (x - mean) / ((self._std + self._std[:, self.index]) / 2 + self.eps)


def prepare(alg: PPO, engine: CpuEngine) -> None:
    """Make fresh networks symmetric; the policy begins near zero action: default pose plus the swing feed-forward."""
    robot, c = engine.robot, engine.config
    frame, worth = mirror_observation(robot, 1, c.terms), (np.zeros(1, int), np.ones(1))
    with torch.no_grad():
        alg.actor.mlp[-1].weight.mul_(0.01)
    for network, seen, answer in (
        (alg.actor, mirror_observation(robot, c.history, c.terms), mirror_action(robot)),
        (alg.critic, engine.mirror_critic(frame), worth),
    ):
        seen, answer = (
            (torch.as_tensor(index), torch.as_tensor(sign, dtype=torch.float32)) for index, sign in (seen, answer)
        )
        network.mlp = Symmetric(network.mlp, seen, answer).to(alg.device)
        network.obs_normalizer = SymmetricNormalization(len(seen[0]), seen).to(alg.device)


def make_engine(name: str, robot: Robot, config: LmoConfig, seed: int, threads: int) -> CpuEngine:
    """Return the training worlds of an engine, cpu or mjlab. Raises ValueError for another."""
    if name == "cpu":
        return CpuEngine(robot, config, config.worlds, seed, threads)
    if name != "mjlab":
        raise ValueError(f"engine: got {name!r}, expected cpu or mjlab")
    from wbvla.lmo.mjlab_engine import MjlabEngine

    return MjlabEngine(robot, config, config.worlds, seed)


class Trainer:
    """One training run of the legs on an engine, cpu or mjlab."""

    def __init__(self, robot: Robot, config: LmoConfig, seed: int, threads: int, engine: str = "cpu") -> None:
        (lowest, tallest), (low, high) = robot.height_range_m, config.heights_m
        if low < lowest or high > tallest:
            raise ValueError(
                f"recipe: got heights {low}-{high} m, expected within {lowest}-{tallest} m, the range of robot "
                f"{robot.name!r}; its recipe is lmo_{robot.name}"
            )
        torch.manual_seed(seed)
        self.robot, self.config, self.seed, self.threads = robot, config, seed, threads
        self.engine, self.env = engine, make_engine(engine, robot, config, seed, threads)
        self.device = str(self.env.xp.zeros(0).device)
        self.curriculum = Curriculum(config.harness)
        self.env.set_harness(self.curriculum.harness)
        self.steps = self.updates = 0
        self.earlier: list[dict] = []  # steps and recipe of the runs whose networks this one began with
        self.obs = self._observe()
        self.alg = self._ppo()

    def _ppo(self) -> PPO:
        c = self.config
        groups = {"actor": ["actor"], "critic": ["critic"]}
        std = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": c.initial_std}
        net = dict(hidden_dims=c.hidden, activation="elu", obs_normalization=True)
        actor = MLPModel(self.obs, groups, "actor", self.robot.n_lmo, distribution_cfg=std, **net)
        critic = MLPModel(self.obs, groups, "critic", 1, **net)
        storage = RolloutStorage("rl", c.worlds, c.steps_per_update, self.obs, [self.robot.n_lmo], self.device)
        alg = PPO(
            actor, critic, storage, num_learning_epochs=c.epochs, num_mini_batches=c.minibatches, gamma=0.99, lam=0.95,
            entropy_coef=c.entropy, learning_rate=c.learning_rate, desired_kl=c.desired_kl, schedule="adaptive",
            use_clipped_value_loss=True, device=self.device,
        )  # fmt: skip
        prepare(alg, self.env)
        alg.train_mode()
        return alg

    def _observe(self) -> TensorDict:
        actor, critic = self.env.observe()
        return TensorDict({"actor": torch.as_tensor(actor), "critic": torch.as_tensor(critic)}, [self.env.n])

    def update(self) -> dict:
        """Collect one batch and update. Returns a flat log row."""
        rows: dict[str, float] = {}
        with torch.inference_mode():
            for _ in range(self.config.steps_per_update):
                action = self.alg.act(self.obs)
                lengths = self.env.age + 1
                reward, fallen, timed_out = self.env.step(self.env.xp.asarray(action, dtype=float))
                done = fallen | timed_out
                self.curriculum.lengths.extend(lengths[done].tolist())
                for name, value in self.env.rows.items():
                    rows[name] = rows.get(name, 0.0) + value / self.config.steps_per_update
                self.obs = self._observe()
                self.alg.process_env_step(
                    self.obs, torch.as_tensor(reward, dtype=torch.float32), torch.as_tensor(done, dtype=torch.uint8),
                    {"time_outs": torch.as_tensor(timed_out, dtype=torch.float32)},
                )  # fmt: skip
            self.alg.compute_returns(self.obs)
        losses = self.alg.update()
        with torch.no_grad():  # it would grow: robots that stand on both feet fall by it
            std = self.alg.actor.distribution.std_param
            std.copy_(((std + std[self.alg.actor.mlp.out_index]) / 2).clamp(max=self.config.initial_std))
        self.steps += self.config.worlds * self.config.steps_per_update
        self.updates += 1
        if self.updates % 10 == 0:
            self.curriculum.update(self.env.max_steps)
            self.env.set_harness(self.curriculum.harness)
        lengths = self.curriculum.lengths
        return {
            "steps": self.steps, "updates": self.updates, "length": sum(lengths) / max(1, len(lengths)),
            "harness": self.curriculum.harness, "level": float(self.env.level.mean()),
            "std": float(self.alg.actor.output_std.detach().mean()), "lr": self.alg.learning_rate,
            **{f"loss_{k}": v for k, v in losses.items()}, **{k: float(v) for k, v in rows.items()},
        }  # fmt: skip

    def evaluate(self, worlds: int = 4, **options) -> dict:
        """Score the deterministic policy without harness; see `nine_commands`."""
        actor = self.alg.actor
        actor.eval()

        def policy(observation: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                obs = TensorDict({"actor": torch.as_tensor(observation, device=self.device)}, [len(observation)])
                return actor(obs).cpu().numpy().astype(float)

        result = nine_commands(policy, self.robot, self.config, worlds, threads=self.threads, **options)
        self.alg.train_mode()
        return result

    def save(self, out: Path) -> None:
        """Write model, optimiser, curriculum and random state; each file is replaced atomically."""
        moments = self.alg.optimizer.state_dict()["state"]
        tensors = {f"actor.{k}": v for k, v in self.alg.actor.state_dict().items()}
        tensors |= {f"critic.{k}": v for k, v in self.alg.critic.state_dict().items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, state in moments.items() for k, v in state.items()}
        tensors |= {f"worlds.{k}": torch.as_tensor(v) for k, v in self.env.worlds().items()}
        tensors |= {f"observation.{k}": v for k, v in self.obs.items()}
        tensors["rng.torch"] = torch.get_rng_state()
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / "checkpoint.safetensors.tmp")
        facts = {
            "kind": "lmo-checkpoint", "robot": self.robot.name, "recipe": asdict(self.config), "steps": self.steps,
            "updates": self.updates, "learning_rate": self.alg.learning_rate, "harness": self.curriculum.harness,
            "level": float(self.env.level.mean()), "lengths": list(self.curriculum.lengths),
            "engine": self.engine, "networks": NETWORKS, "numpy": self.env.rng.bit_generator.state,
            "earlier": self.earlier,
        }  # fmt: skip
        (out / "checkpoint.json.tmp").write_text(json.dumps(facts))
        for name in ("checkpoint.safetensors", "checkpoint.json"):
            os.replace(out / f"{name}.tmp", out / name)

    def begin_with(self, earlier: Path) -> None:
        """Take the networks and the curriculum's place of an earlier run, whose recipe and robot may differ.

        What the earlier networks did not observe they ignore at first; joints that the other robot lacks begin with
        no action; exploration starts at the recipe's.

        Raises:
            ValueError: no checkpoint there, or one with networks of another size.
        """
        facts = _read_facts(earlier)
        robot, recipe = get_robot(facts["robot"]), facts["recipe"]
        tensors = load_file(earlier / "checkpoint.safetensors", device=self.device)
        frames = {"actor": (recipe["history"], self.config.history), "critic": (1, 1)}
        outputs = {"actor": (robot.lmo_joints, self.robot.lmo_joints), "critic": (("value",), ("value",))}
        try:
            for name, network in (("actor", self.alg.actor), ("critic", self.alg.critic)):
                given, own = _part(tensors, f"{name}."), network.state_dict()
                makers = (robot, recipe["terms"]), (self.robot, self.config.terms)
                columns = [
                    _columns(*maker, count, part["obs_normalizer._mean"].shape[1])
                    for maker, count, part in zip(makers, frames[name], (given, own))
                ]
                noise = {k: v for k, v in own.items() if k.startswith("distribution.")}
                network.load_state_dict(_fitted(given, own, columns, outputs[name]) | noise)
        except RuntimeError:
            raise ValueError(f"init: {earlier} has networks of another size than the recipe") from None
        self._set_curriculum(facts)
        self.env.level[:] = facts["level"]
        self.earlier = [*facts["earlier"], {key: facts[key] for key in ("robot", "steps", "recipe")}]

    def _set_curriculum(self, facts: dict) -> None:
        self.curriculum.harness = facts["harness"]
        self.env.set_harness(self.curriculum.harness)

    def _load_networks(self, folder: Path) -> dict[str, torch.Tensor]:
        tensors = load_file(folder / "checkpoint.safetensors")
        self.alg.actor.load_state_dict(_part(tensors, "actor."))
        self.alg.critic.load_state_dict(_part(tensors, "critic."))
        return tensors

    def load(self, out: Path) -> None:
        """Continue from `save` as if there had been no stop (bit for bit with one thread); a run of another engine
        continues in new episodes.

        Raises:
            ValueError: no checkpoint there, or one of another robot or recipe.
        """
        facts = _read_facts(out)
        ours = {"robot": self.robot.name, "recipe": asdict(self.config), "networks": NETWORKS}
        theirs = {"robot": facts.get("robot"), "recipe": asdict(LmoConfig()) | facts.get("recipe", {})}
        theirs["networks"] = facts.get("networks", "not symmetric; --init begins with the mean of both ways round")
        lines = differences(ours, theirs)  # a field newer than the checkpoint had its default's effect
        if lines:
            fix = "give the --recipe, --worlds, --arms and --actuator it was made with"
            raise ValueError(f"{out}: a checkpoint of something else ({lines[0]}); {fix}")
        tensors = self._load_networks(out)
        state = self.alg.optimizer.state_dict()
        for key, value in _part(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            state["state"].setdefault(int(index), {})[name] = value
        self.alg.optimizer.load_state_dict(state)
        self.alg.learning_rate = facts["learning_rate"]
        for group in self.alg.optimizer.param_groups:
            group["lr"] = facts["learning_rate"]
        torch.set_rng_state(tensors["rng.torch"])
        if facts.get("engine", "cpu") == self.engine:
            self.env.rng.bit_generator.state = facts["numpy"]
            self.env.set_worlds({k: self.env.xp.asarray(v) for k, v in _part(tensors, "worlds.").items()})
            self.obs = TensorDict(_part(tensors, "observation."), [self.env.n]).to(self.device)
        else:
            self.env.level[:] = facts["level"]
        self.steps, self.updates, self.earlier = facts["steps"], facts["updates"], facts["earlier"]
        self.curriculum.lengths.extend(facts["lengths"])
        self._set_curriculum(facts)


def _columns(robot: Robot, terms: tuple[str, ...], frames: int, width: int) -> list[tuple]:
    """Name the entries of a stacked observation that ends, for the critic, with numbers of the truth."""
    joints = dict.fromkeys(("q", "dq"), robot.joints) | dict.fromkeys(
        ("q_lmo", "dq_lmo", "last_action"), robot.lmo_joints
    )
    frame = [(name, entry) for name, count, _ in layout(robot, terms) for entry in joints.get(name, range(count))]
    stacked = [(number, *entry) for number in range(frames) for entry in frame]
    return stacked + [("truth", i) for i in range(width - len(stacked))]


def _fitted(given: dict, own: dict, columns: list[list], outputs: tuple) -> dict[str, torch.Tensor]:
    """Give an earlier network the columns and outputs of this one.

    Columns that it lacks get no weight and this one's normaliser; outputs that it lacks are 0.
    columns, outputs: what they are, of the earlier network and of this one.
    """

    def moved(old: torch.Tensor, new: torch.Tensor, names: list, axis: int) -> torch.Tensor:
        at, found = zip(*((i, names[0].index(entry)) for i, entry in enumerate(names[1]) if entry in names[0]))
        at, found = (torch.tensor(index, device=old.device) for index in (at, found))
        return new.index_copy(axis, at, old.index_select(axis, found))

    out = dict(given)
    last = max(int(name.split(".")[1]) for name in own if name.startswith("mlp."))
    for name in ("obs_normalizer._mean", "obs_normalizer._var", "obs_normalizer._std"):
        out[name] = moved(given[name], own[name], columns, 1)
    out["mlp.0.weight"] = moved(given["mlp.0.weight"], torch.zeros_like(own["mlp.0.weight"]), columns, 1)
    for name in (f"mlp.{last}.weight", f"mlp.{last}.bias"):
        out[name] = moved(given[name], torch.zeros_like(own[name]), outputs, 0)
    return out


def _read_facts(folder: Path) -> dict:
    expected = "expected the --out folder of `wbvla lmo train`"
    try:
        facts = json.loads((folder / "checkpoint.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"no checkpoint in {folder}: {expected}") from None
    if facts.get("kind") != "lmo-checkpoint":
        raise ValueError(f"{folder}: its checkpoint is {facts.get('kind', 'of no kind')}, {expected}")
    return facts


def recipe_of(folder: Path, name: str) -> LmoConfig:
    """Return a recipe with what the run in `folder` was given beside it: arm motion, actuator network and worlds."""
    saved = _read_facts(folder).get("recipe", {})
    recipe = get_recipe(name)
    given = dict(arms=tuple(saved.get("arms", ())), actuator=saved.get("actuator", ""))
    return replace(recipe, **given, worlds=saved.get("worlds", recipe.worlds))


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
