"""Laws of X-VLA's training: interrupted equals straight, shares are kept, and a dataset's robot is never guessed."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vla_world import make_dataset
from wbvla.data.recorder import EpisodeRecorder
from wbvla.recipes.xvla import PRETRAINING_WEIGHTS, TRAINING_RECIPES, XVLA_RECIPES, get_training_recipe
from wbvla.robots import get_robot
from wbvla.types import Observation
from wbvla.vla.config import VlaConfig
from wbvla.xvla.adapt import Adapt, run
from wbvla.xvla.checkpoint import load_model
from wbvla.xvla.config import Source
from wbvla.xvla.policy import RobotPolicy
from wbvla.xvla.sources import Mixture, describe, stored_domain
from xvla_world import FLORENCE, HUMANOID, TRUNK, small, with_words


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two recordings with other pictures; the first stores its robot, the second says nothing."""
    root = tmp_path_factory.mktemp("data")
    one, two = make_dataset(root / "one", 3, 25), make_dataset(root / "two", 2, 20, seed=1)
    (one / "meta" / "wbvla.json").write_text(json.dumps({"domain": G1}))
    return one, two


G1 = {"name": "g1", "id": 30, "action": "whole_body", "masked_actions": [14, 15]}
LOGGED = {"loss", "loss/flow_matching", "loss/flag_cross_entropy", "gradients/soft_prompt_norm"}


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch):
    monkeypatch.setitem(XVLA_RECIPES, "tiny", lambda domains: small(domains, attention="prefix", dropout=0.1, **TRUNK))


def adapt(out, *data, **changes) -> Adapt:
    values = {"steps": 6, "batch": 6, "warmup_steps": 2, "hold_steps": 3, "domains": ("g1",), **changes}
    return Adapt(str(out), tuple(str(d) for d in data), **values)


def weights(folder) -> dict:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "training" / "optimizer.safetensors")}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_at(step: int):
    def report(at: int, _losses: dict) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGINT)

    return report


@pytest.mark.parametrize("mode", ["joint", "lora"])
def test_interrupted_equals_straight_bit_for_bit(mode, datasets, tmp_path):
    mixed = {"domains": ("g1", "arm"), "weights": (3.0, 1.0), "hold_out": 0.4, "action_mode": "auto", "mode": mode}
    if mode == "lora":
        run(adapt(tmp_path / "first", datasets[0], action_mode="auto"))
        mixed["init"] = str(tmp_path / "first")
    straight = adapt(tmp_path / "straight", *datasets, **mixed)
    metrics = run(straight)
    assert metrics.keys() > LOGGED | {"held_out_loss/g1", "held_out_loss/arm"}
    for step in (2, 5):  # in the warm-up of phase II and after it
        with pytest.raises(KeyboardInterrupt):
            run(replace(straight, out=str(tmp_path / "stopped")), interrupt_at(step))
        assert load_model(tmp_path / "stopped").config.domains.keys() == {"g1", "arm"}
    assert run(replace(straight, out=str(tmp_path / "stopped"))) == metrics
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))
    files = {path.suffix for path in (tmp_path / "straight").rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}
    before = (tmp_path / "straight" / "model.safetensors").stat().st_mtime_ns
    assert run(straight) == metrics and (tmp_path / "straight" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds a run with other settings"):
        run(replace(straight, seed=1))


@pytest.mark.slow
def test_what_two_processes_began_one_finishes_bit_for_bit_as_alone(datasets, tmp_path, monkeypatch):
    monkeypatch.undo()  # the processes know the recipe as it is
    mixed = {"domains": ("g1", "arm"), "action_mode": "auto", "batch": 4, "steps": 20}
    alone = adapt(tmp_path / "alone", *datasets, accumulate=2, **mixed)
    metrics = run(alone)
    flags = "--domains g1 arm --action_mode auto --batch 4 --steps 20 --warmup_steps 2 --hold_steps 3 --checkpoint_s 0"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wbvla.cli"]
    verb = ["xvla", "adapt", "--out", str(tmp_path / "two"), "--datasets", *map(str, datasets), *flags.split()]
    state = tmp_path / "two" / "training" / "state.json"
    with subprocess.Popen([*torchrun, *verb]) as two:
        while not state.exists() and two.poll() is None:
            time.sleep(0.05)
        two.send_signal(signal.SIGINT)
        two.wait(60)
    assert two.returncode != 0 and 0 < json.loads(state.read_text())["step"] < 20
    finished = run(replace(alone, out=str(tmp_path / "two"), checkpoint_s=0.0))
    assert same(weights(tmp_path / "alone"), weights(tmp_path / "two")) and finished["loss"] == metrics["loss"]


def test_a_robot_is_added_in_each_mode_and_nothing_else_moves(datasets, tmp_path):
    run(adapt(tmp_path / "first", datasets[0]))
    first = load_file(tmp_path / "first" / "model.safetensors")
    moving = {}

    def report(_step: int, losses: dict) -> None:
        moving.setdefault("norms", []).append(losses["gradients/soft_prompt_norm"])

    for mode in ("warmup", "prompts", "lora", "joint"):
        start = {"init": str(tmp_path / "first"), "domains": ("arm",), "like": "g1", "mode": mode}
        run(adapt(tmp_path / mode, datasets[1], action_mode="whole_body", ids=(77,), **start), report)
        assert load_model(tmp_path / mode).config.domains["arm"].id == 77
        after = load_file(tmp_path / mode / "model.safetensors")
        kept = {name: after.get(name, after.get(name.replace(".weight", ".base_layer.weight"))) for name in first}
        kept = {n: t if t is not None else after[n.replace(".bias", ".base_layer.bias")] for n, t in kept.items()}
        moved = {name.split(".")[0] for name in first if not torch.equal(first[name], kept[name])}
        assert moved == ({"vlm", "transformer"} if mode == "joint" else set()), "g1's own layers never move"
        new = {n: after[n] for n in after if n.startswith("domains.arm.") and "mean" not in n and "std" not in n}
        differ = {n.split(".")[2] for n, t in new.items() if not torch.equal(t, first[n.replace(".arm.", ".g1.")])}
        assert differ == ({"prompt"} if mode == "prompts" else {"prompt", "encoder", "decoder"})
        assert all(norm > 0 for norm in moving["norms"])
    with pytest.raises(ValueError, match="new robot 'arm', whose action layers are random"):
        run(adapt(tmp_path / "no", datasets[1], action_mode="auto", **{**start, "mode": "prompts"}))


def test_robots_of_one_action_space_start_with_equal_action_layers(datasets, tmp_path):
    run(adapt(tmp_path, *datasets, domains=("g1", "twin"), action_mode="whole_body", heads_scale=0.0))
    g1, twin = (load_model(tmp_path).domains[name] for name in ("g1", "twin"))
    for layer in ("encoder", "decoder"):
        assert torch.equal(getattr(g1, layer).weight, getattr(twin, layer).weight)
    assert not torch.equal(g1.prompt, twin.prompt)
    assert torch.equal(g1.space.mean, twin.space.mean) and torch.equal(g1.space.std, twin.space.std), "one unit"
    assert not torch.equal(g1.state_mean, twin.state_mean)


@pytest.mark.slow
def test_success_in_closed_loop_is_measured(datasets, tmp_path):
    metrics = run(adapt(tmp_path / "run", datasets[0], steps=2, validate="cart-pushing", trials=1, hold_steps=0))
    assert metrics["validation/success_rate"] == 0.0  # it has learned nothing


def test_weights_and_biases_get_the_metrics(datasets, tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr("wbvla.xvla.follow.success_rate", lambda *_: 0.25)  # measured in a test of its own
    robots = {"domains": ("g1", "arm"), "action_mode": "whole_body"}  # the arm has grippers
    short = {"steps": 2, "warmup_steps": 1, "hold_steps": 0}
    run(adapt(tmp_path / "run", *datasets, wandb="wbvla", validate="cart-pushing", **robots, **short))
    logged = LOGGED | {"loss/gripper_bce", "validation/success_rate"}

    def keys() -> set[str]:
        store, found = DataStore(), set()
        store.open_for_scan(str(next(tmp_path.rglob("*.wandb"))))
        with suppress(AssertionError):  # how wandb's reader says that the last record is still being written
            while (data := store.scan_data()) is not None:
                record = Record()
                record.ParseFromString(data)
                found |= {item.key or ".".join(item.nested_key) for item in record.history.item}
        return found

    # a process of wandb's own writes the file, on a busy machine a moment after the run has ended
    deadline = time.monotonic() + 60
    while not keys() > logged and time.monotonic() < deadline:
        time.sleep(0.2)
    assert keys() > logged


def test_a_mixture_keeps_its_shares_and_takes_every_row():
    rows = [np.arange(10), np.arange(100, 130)]
    mixture = Mixture(rows, (3.0, 1.0), 8, 200, seed=0)
    taken = [mixture(step) for step in range(200)]
    assert all(sum(map(len, step)) == 8 for step in taken)
    first, second = (np.concatenate([step[i] for step in taken]) for i in (0, 1))
    assert len(first) / 1600 == pytest.approx(0.75, abs=0.03)
    assert sorted(first[:10]) == rows[0].tolist() and sorted(second[:30]) == rows[1].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(Mixture(rows, (3.0, 1.0), 8, 200, 0)(150), taken[150]))
    for step in range(200):
        parts = [mixture.part(4 * step + i, 4) for i in range(4)]
        assert [sum(map(len, part)) for part in parts] == [2] * 4
        assert all(np.array_equal(np.concatenate([part[i] for part in parts]), taken[step][i]) for i in (0, 1))
    with pytest.raises(ValueError, match="expected 2 positive numbers"):
        Mixture(rows, (1.0, 0.0), 8, 10, 0)


def test_the_recorder_stores_the_domain(tmp_path):
    with EpisodeRecorder(tmp_path / "recording", get_robot("g1"), image_size=32, task_text="push") as recorder:
        for i in range(3):
            image, state = np.zeros((32, 32, 3), np.uint8), np.zeros(68, np.float32)
            recorder.add(Observation(image, state, "push", i / 20), np.zeros(20, np.float32), i / 20)
        recorder.save_episode()
    assert stored_domain(tmp_path / "recording") == G1
    name, domain = describe(Source(str(tmp_path / "recording")), {})
    assert name == "g1" and (domain.id, domain.action, domain.masked_actions) == (30, "whole_body", (14, 15))


def test_a_missing_or_wrong_domain_is_an_error_and_never_robot_0(datasets):
    one, two = map(str, datasets)
    _, g1 = describe(Source(one), {})
    assert describe(Source(one), {"g1": g1}) == ("g1", g1)
    assert describe(Source(two, "libero"), {})[1].id == 3 and describe(Source(two, "arm"), {"g1": g1})[1].id == 34
    assert describe(Source(two, "x2"), {})[1].id == 31
    for source, known, message in (
        (Source(two), {}, "does not say whose it is; give --domains NAME"),
        (Source(one, "x2"), {}, "domain: got 'x2', expected 'g1', which the dataset stores"),
        (Source(one, "g1", 7), {}, "id: got 7, expected 30, which the dataset stores"),
        (Source(one), {"g1": replace(g1, id=5)}, "domain 'g1': id: got 30, expected 5 as in the model"),
        (Source(one), {"x2": g1}, "domain 'g1': id 30 is 'x2''s in the model; wrong id"),
        (Source(one), {"g1": replace(g1, state_dim=64, state_names=())}, "state_dim: got 68, expected 64"),
        (Source(one), {"g1": replace(g1, cameras=("wrist",))}, "got unknown camera head, expected wrist"),
    ):
        with pytest.raises(ValueError, match=message):
            describe(source, known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": (), "domains": ()}, "datasets: got none"),
        ({"datasets": (), "recipe": "xvla_pretrain", "domains": ()}, "data: got nothing, expected a folder that holds"),
        ({"recipe": "huge"}, "recipe: got 'huge', expected one of xvla_pretrain"),
        ({"weights": (1.0, 2.0)}, "weights: got 2, expected one for each of the 1 datasets"),
        ({"freeze": ("vision",)}, "freeze: this model has no vision"),
        ({"warmup_steps": 9}, "expected at most 6 steps"),
        ({"batch": 0}, "batch: got 0"),
        ({"accumulate": 4}, "accumulate: got 4 parts of a batch of 6 for 1 processes, expected a divisor"),
        ({"hold_out": 1.0}, "hold_out: got 1.0"),
        ({"hold_steps": -1}, "hold and warm-up: got -1 and"),
        ({"measure_every": -1}, "measure_every: got -1"),
        ({"mode": "prompts"}, "mode: got 'prompts' for a new model"),
        ({"like": "g1"}, "like: got 'g1' for a new model"),
        ({"action_mode": "ee6d", "domains": ("arm",), "datasets": "two"}, "state"),
    ],
)
def test_user_mistakes_are_one_line(datasets, tmp_path, change, message):
    cfg = adapt(tmp_path / "out", datasets[0])
    if change.get("datasets") == "two":
        change = {**change, "datasets": (str(datasets[1]),), "action_mode": "joint"}
        message = "got 20 entries, expected 14 for 'joint'"
    with pytest.raises(ValueError, match=message) as caught:
        run(replace(cfg, **change))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_success_that_cannot_be_measured_is_refused_before_the_training(datasets, tmp_path):
    cfg = adapt(tmp_path / "out", datasets[1], action_mode="auto", validate="cart-pushing")
    for wrong, complaint in (
        ({"validate": "cart-pushin"}, "task: got 'cart-pushin', expected one of"),
        ({"action_mode": "whole_body", "trials": 0}, "trials: got 0, expected at least 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            run(replace(cfg, **wrong))
    with pytest.raises(ValueError, match="domain 'g1': action space: got 'auto', expected 'whole_body'"):
        run(cfg)
    assert not (tmp_path / "out").exists()


def test_a_trained_model_answers_its_own_robot_only(datasets, tmp_path):
    run(adapt(tmp_path / "run", datasets[0], steps=2, hold_steps=0))
    policy = RobotPolicy(load_model(tmp_path / "run"), 30)
    image, state = np.zeros((48, 64, 3), np.uint8), np.zeros(68, np.float32)
    policy.reset(3)
    chunk = policy.infer(Observation(image, state, "push the cart", 0.0))["chunk"]
    policy.reset(3)
    assert chunk.shape == (6, 20)
    assert np.array_equal(policy.infer(Observation(image, state, "push the cart", 0.0))["chunk"], chunk)
    with pytest.raises(ValueError, match="domain: got 'x2', expected one of g1"):
        RobotPolicy(load_model(tmp_path / "run"), "x2")
    with pytest.raises(ValueError, match="state: got 64 entries, expected 68 for g1"):
        policy.infer(Observation(image, state[:64], "", 0.0))


def test_recipes_say_what_was_published():
    pretrain = get_training_recipe("xvla_pretrain")
    assert sum(PRETRAINING_WEIGHTS.values()) == pytest.approx(1.0) and pretrain.batch == 1024
    assert [source.id for source in pretrain.sources] == [11, 12, 13, 14, 15, 16, 17]
    assert {source.action for source in pretrain.sources} == {"ee6d"}
    assert {name for name in TRAINING_RECIPES if not name.endswith("_tiny")} == {
        name.removesuffix("_tiny") for name in TRAINING_RECIPES if name.endswith("_tiny")
    }
    assert get_training_recipe("xvla_adapt").hold_steps == 1000 and get_training_recipe("xvla_lora").lora_rank == 8
    assert len(get_robot("x2").joints) == 27


def test_the_trunk_of_a_pretrained_vla_becomes_the_encoder(datasets, tmp_path):
    from wbvla.vla.checkpoint import save_model
    from wbvla.vla.contracts import vla_contract
    from wbvla.vla.model import WholeBodyVla

    vla = WholeBodyVla(VlaConfig(image_size=64, width=32, heads=2))
    (tmp_path / "vla").mkdir()
    save_model(tmp_path / "vla", vla, vla_contract(vla, "pretrain", "g1", 20.0, ["push"], {}, {}))
    short = {"freeze": ("trunk",), "steps": 2, "hold_steps": 0, "attention": "bidirectional", "objective": "velocity"}
    run(adapt(tmp_path / "run", datasets[0], trunk=str(tmp_path / "vla"), **short))
    model = load_model(tmp_path / "run")
    assert (model.config.attention, model.config.objective) == ("bidirectional", "velocity")
    assert model.config.image_size == 64 and model.config.trunk["width"] == 32
    assert same(dict(model.vlm.trunk.state_dict()), dict(vla.trunk.state_dict()))
    with pytest.raises(ValueError, match="trunk: got a trunk beside --init"):
        run(adapt(tmp_path / "other", datasets[0], trunk=str(tmp_path / "vla"), init=str(tmp_path / "run")))


def test_florences_weights_become_the_encoder(datasets, tmp_path, monkeypatch):
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    monkeypatch.setitem(XVLA_RECIPES, "tiny", lambda domains: with_words(domains, florence=copy.deepcopy(FLORENCE)))
    shape = with_words({"g1": HUMANOID}).florence
    florence = Florence2ForConditionalGeneration(Florence2Config(**copy.deepcopy(shape)))
    florence.save_pretrained(tmp_path / "florence")
    short = {"freeze": ("vision", "projector", "language"), "steps": 2, "hold_steps": 0}
    run(adapt(tmp_path / "run", datasets[0], trunk=str(tmp_path / "florence"), **short))
    model, theirs = load_model(tmp_path / "run"), florence.model
    assert same(dict(model.vlm.language.state_dict()), dict(theirs.language_model.encoder.state_dict()))
    assert same(dict(model.vlm.projector.state_dict()), dict(theirs.multi_modal_projector.state_dict()))
    (tmp_path / "florence" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="expected Florence-2 in one model.safetensors"):
        run(adapt(tmp_path / "other", datasets[0], trunk=str(tmp_path / "florence")))
