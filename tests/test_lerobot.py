"""Laws of the LeRobot policy type `wholebodyvla`: LeRobot's own command trains, saves and resumes it, offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vla_world import TASK, make_dataset
from wbvla.vla.policy import VlaPolicy

TRAIN = (sys.executable, "-m", "lerobot.scripts.lerobot_train")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def features():
    from lerobot.configs import FeatureType, PolicyFeature

    return {
        "input_features": {
            "observation.images.head": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
            "observation.state": PolicyFeature(FeatureType.STATE, (68,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (20,))},
    }


def run(*arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_lerobot_finds_every_part_by_its_names(features):
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    import wbvla.lerobot

    config = make_policy_config("wholebodyvla", device="cpu", **features)
    assert isinstance(config, wbvla.lerobot.WholeBodyVLAConfig)
    assert get_policy_class("wholebodyvla").__name__ == "WholeBodyVLAPolicy"
    before, after = make_pre_post_processors(config, dataset_stats={})
    names = {step.__class__.__name__ for step in [*before.steps, *after.steps]}
    assert {"RenameObservationsProcessorStep", "NormalizerProcessorStep", "UnnormalizerProcessorStep"} <= names


def test_the_policy_is_the_same_model_and_its_checkpoint_opens_as_ours(features, tmp_path):
    from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig
    from wbvla.lerobot.modeling_wholebodyvla import WholeBodyVLAPolicy

    torch.manual_seed(0)
    stats = {"observation.state": {"mean": np.ones(68), "std": np.ones(68)}}
    stats["action"] = {"mean": np.linspace(0, 1, 20), "std": np.ones(20)}
    policy = WholeBodyVLAPolicy(WholeBodyVLAConfig(device="cpu", **features), dataset_stats=stats).eval()
    policy.save_pretrained(tmp_path / "checkpoint" / "pretrained_model")
    ours = VlaPolicy(tmp_path / "checkpoint")
    rng = np.random.default_rng(0)
    image, state = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), rng.normal(size=68).astype(np.float32)
    batch = {
        "observation.images.head": torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0,
        "observation.state": torch.from_numpy(state)[None],
        "task": [TASK],
    }
    chunk = ours.infer(image, state, TASK)["chunk"]
    torch.testing.assert_close(policy.predict_action_chunk(batch)[0], torch.from_numpy(chunk))
    played = torch.stack([policy.select_action(batch)[0] for _ in range(policy.config.n_action_steps)])
    torch.testing.assert_close(played, torch.from_numpy(chunk[: len(played)]))
    again = WholeBodyVLAPolicy.from_pretrained(tmp_path / "checkpoint" / "pretrained_model", strict=True)
    assert torch.equal(again.predict_action_chunk(batch), policy.predict_action_chunk(batch))


def test_wrong_features_are_refused(features):
    from lerobot.configs import FeatureType, PolicyFeature

    from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig
    from wbvla.lerobot.modeling_wholebodyvla import WholeBodyVLAPolicy

    short = {**features, "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))}}
    with pytest.raises(ValueError, match=r"action: got \(7,\), expected \(20,\)"):
        WholeBodyVLAPolicy(WholeBodyVLAConfig(device="cpu", **short))
    with pytest.raises(ValueError, match="n_action_steps: got 99"):
        WholeBodyVLAConfig(device="cpu", n_action_steps=99)


@pytest.mark.slow
def test_lerobot_train_saves_and_resumes_bit_for_bit(dataset, tmp_path):
    out = tmp_path / "run"
    plugin = "--policy.discover_packages_path=wbvla.lerobot"
    run(
        *TRAIN, "--policy.type=wholebodyvla", plugin, "--policy.device=cpu", "--policy.push_to_hub=false",
        "--dataset.repo_id=local/small", f"--dataset.root={dataset}", "--dataset.video_backend=pyav",
        f"--output_dir={out}", "--steps=6", "--save_freq=4", "--batch_size=4", "--num_workers=0", "--log_freq=1",
        "--seed=0", "--wandb.enable=false",
    )  # fmt: skip
    straight = load_file(out / "checkpoints" / "000006" / "pretrained_model" / "model.safetensors")
    shutil.rmtree(out / "checkpoints" / "000006")
    run(*TRAIN, f"--config_path={out}/checkpoints/000004/pretrained_model/train_config.json", plugin, "--resume=true")
    last = out / "checkpoints" / "000006" / "pretrained_model"
    resumed = load_file(last / "model.safetensors")
    assert int(resumed["draws"]) == 6
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    contract = json.loads((last / "contract.json").read_text())
    assert contract["tasks"] == [TASK] and contract["fps"] == 20.0
    answer = VlaPolicy(last, "g1").infer(np.zeros((96, 96, 3), np.uint8), np.zeros(68, np.float32), TASK)
    assert np.isfinite(answer["chunk"]).all()
