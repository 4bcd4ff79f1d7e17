"""The policies that are compared in closed loop, behind one small protocol.

In: an observation (head image, state, task text, capture time). Out: {"chunk": (T, 20)} whole-body actions from the
capture time on, at 20 entries a second. The scripted operator is the exception: it sees the simulator's state and acts
at every step of the environment, as a human teleoperator would.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wbvla.evaluation.learned import Blind, load_learned, redraw_weights, refuse_xvla_flags
from wbvla.robots import get_robot
from wbvla.types import ACTION_DIM, FLAGS, ArmTarget, LocoCommand, Observation, WholeBodyAction

CHUNK_FPS = 20
CHUNK_STEPS = 20

OPERATORS = ("operator", "walk-only", "reach-only")
FROM_CHECKPOINT = ("random", "blind", "modular")
NAMED = (*OPERATORS, *FROM_CHECKPOINT, "zero", "replay")
LABELS = {
    "operator": "scripted operator (sees the simulator's state)",
    "vla": "VLA",
    "vla-no-lam": "VLA without latent-action pretraining",
    "blind": "the VLA, fed a black image",
    "replay": "mean demonstration, open loop",
    "random": "VLA with random weights",
    "zero": "stand still",
    "walk-only": "the operator's legs, arms frozen in a demonstration's pose",
    "reach-only": "the operator's arms, legs standing",
    "modular": "the operator up to the object, the VLA from there",
}


class Policy(Protocol):
    """Answers observations; remembers nothing across episodes."""

    def reset(self, seed: int) -> None:
        """Begin an episode."""

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return {"chunk": (T, 20) float32}: what to do from `observation.t_capture_s` on."""


class Operator:
    """The scripted operator as a policy: `act` takes the environment's privileged state."""

    def __init__(self, task: str, robot: str) -> None:
        from wbvla.sim.operator import get_operator
        from wbvla.sim.tasks import get_task

        self._operator = get_operator(get_task(task), get_robot(robot), np.random.default_rng(0))

    def reset(self, seed: int) -> None:
        """Begin an episode; the operator's small variations follow from the seed, apart from the environment's."""
        self._operator.reset(np.random.default_rng([seed, 1]))

    def act(self, privileged: Any) -> WholeBodyAction:
        """Return the action for the next 50 ms."""
        return self._operator.act(privileged)


class WalkOnly(Operator):
    """The operator's legs alone; the arms keep the pose in which a demonstration reached its first half's end."""

    def __init__(self, task: str, robot: str) -> None:
        super().__init__(task, robot)
        self._arms = demonstrated_arms(task, robot, self)

    def act(self, privileged: Any) -> WholeBodyAction:
        """Return the operator's command with the frozen arms."""
        return replace(super().act(privileged), arms=self._arms)


class ReachOnly(Operator):
    """The operator's arms alone; the legs stand."""

    def __init__(self, task: str, robot: str) -> None:
        super().__init__(task, robot)
        self._stand = LocoCommand(height_m=get_robot(robot).nominal_height_m)

    def act(self, privileged: Any) -> WholeBodyAction:
        """Return the operator's arms with a standing command."""
        return replace(super().act(privileged), loco=self._stand)


def demonstrated_arms(task: str, robot: str, operator: Operator) -> ArmTarget:
    """Return the arms at the moment in which the operator completes the first of the paper's two subgoals.

    Raises ValueError when it does so in none of the first ten training episodes.
    """
    from wbvla.sim.env import TaskEnv
    from wbvla.sim.seeds import seeds_for

    env = TaskEnv(task, robot, image_size=0)
    first = next(iter(env.task.paper.values()))
    for seed in seeds_for("train", 10):
        env.reset(seed)
        Operator.reset(operator, seed)
        info = env.info()
        while not info["done"]:
            action = Operator.act(operator, env.privileged())
            _, info = env.step(action.to_vector())
            if info["subgoals"][first]:
                return action.arms
    raise ValueError(f"walk-only: the operator never reaches {first!r} in {task}; see `wbvla eval --policy operator`")


class Zero:
    """Stand still with the arms at their default."""

    def __init__(self, robot: str) -> None:
        g = get_robot(robot)
        arms = ArmTarget(g.array("default")[g.n_lmo : g.n_lmo + 14])
        action = WholeBodyAction(arms, LocoCommand(height_m=g.nominal_height_m))
        self._chunk = np.tile(action.to_vector(), (CHUNK_STEPS, 1))

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return one second of standing."""
        return {"chunk": self._chunk}


class RandomActions:
    """A new whole-body action within the robot's limits at every question, held until the next."""

    def __init__(self, robot: str) -> None:
        self._robot = get_robot(robot)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Draw this episode's actions from its seed."""
        self._rng = np.random.default_rng([seed, 3])

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return one second of one random action."""
        rng, g = self._rng, self._robot
        arms = rng.uniform(*g.range_rad[g.n_lmo : g.n_lmo + 14].T)
        loco = LocoCommand(*rng.integers(-1, 2, 3).tolist(), rng.uniform(*g.height_range_m))
        action = WholeBodyAction(ArmTarget(arms, rng.uniform(size=2)), loco)
        return {"chunk": np.tile(action.to_vector(), (CHUNK_STEPS, 1))}


class Modular:
    """The operator, who sees the simulator's state, goes up to the object; a learned policy does the rest.

    After the paper's modular baseline, in which a human drives the robot to its work (WholeBodyVLA, section 5.2).

    Args:
        task, robot: names.
        policy: what takes over once the task's subgoal "approach" is reached.
    """

    def __init__(self, task: str, robot: str, policy: Any) -> None:
        self._operator, self._stand, self._policy = Operator(task, robot), Zero(robot), policy
        self.image_size = policy.image_size

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._operator.reset(seed)
        self._policy.reset(seed)
        self._ticks, self._arrived, self._chunk = 0, False, self._stand.infer(None)["chunk"]

    def watch(self, env: Any) -> None:
        """Let the operator see the environment; call after every tick."""
        self._arrived |= env.info()["subgoals"]["approach"]
        if not self._arrived and self._ticks % 5 in (0, 2):  # 20 Hz, as it is used to
            action = self._operator.act(env.privileged())
            self._chunk = np.tile(action.to_vector(), (CHUNK_STEPS, 1))
        self._ticks += 1

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return the operator's newest action for a second, or the learned policy's chunk."""
        return self._policy.infer(observation) if self._arrived else {"chunk": self._chunk}


class Replay:
    """The mean demonstration in open loop: it looks at the clock only.

    Args:
        mean: (L, 20) actions at 20 a second from the episode's start; the last one is held.
    """

    def __init__(self, mean: np.ndarray) -> None:
        self._mean = mean

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, np.ndarray]:
        """Return the second of the mean demonstration that starts at the capture time."""
        first = round(observation.t_capture_s * CHUNK_FPS)
        rows = np.clip(first + np.arange(CHUNK_STEPS), 0, len(self._mean) - 1)
        return {"chunk": self._mean[rows]}


def mean_demonstration(actions: np.ndarray, times_s: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Average demonstrations over their time since start: mean of the values, majority vote of the flags.

    An episode that has ended counts with its last action, so that the mean does not jump when one leaves; the result
    is as long as the median episode.

    Args:
        actions: (N, 20); times_s: (N,) when each was applied; episode: (N,) episode of each row, in order.
    Returns:
        (L, 20) float32 at 20 a second.
    """
    ids = np.unique(episode)
    rows = [np.flatnonzero(episode == i) for i in ids]
    length = 1 + int(np.median([np.rint(times_s[r[-1]] * CHUNK_FPS) for r in rows]))
    grid_s = np.arange(length) / CHUNK_FPS
    stacked = np.empty((len(ids), length, ACTION_DIM))
    for k, r in enumerate(rows):
        newest = np.searchsorted(times_s[r], grid_s + 1e-6, side="right") - 1
        stacked[k] = actions[r[np.clip(newest, 0, len(r) - 1)]]
    mean = stacked.mean(0)
    flags = np.rint(stacked[..., FLAGS])
    votes = np.stack([(flags == value).sum(0) for value in (0, -1, 1)])  # standing first: it wins ties
    mean[:, FLAGS] = np.array([0, -1, 1])[votes.argmax(0)]
    return mean.astype(np.float32)


def load_replay(dataset: str | Path) -> Replay:
    """Build the replay policy from a recorded LeRobot dataset. Raises FileNotFoundError, ValueError in one line."""
    from wbvla.data.frames import read_info, read_tables

    read_info(dataset)
    try:
        table = read_tables(dataset, "data", ["index", "episode_index", "observation.t_capture", "action"])
    except KeyError as error:
        raise ValueError(f"{dataset}: has no column {error}; replay needs a dataset of `wbvla collect sim`") from None
    order = np.argsort(table["index"].to_numpy(), kind="stable")
    actions = np.stack(table["action"].to_numpy()[order])
    times_s = np.array([float(np.ravel(t)[0]) for t in table["observation.t_capture"].to_numpy()[order]])
    return Replay(mean_demonstration(actions, times_s, table["episode_index"].to_numpy()[order]))


def load_policy(
    policy: str,
    task: str,
    robot: str,
    checkpoint: str | None = None,
    dataset: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    device: str = "cpu",
) -> Policy | Operator:
    """Make a policy from a name or a checkpoint folder.

    Args:
        policy: one of NAMED or a checkpoint folder.
        checkpoint: the policy that "blind" takes its weights from, "random" its shape, and "modular" hands over to;
            "random" without one acts at random.
        dataset: the recordings that "replay" averages.
        seed: of the random weights.
        steps, device: of an X-VLA: denoising steps, and where it computes.
    Raises:
        ValueError, FileNotFoundError: an unknown policy or a missing argument; the message has the fix.
    """
    if policy in NAMED and checkpoint is None:
        refuse_xvla_flags(policy, steps, device)
    if policy in OPERATORS:
        return dict(zip(OPERATORS, (Operator, WalkOnly, ReachOnly)))[policy](task, robot)
    if policy == "zero":
        return Zero(robot)
    if policy == "replay":
        if dataset is None:
            raise ValueError("policy replay averages demonstrations: add --dataset DIR (from `wbvla collect sim`)")
        return load_replay(dataset)
    if policy == "random" and checkpoint is None:
        return RandomActions(robot)
    if policy in ("blind", "modular") and checkpoint is None:
        raise ValueError(f"policy {policy} needs a VLA to start from: add --checkpoint DIR")
    if policy not in FROM_CHECKPOINT:
        if not Path(policy).is_dir():
            folders = "a folder of `wbvla vla finetune` or `wbvla xvla adapt`"
            raise ValueError(f"policy: got {policy!r}, expected {', '.join(NAMED)} or {folders}")
        return load_learned(policy, robot, steps, device)
    learned = load_learned(checkpoint, robot, steps, device)
    if policy == "blind":
        return Blind(learned)
    if policy == "modular":
        return Modular(task, robot, learned)
    redraw_weights(learned.model, seed)
    return learned
