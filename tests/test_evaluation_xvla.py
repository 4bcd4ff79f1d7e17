"""Laws of an X-VLA in closed loop: a robot is steered by its own domain, and what cannot play a task says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from runtime_world import Legs
from wbvla.evaluation.policies import load_policy
from wbvla.evaluation.rollout import rollout
from wbvla.evaluation.run import Evaluate
from wbvla.runtime.serve import Serve
from wbvla.runtime.serve import load_policy as serve_policy
from wbvla.types import Observation
from wbvla.xvla.adapt import Adapt
from wbvla.xvla.adapt import run as adapt
from wbvla.xvla.checkpoint import save_model
from wbvla.xvla.model import Xvla
from xvla_world import HUMANOID, ROBOTS, with_words

SEED = 100_000  # validation


def checkpoint(folder, **g1) -> str:
    """A small random X-VLA of three robots, whose G1 differs from the project's in what is named."""
    torch.manual_seed(0)
    domains = ROBOTS | {"g1": replace(HUMANOID, **g1)} if g1 else ROBOTS
    save_model(folder, Xvla(with_words(domains, chunk_steps=20)))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return checkpoint(tmp_path_factory.mktemp("xvla") / "three")


def load(policy: str, **changes):
    return load_policy(**{"policy": policy, "task": "cart-pushing", "robot": "g1", **changes})


def ask(policy, level: int = 90) -> np.ndarray:
    policy.reset(3)
    return policy.infer(Observation(np.full((48, 64, 3), level, np.uint8), np.zeros(68, np.float32), "push", 0.0))[
        "chunk"
    ]


def test_a_trial_is_played_by_the_robots_own_domain_and_repeats(folder):
    policy = load(folder, steps=1)
    assert policy.domain == HUMANOID and policy.image_size == 32
    first, again = (
        rollout("cart-pushing", "g1", policy, SEED, 0.04, policy.image_size, controller=Legs()) for _ in range(2)
    )
    assert replace(first, wall_s=0.0) == replace(again, wall_s=0.0)
    assert first.simulated_s > 0.5 and first.flag_differences == 0 and not first.success


def test_denoising_steps_are_those_asked_for_and_the_blind_see_nothing(folder):
    assert np.array_equal(ask(load(folder)), ask(load(folder, steps=5)))
    assert not np.array_equal(ask(load(folder)), ask(load(folder, steps=1)))
    blind = load("blind", checkpoint=folder, steps=1)
    assert np.array_equal(ask(blind), ask(load(folder, steps=1), level=0))
    assert not np.array_equal(ask(blind), ask(load(folder, steps=1)))
    assert not np.array_equal(ask(load("random", checkpoint=folder)), ask(load(folder)))


@pytest.mark.parametrize(
    ("g1", "message"),
    [
        ({"id": 40}, "domain 'g1': id: got 40, expected 30"),
        ({"action": "ee6d"}, "domain 'g1': action space: got 'ee6d', expected 'whole_body'"),
        ({"state_dim": 32}, "domain 'g1': state: got 32, expected 68"),
        ({"cameras": ("wrist",)}, "domain 'g1': cameras: got 'wrist', expected 'head'"),
    ],
)
def test_a_domain_that_cannot_play_the_tasks_is_one_clear_error(g1, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load(checkpoint(tmp_path / "other", **g1))
    assert "\n" not in str(caught.value) and "wbvla collect sim" in str(caught.value)


def test_an_unknown_robot_and_steps_for_others_are_refused(folder):
    with pytest.raises(ValueError, match="domain: got 'x2', expected one of g1"):
        load(folder, robot="x2")
    with pytest.raises(ValueError, match="steps: got 2, but zero is no X-VLA"):
        load("zero", steps=2)
    with pytest.raises(ValueError, match="device: got 'cuda', but zero is no X-VLA; leave --device out"):
        load("zero", device="cuda")
    with pytest.raises(ValueError, match="steps: got 0, expected at least 1"):
        Evaluate(policy=folder, steps=0)


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "device: got 'gpu', expected cpu, cuda"), ("cuda:99", "device: got 'cuda:99', but PyTorch .* sees")],
)
def test_a_device_that_is_not_there_is_one_clear_error_in_every_verb(device, message, folder, tmp_path):
    verbs = (
        lambda: load(folder, device=device),
        lambda: serve_policy(Serve(policy=folder, http=True, device=device)),
        lambda: adapt(Adapt(str(tmp_path / "out"), (str(tmp_path),), init=folder, device=device)),
    )
    for verb in verbs:
        with pytest.raises(ValueError, match=message) as caught:
            verb()
        assert "\n" not in str(caught.value)
    assert next(load(folder, device="cpu").model.parameters()).device.type == "cpu"
