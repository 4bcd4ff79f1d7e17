"""Laws of VLA training: interrupted equals straight, finished is kept, other settings and foreign data are refused."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from vla_world import SMALL, TASK, edit_json, make_dataset, make_labels
from wbvla.data.frames import FrameCache
from wbvla.vla.loop import Order
from wbvla.vla.policy import VlaPolicy
from wbvla.vla.sources import Demonstrations
from wbvla.vla.train import Finetune, Pretrain, run_finetune, run_pretrain


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "small", episodes=3, frames=25)


@pytest.fixture(scope="module")
def labels(dataset, tmp_path_factory):
    """Codes that the picture's brightness decides; the last rows have none."""
    cache = FrameCache.open(dataset, 96)
    bright = (cache.images[:, 48, 48, 0] > 130).astype(int)
    codes = np.repeat(3 + 5 * bright[:, None], 4, axis=1)
    codes[-8:] = -1
    root = tmp_path_factory.mktemp("labels")
    return tuple(str(make_labels(root / f, cache.fingerprint, codes, f)) for f in ("mani", "loco"))


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch):
    monkeypatch.setitem(__import__("wbvla.recipes.vla", fromlist=["x"]).VLA_RECIPES, "small", lambda: SMALL)


def weights(folder) -> dict:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "training" / "optimizer.safetensors")}


def same(a, b) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(bool((one[n] == two[n]).all()) for n in one)


def interrupt_at(step: int):
    def report(at: int, _losses: dict) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def test_interrupted_finetuning_equals_straight_bit_for_bit(dataset, tmp_path):
    straight = Finetune(str(tmp_path / "straight"), str(dataset), recipe="small", steps=6, batch=8)
    run_finetune(straight)
    stopped = replace(straight, out=str(tmp_path / "stopped"))
    for step in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            run_finetune(stopped, interrupt_at(step))
        assert json.loads((tmp_path / "stopped" / "training" / "state.json").read_text())["step"] == step
        assert load_file(tmp_path / "stopped" / "model.safetensors")
    run_finetune(stopped)
    assert same(tmp_path / "straight", tmp_path / "stopped")
    curves = [json.loads((tmp_path / n / "metrics.json").read_text())["curve"] for n in ("straight", "stopped")]
    assert curves[0] == curves[1] and len(curves[0]) == 6


def test_pretraining_learns_the_labels_resumes_and_initialises(dataset, labels, tmp_path):
    cfg = Pretrain(str(tmp_path / "pre"), labels, str(dataset), recipe="small", steps=40, batch=16, learning_rate=3e-3)
    metrics = run_pretrain(cfg)
    assert metrics["mani_accuracy"] > 0.7 and metrics["loco_accuracy"] > 0.7  # brightness decides: half is chance
    stopped = replace(cfg, out=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        run_pretrain(stopped, interrupt_at(7))
    run_pretrain(stopped)
    assert same(tmp_path / "pre", tmp_path / "stopped")
    with pytest.raises(ValueError, match="predicts codes only"):
        VlaPolicy(tmp_path / "pre")
    tune = Finetune(str(tmp_path / "tuned"), str(dataset), str(tmp_path / "pre"), labels, hold_out=0.4, steps=3)
    metrics = run_finetune(tune)
    assert {"code_loss", "arm_error_rad", "held_out_flag_accuracy", "curve"} <= metrics.keys()
    policy = VlaPolicy(tmp_path / "tuned", "g1")
    assert policy.contract["lam"]["mani"]["k_s"] == 0.5 and policy.contract["tasks"] == [TASK]
    state = np.zeros(68, np.float32)
    bright, dark = (policy.infer(np.full((96, 96, 3), v, np.uint8), state, TASK) for v in (210, 70))
    assert not np.array_equal(bright["codes_mani"], dark["codes_mani"])


DAMAGES = [
    ("model.safetensors", b""),
    ("model.safetensors", None),
    ("training/optimizer.safetensors", b"{}"),
    ("training/optimizer.safetensors", None),
    ("training/state.json", b""),
    ("training/state.json", b"{}"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGES)
def test_a_damaged_run_is_named_and_not_continued(dataset, tmp_path, name, content):
    cfg = Finetune(str(tmp_path / "run"), str(dataset), recipe="small", steps=4, batch=4)
    with pytest.raises(KeyboardInterrupt):
        run_finetune(cfg, interrupt_at(2))
    (tmp_path / "run" / name).unlink()
    if content is not None:
        (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as caught:
        run_finetune(cfg)
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_kept_and_another_one_is_refused(dataset, tmp_path):
    cfg = Finetune(str(tmp_path / "run"), str(dataset), recipe="small", steps=2, batch=4)
    run_finetune(cfg)
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    run_finetune(cfg)
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"other settings \(plan.steps: got 2, expected 3\)"):
        run_finetune(replace(cfg, steps=3))
    assert VlaPolicy(tmp_path / "run").contract["stage"] == "finetune"


def test_labels_of_other_frames_are_refused(dataset, labels, tmp_path):
    stray = str(make_labels(tmp_path / "stray", "0" * 32, np.zeros((75, 4)), "mani"))
    with pytest.raises(ValueError, match="not among the dataset and videos"):
        run_pretrain(Pretrain(str(tmp_path / "a"), (*labels, stray), str(dataset)))
    with pytest.raises(ValueError, match="another|the others are of"):
        other = make_labels(tmp_path / "other", "1" * 32, np.zeros((75, 4)), "mani")
        edit_json(other / "labels.json", lam_id="another")
        run_pretrain(Pretrain(str(tmp_path / "b"), (*labels, str(other)), str(dataset)))
    with pytest.raises(ValueError, match="got none, expected at least one"):
        run_pretrain(Pretrain(str(tmp_path / "c"), (), str(dataset)))
    with pytest.raises(ValueError, match="got no label folder for these frames"):
        run_pretrain(Pretrain(str(tmp_path / "d"), (stray,), str(dataset)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "nowhere"}, FileNotFoundError, "no LeRobot dataset"),
        ({"init": "nowhere"}, FileNotFoundError, "no checkpoint"),
        ({"recipe": "huge"}, ValueError, "recipe: got 'huge'"),
        ({"robot": "r2d2"}, ValueError, "robot: got 'r2d2'"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"hold_out": 1.0}, ValueError, "hold_out: got 1.0"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"checkpoint_s": -1.0}, ValueError, "checkpoint_s: got -1"),
        ({"learning_rate": float("inf")}, ValueError, "learning_rate: got inf"),
        ({"labels": ("nowhere",)}, FileNotFoundError, "no labels here"),
    ],
)
def test_user_mistakes_are_one_line(dataset, tmp_path, change, error, message):
    values = {"out": str(tmp_path / "out"), "dataset": str(dataset), **change}
    with pytest.raises(error, match=message) as caught:
        run_finetune(Finetune(**values))
    assert "\n" not in str(caught.value)


def test_every_row_is_taken_once_an_epoch():
    order = Order(np.arange(10, 17), 3, seed=0)
    taken = np.concatenate([order(step) for step in range(7)])
    for epoch in np.split(taken, 3):
        assert sorted(epoch) == list(range(10, 17))
    assert not np.array_equal(taken[:7], taken[7:14])
    assert np.array_equal(Order(np.arange(10, 17), 3, seed=0)(5), order(5))


def test_chunks_stop_at_the_episodes_end(dataset):
    data = Demonstrations(FrameCache.open(dataset, 96), 20)
    actions, padded = data.chunks(np.array([0, 10, 24, 25]))
    assert padded.sum(1).tolist() == [0, 5, 19, 0]
    assert np.array_equal(actions[1, 14], data.cache.actions[24]) and np.array_equal(
        actions[3], data.cache.actions[25:45]
    )
    train, held = data.split(0.3)
    assert len(train) + len(held) == 75 and len(held) == 25
    assert not set(data.cache.episode[train]) & set(data.cache.episode[held])
