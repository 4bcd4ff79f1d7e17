"""The legs' recipes as tasks of mjlab, for its own launcher: `train Wbvla-LMO-G1 --gpu-ids "[0, 1]"`.

In: mjlab imports this module (entry point `mjlab.tasks`). Out: one registered task for each robot and recipe that fits.
mjlab's environment runs the physics and asks its managers for actions, rewards, ends and observations. All of them
answer from one `MjlabEngine`, so that the task is the one of `wbvla lmo train`; it is held by the action term.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from mjlab.entity import EntityCfg
from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab.managers.action_manager import ActionTerm, ActionTermCfg
from mjlab.managers.event_manager import EventTermCfg
from mjlab.managers.observation_manager import ObservationGroupCfg, ObservationTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.managers.termination_manager import TerminationTermCfg
from mjlab.rl import MjlabOnPolicyRunner, RslRlModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg
from mjlab.scene import SceneCfg
from mjlab.tasks.registry import register_mjlab_task

from wbvla.lmo.mjlab_engine import MjlabEngine, simulation_config
from wbvla.lmo.randomisation import on_ground_spec
from wbvla.lmo.train import Curriculum
from wbvla.recipes.lmo import RECIPES, LmoConfig
from wbvla.robots import get_robot
from wbvla.robots.base import Robot

ROBOTS, WORLDS = ("g1", "x2"), 4096


@dataclass(kw_only=True)
class LegsCfg(ActionTermCfg):
    """The action term that holds the task. robot: name; recipe: the whole configuration of the training."""

    robot: str
    recipe: LmoConfig
    entity_name: str = "robot"

    def build(self, env: ManagerBasedRlEnv) -> Legs:
        """Make the term."""
        return Legs(self, env)


class Legs(ActionTerm):
    """One task in mjlab's environment: each of its managers' terms is a view of what happened here.

    Attributes:
        reward, fallen, timed_out: (n,) of the last step.
    """

    def __init__(self, cfg: LegsCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        seed = env.cfg.seed or 0
        self.engine = MjlabEngine(get_robot(cfg.robot), cfg.recipe, env.num_envs, seed, env.sim)
        c = self.engine.config
        if (c.physics_s, c.substeps) != (env.physics_dt, env.cfg.decimation):
            raise ValueError(
                f"recipe: got {c.substeps} physics steps of {c.physics_s} s, expected {env.cfg.decimation} of "
                f"{env.physics_dt} s, the task's; train with `wbvla lmo train --engine mjlab`"
            )
        self.curriculum = Curriculum(cfg.recipe.harness)
        self.engine.set_harness(self.curriculum.harness)
        self.steps = 0
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def action_dim(self) -> int:
        """Joints that the policy owns."""
        return self.engine.robot.n_lmo

    @property
    def raw_action(self) -> torch.Tensor:
        """The newest action (n, n_lmo)."""
        return self.engine.actions[0]

    def process_actions(self, actions: torch.Tensor) -> None:
        """Begin a step of 20 ms."""
        self._applied = self.engine.act(actions)
        self.engine.write()

    def apply_actions(self) -> None:
        """Set controls and forces of a physics step."""
        self.engine.push()

    def judge(self) -> torch.Tensor:
        """End the step; return which worlds fell, (n,) bool."""
        engine, recipe = self.engine, self.engine.config
        lengths = engine.age + 1
        engine.read()
        self.reward, self.fallen, self.timed_out = engine.judge(self._applied)
        self.curriculum.lengths.extend(lengths[self.fallen | self.timed_out].tolist())
        self.steps += 1
        if self.steps % (10 * recipe.steps_per_update) == 0:
            self.curriculum.update(engine.max_steps)
            engine.set_harness(self.curriculum.harness)
        self._seen = None
        self._env.extras["log"] |= {f"Reward/{name}": value for name, value in engine.rows.items()}
        self._env.extras["log"] |= {"Curriculum/harness": engine.harness, "Curriculum/level": engine.level.mean()}
        return self.fallen

    def begin(self, worlds: torch.Tensor) -> None:
        """Put worlds (ids) that mjlab resets where their episodes begin; `judge` has done so with those that ended."""
        mask = torch.zeros_like(self.engine.delayed)
        mask[worlds] = True
        mask &= self.engine.age > 0
        if mask.any():
            self.engine.reset(mask)
            self._seen = None
        self.engine.write()

    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return actor and critic observations; they are made once a step, since a filter advances."""
        if self._seen is None:
            self._seen = self.engine.observe()
        return self._seen


def legs(env: ManagerBasedRlEnv) -> Legs:
    """Return an environment's task."""
    return env.action_manager.get_term("legs")


def environment(robot_name: str, recipe: LmoConfig, worlds: int = WORLDS) -> ManagerBasedRlEnvCfg:
    """Return mjlab's configuration of a recipe on a robot."""

    def spec():
        spec = on_ground_spec(get_robot(robot_name), recipe)
        spec.option.timestep, spec.option.integrator = 0.002, 0  # as mjlab expects a part of a scene; see `sim`
        spec.option.iterations, spec.option.ls_iterations = 100, 50
        return spec

    group = lambda i: ObservationGroupCfg(  # noqa: E731
        terms={"legs": ObservationTermCfg(func=lambda env: legs(env).seen()[i])}
    )
    return ManagerBasedRlEnvCfg(
        decimation=recipe.substeps,
        episode_length_s=recipe.episode_s,
        sim=simulation_config(recipe),
        scene=SceneCfg(num_envs=worlds, entities={"robot": EntityCfg(spec_fn=spec)}),
        actions={"legs": LegsCfg(robot=robot_name, recipe=recipe)},
        terminations={  # in this order
            "fallen": TerminationTermCfg(func=lambda env: legs(env).judge()),
            "timed_out": TerminationTermCfg(func=lambda env: legs(env).timed_out, time_out=True),
        },
        rewards={"sum": RewardTermCfg(func=lambda env: legs(env).reward, weight=1.0)},
        scale_rewards_by_dt=False,
        observations={"actor": group(0), "critic": group(1)},
        events={"begin": EventTermCfg(func=lambda env, env_ids: legs(env).begin(env_ids), mode="reset")},
    )


def agent(name: str, c: LmoConfig) -> RslRlOnPolicyRunnerCfg:
    """Return rsl_rl's configuration of a recipe; the task's name is the experiment's."""
    std = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": c.initial_std}
    net = dict(hidden_dims=c.hidden, activation="elu", obs_normalization=True)
    return RslRlOnPolicyRunnerCfg(
        seed=0,
        num_steps_per_env=c.steps_per_update,
        max_iterations=1500,
        save_interval=100,
        experiment_name=name,
        logger="tensorboard",
        upload_model=False,
        actor=RslRlModelCfg(distribution_cfg=std, **net),
        critic=RslRlModelCfg(**net),
        algorithm=RslRlPpoAlgorithmCfg(
            num_learning_epochs=c.epochs,
            num_mini_batches=c.minibatches,
            learning_rate=c.learning_rate,
            entropy_coef=c.entropy,
            desired_kl=c.desired_kl,
        ),
    )


class LegsRunner(MjlabOnPolicyRunner):
    """mjlab's runner with left-right symmetry, whose checkpoints hold the curriculum and come with export/."""

    def __init__(self, env, train_cfg: dict, log_dir: str | None = None, device: str = "cpu") -> None:
        from wbvla.lmo.ppo import prepare

        super().__init__(env, train_cfg, log_dir, device)
        self.legs = legs(env.unwrapped)
        self.robot, self.config, self.earlier = self.legs.engine.robot, self.legs.engine.config, []
        prepare(self.alg, self.legs.engine)

    @property
    def steps(self) -> int:
        """Environment steps so far, over all worlds and GPUs."""
        rollout = self.env.num_envs * self.cfg["num_steps_per_env"] * self.gpu_world_size
        return (self.current_learning_iteration + 1) * rollout

    def save(self, path: str, infos: dict | None = None) -> None:
        """Write a checkpoint, and policy.onnx and contract.json in export/ beside it."""
        from wbvla.lmo.export import export

        engine = self.legs.engine
        curriculum = {"harness": engine.harness, "level": float(engine.level.mean())}
        super().save(path, {**(infos or {}), "legs": curriculum})
        export(self, Path(path).parent / "export", f"train {self.cfg['experiment_name']}", {})

    def load(self, path: str, *args, **kwargs) -> dict:
        """Continue from a checkpoint, in new episodes at the curriculum's place."""
        infos = super().load(path, *args, **kwargs)
        self.legs.curriculum.harness = infos["legs"]["harness"]
        self.legs.engine.set_harness(infos["legs"]["harness"])
        self.legs.engine.level[:] = infos["legs"]["level"]
        return infos


def fits(robot: Robot, recipe: LmoConfig, name: str) -> bool:
    """Tell whether a recipe is for flat ground, not another robot's, and asks for heights that the robot reaches."""
    (lowest, tallest), (low, high) = robot.height_range_m, recipe.heights_m
    others = {f"_{other}" for other in ROBOTS} - {f"_{robot.name}"}
    reached = not recipe.roughness_m and lowest <= low and high <= tallest
    return reached and not any(other in name for other in others)


def task_name(robot: str, recipe: str) -> str:
    """Return mjlab's name of a recipe on a robot, such as Wbvla-LMO-G1-Stage2."""
    parts = [part.capitalize() for part in recipe.removeprefix("lmo_").split("_") if part != robot]
    return "-".join(["Wbvla-LMO", robot.upper(), *parts])


def _register() -> None:
    for robot in ROBOTS:
        for recipe, make in RECIPES.items():
            if fits(get_robot(robot), make(), recipe):
                name, config = task_name(robot, recipe), environment(robot, make())
                register_mjlab_task(name, config, config, agent(name, make()), LegsRunner)


_register()
