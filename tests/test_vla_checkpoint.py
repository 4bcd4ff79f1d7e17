"""Laws of VLA checkpoints: what was saved answers the same, what is foreign is refused in one line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vla_world import SMALL, TASK, edit_json
from wbvla.vla.checkpoint import load_model, recover_folder, replace_folder, save_model, weights_id
from wbvla.vla.contracts import vla_contract
from wbvla.vla.model import WholeBodyVla
from wbvla.vla.policy import VlaPolicy


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = WholeBodyVla(SMALL)
    rng = np.random.default_rng(0)
    model.set_statistics(rng.normal(size=68), np.ones(68), rng.normal(size=20), np.ones(20))
    contract = vla_contract(model, "finetune", "g1", 20.0, [TASK], {}, {})
    replace_folder(tmp_path / "vla", lambda folder: save_model(folder, model, contract))
    return tmp_path / "vla"


def observation(size: int = 96):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8), rng.normal(size=68).astype(np.float32), TASK


def test_a_saved_policy_answers_the_same(checkpoint, tmp_path):
    first = VlaPolicy(checkpoint, "g1")
    save_again = tmp_path / "again"
    save_again.mkdir()
    save_model(save_again, first.model, first.contract)
    a, b = first.infer(*observation()), VlaPolicy(save_again).infer(*observation())
    assert a.keys() == {"chunk", "codes_mani", "codes_loco"}
    assert a["chunk"].shape == (20, 20) and a["chunk"].dtype == np.float32
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert weights_id(checkpoint) == weights_id(save_again)


def test_larger_images_are_cut_and_scaled(checkpoint):
    policy = VlaPolicy(checkpoint)
    image, state, task = observation(192)
    wide = np.zeros((192, 256, 3), np.uint8)
    wide[:, 32:224] = image
    assert np.array_equal(policy.infer(wide, state, task)["chunk"], policy.infer(image, state, task)["chunk"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, s: (i[..., :1], s), "image: got"),
        (lambda i, s: (i / 255.0, s), "image: got float64"),
        (lambda i, s: (i, s[:5]), "state: got shape"),
        (lambda i, s: (i, s * np.nan), "finite"),
    ],
)
def test_bad_observations_are_refused(checkpoint, change, message):
    image, state, task = observation()
    with pytest.raises(ValueError, match=message):
        VlaPolicy(checkpoint).infer(*change(image, state), task)


def edit_vla(folder, **values):
    vla = json.loads((folder / "config.json").read_text())["vla"]
    edit_json(folder / "config.json", vla={**vla, **values})


def break_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no readable config.json"),
        (lambda f: edit_json(f / "config.json", type="act"), "type 'act'"),
        (lambda f: edit_json(f / "config.json", vla={"width": 3}), "unknown or missing keys"),
        (lambda f: edit_vla(f, width=4_000_000_000), "cannot be built"),
        (lambda f: edit_vla(f, heads=0), "heads: got 0"),
        (lambda f: (f / "contract.json").unlink(), "no contract"),
        (lambda f: edit_json(f / "contract.json", kind="lmo"), "kind 'lmo'"),
        (lambda f: edit_json(f / "contract.json", image_size=64), "does not fit the weights: image_size"),
        (lambda f: edit_json(f / "contract.json", normalisation={}), "does not fit the weights"),
        (lambda f: edit_json(f / "contract.json", robot="x9"), "robot: got 'x9'"),
        (lambda f: edit_json(f / "contract.json", joints=["a"]), "joints: not as"),
        (lambda f: edit_json(f / "contract.json", camera={"name": "head", "fovy_deg": 42}), "camera: not as"),
        (lambda f: edit_json(f / "contract.json", stage="pretrain"), "finetune --init"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no weights"), "cannot be read"),
        (lambda f: break_weights(f, lambda w: w.pop("code_bias")), "code_bias is missing"),
        (lambda f: break_weights(f, lambda w: w.update(code_bias=torch.zeros(2, 2))), r"got \(2, 2\)"),
        (lambda f: break_weights(f, lambda w: w["code_bias"].fill_(float("nan"))), "not finite"),
    ],
)
def test_foreign_and_damaged_checkpoints_are_refused_in_one_line(checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises(ValueError, match=message) as caught:
        VlaPolicy(checkpoint)
    assert "\n" not in str(caught.value)


def test_another_robots_policy_and_an_empty_place_are_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="for robot 'g1', expected 'x2'"):
        VlaPolicy(checkpoint, robot="x2")
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        VlaPolicy(tmp_path / "nothing")


def test_a_kill_between_the_renames_loses_nothing(checkpoint):
    os.rename(checkpoint, checkpoint.with_name(".vla.old"))
    recover_folder(checkpoint)
    assert load_model(checkpoint)


def test_folders_that_are_no_checkpoints_are_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="other content"):
        replace_folder(tmp_path / "thesis", lambda folder: None)
    assert (tmp_path / "thesis" / "thesis.tex").is_file()
