"""Laws of the LeRobot policy type `xvla_wb`: LeRobot's own commands train, save, resume and open it, offline."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vla_world import TASK, make_dataset
from wbvla.xvla.checkpoint import load_model, save_model
from wbvla.xvla.model import Xvla
from xvla_world import ARMS, small

TRAIN = (sys.executable, "-m", "lerobot.scripts.lerobot_train")
CAMERAS = ("front", "wrist")


def features(action: int = 14, state: int = 14, cameras=CAMERAS) -> dict:
    from lerobot.configs import FeatureType, PolicyFeature

    images = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)) for name in cameras}
    return {
        "input_features": {**images, "observation.state": PolicyFeature(FeatureType.STATE, (state,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))},
    }


def make(stats=None, shape: dict | None = None, meta=None, **flags):
    from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
    from wbvla.lerobot.modeling_xvla_wb import XvlaWbPolicy

    torch.manual_seed(0)
    config = XvlaWbConfig(device="cpu", **(shape or features()), **{"domain": "robot", **flags})
    return XvlaWbPolicy(config, dataset_stats=stats, dataset_meta=meta).eval()


def batch_of(n: int = 2, action: int = 14, state: int = 14) -> dict:
    g = torch.Generator().manual_seed(0)
    images = {f"observation.images.{name}": torch.rand((n, 3, 48, 64), generator=g) for name in CAMERAS}
    batch = {**images, "observation.state": torch.randn((n, state), generator=g), "task": [TASK] * n}
    padded = torch.arange(20).expand(n, -1) > 15
    return {**batch, "action": torch.rand((n, 20, action), generator=g), "action_is_pad": padded}


STATS = {
    "observation.state": {"mean": np.ones(14), "std": np.ones(14)},
    "action": {"mean": np.full(14, 0.5), "std": np.full(14, 0.3)},
}


def test_lerobot_finds_every_part_by_its_names():
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    import wbvla.lerobot

    config = make_policy_config("xvla_wb", device="cpu", **features())
    assert isinstance(config, wbvla.lerobot.XvlaWbConfig)
    assert get_policy_class("xvla_wb").__name__ == "XvlaWbPolicy"
    before, _ = make_pre_post_processors(config, dataset_stats={})
    assert "NormalizerProcessorStep" in {step.__class__.__name__ for step in before.steps}
    assert config.action_delta_indices == list(range(20))


def test_a_policy_trains_answers_and_survives_saving(tmp_path):
    from wbvla.lerobot.modeling_xvla_wb import XvlaWbPolicy

    policy, batch = make(STATS), batch_of()
    noise = torch.randn(2, 20, 14)
    loss, logged = policy.forward(batch)
    loss.backward()
    assert logged["loss/flow_matching"] == pytest.approx(loss.item()) and logged["gradients/soft_prompt_norm"] == 0.0
    assert policy.forward(batch)[1]["gradients/soft_prompt_norm"] > 0.0
    chunk = policy.predict_action_chunk(batch, noise)
    assert chunk.shape == (2, 20, 14) and torch.equal(chunk, policy.predict_action_chunk(batch, noise))
    played = torch.stack([policy.select_action(batch, noise) for _ in range(policy.config.n_action_steps)], 1)
    assert torch.equal(played, chunk[:, : played.shape[1]])
    policy.save_pretrained(tmp_path)
    again = XvlaWbPolicy.from_pretrained(tmp_path, strict=True)
    assert torch.equal(again.predict_action_chunk(batch, noise), chunk)
    assert torch.equal(load_model(tmp_path).sample(policy._inputs(batch), 10, noise), chunk)
    half = make(STATS, dtype="bfloat16")
    torch.testing.assert_close(half.predict_action_chunk(batch, noise), chunk, atol=0.05, rtol=0.1)


def save_tokenizer(folder) -> str:
    """A local tokenizer of four words, in the format that transformers reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<s>", "<pad>", "push", "the", "cart", "<unk>"))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def save_released(folder) -> None:
    """Small weights in LeRobot's format, with a tokenizer beside them."""
    from test_xvla_released import lerobot_policy

    lerobot_policy("ee6d").save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    words = save_tokenizer(folder / "tokenizer")
    (folder / "config.json").write_text(json.dumps({**values, "tokenizer_name": words}))


def test_the_tutorials_flags_add_a_robot_to_released_weights(tmp_path):
    """`action_mode=auto` on a checkpoint in LeRobot's format: nothing but the new robot's part moves, or its prompt."""
    save_released(tmp_path)
    shape = features(action=43)
    start = dict(init_from=str(tmp_path), domain="humanoid", like="bridge", n_action_steps=2)
    policy = make(None, shape, action_mode="auto", mode="warmup", **start)
    released = load_model(tmp_path)
    moving = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    layers = [f"{layer}.{kind}" for layer in ("encoder", "decoder") for kind in ("weight", "bias")]
    assert moving == [f"model.domains.humanoid.{name}" for name in ("prompt", *layers)]
    with pytest.raises(ValueError, match="new robot 'humanoid', whose action layers are random and would stay so"):
        make(None, shape, action_mode="auto", mode="prompts", **start)
    prompts = make(None, features(20, 20), action_mode="ee6d", mode="prompts", **start)
    assert [n for n, p in prompts.named_parameters() if p.requires_grad] == ["model.domains.humanoid.prompt"]
    assert torch.equal(policy.model.domains["humanoid"].prompt, released.domains["bridge"].prompt)
    assert policy.config.action_delta_indices == list(range(6)) and policy.model.config.domains["humanoid"].id == 34
    batch = {k: v for k, v in batch_of().items() if not k.startswith("action")}
    assert policy.select_action(batch).shape == (2, 43)
    with pytest.raises(ValueError, match="domain: got 77, expected one of bridge"):
        policy.predict_action_chunk({**batch, "domain_id": torch.tensor([77, 77])})
    with pytest.raises(ValueError, match="domain_id: got bridge's, expected humanoid's, 34"):
        policy.predict_action_chunk({**batch, "domain_id": torch.tensor([34, 0])})


def test_what_does_not_fit_is_refused(tmp_path):
    save_model(tmp_path / "model", Xvla(small({"arms": ARMS}, tokenizer="words")))
    start = dict(init_from=str(tmp_path / "model"), domain="arms", action_mode="joint", n_action_steps=2)
    make(None, **start)
    make(None, features(cameras=("wrist",)), **start)  # a dataset without one of its cameras
    for shape, flags, message in (
        (features(state=15), start, "domain 'arms': the checkpoint has .*give --policy.domain another name"),
        (features(cameras=("front", "head")), start, "domain 'arms': the checkpoint has .*another name"),
        (features(), {"chunk_size": 8}, "chunk_size: got 8, expected 20, the model's"),
        (features(20), {"action_mode": "whole_body", "masked_actions": [17]}, "masked_actions: got .17., expected arm"),
        (features(action=29), {"action_mode": "ee6d"}, "got 29 entries, expected 20 for 'ee6d'"),
        (features(), {"domain": None}, "domain: the dataset names no robot type"),
        (features(), {"mode": "phase1"}, "mode: got 'phase1', expected one of"),
        (features(), {"mode": "lora"}, "mode: got 'lora' for a new model"),
        (features(), {"like": "g1"}, "like: got 'g1' for a new model"),
        (features(), {"recipe": "huge"}, "recipe: got 'huge', expected one of tiny, tiny_trunk, released"),
        (features(), {"n_action_steps": 99}, "n_action_steps: got 99, expected at most 20"),
        (features(), {"dtype": "float8"}, "dtype: got 'float8'"),
    ):
        with pytest.raises(ValueError, match=message):
            make(None, copy.deepcopy(shape), **flags)
    policy = make(None, **start)
    with pytest.raises(ValueError, match="unknown camera head"):
        policy.predict_action_chunk({**batch_of(), "observation.images.head": torch.zeros(2, 3, 48, 64)})
    whole = {"observation.images.front": torch.zeros(2, 3, 48, 64, dtype=torch.uint8)}
    for wrong, message in ((whole, "front: got whole numbers"), ({"task": ["push"]}, "task: got 1, expected one for")):
        with pytest.raises(ValueError, match=message):
            policy.predict_action_chunk({**batch_of(), **wrong})
    with pytest.raises(ValueError, match=r"observation.state: missing, expected \d+ numbers"):
        policy.predict_action_chunk({k: v for k, v in batch_of().items() if k != "observation.state"})
    for name, message in (
        ("no/such-tokenizer", "'no/such-tokenizer' is not on this machine"),
        ("words", "'words' has 1024 tokens and padding 0, the model 64 and 1"),
    ):
        policy.model.config = small({"arms": ARMS}, tokenizer=name)
        with pytest.raises(ValueError, match=message):
            policy.predict_action_chunk(batch_of())


def test_a_published_name_brings_its_number_and_an_only_camera_may_have_no_name():
    shape = features(cameras=())
    shape["input_features"]["observation.image"] = features()["input_features"]["observation.images.front"]
    policy = make(STATS, shape, domain="robotwin2")
    assert policy.model.config.domains["robotwin2"].id == 6
    batch = {**batch_of(), "observation.image": torch.rand(2, 3, 48, 64)}
    batch = {key: value for key, value in batch.items() if not key.startswith("observation.images.")}
    assert policy.forward(batch)[0].isfinite() and policy.select_action(batch).shape == (2, 14)


@pytest.mark.parametrize("kind", ["robotwin", "vlabench", "robocasa", "robomme", "metaworld", "aloha", "pusht"])
def test_every_environment_type_of_lerobot_shows_what_the_policy_reads(kind):
    """What its environments return, of the shapes that it declares, through LeRobot's processors to an action."""
    from lerobot.configs import FeatureType
    from lerobot.envs.configs import EnvConfig
    from lerobot.envs.factory import make_env_pre_post_processors
    from lerobot.envs.utils import env_to_policy_features, preprocess_observation
    from lerobot.policies.factory import make_pre_post_processors

    env = EnvConfig.get_choice_class(kind)()
    shapes = env_to_policy_features(env)
    inputs = {key: feature for key, feature in shapes.items() if feature.type is not FeatureType.ACTION}
    size = shapes["action"].shape[0]
    stats = {"action": {"mean": np.zeros(size), "std": np.ones(size)}}
    policy = make(stats, {"input_features": inputs, "output_features": {"action": shapes["action"]}}, domain=kind)
    raw = {"agent_pos": np.zeros((1, *shapes["observation.state"].shape))}
    pictures = {key: np.zeros((1, f.shape[1], f.shape[2], 3), np.uint8) for key, f in inputs.items() if "image" in key}
    named = {key.removeprefix("observation.images."): picture for key, picture in pictures.items()}
    raw["pixels"] = pictures.get("observation.image", named)
    before_env, after_env = make_env_pre_post_processors(env, policy.config)
    before, after = make_pre_post_processors(policy.config, dataset_stats={})
    seen = before(before_env({**preprocess_observation(raw), "task": [TASK]}))
    assert policy._inputs(seen)["views"].tolist() == [[True] * len(pictures)]
    action = after_env({"action": after(policy.select_action(seen))})["action"]
    assert action.shape == (1, size) and action.isfinite().all()


def test_the_dataset_says_whose_it_is(tmp_path):
    """What the recorder stored beats the robot type; a flag or a checkpoint that says another robot is an error."""
    from types import SimpleNamespace

    (tmp_path / "meta").mkdir()
    facts = {"name": "arms", "id": 31, "action": "joint", "masked_actions": []}
    (tmp_path / "meta" / "wbvla.json").write_text(json.dumps({"domain": facts}))
    meta = SimpleNamespace(root=tmp_path, robot_type="something else")
    policy = make(None, meta=meta, domain=None)
    arms = policy.model.config.domains["arms"]
    assert (policy.config.domain, arms.id, arms.action) == ("arms", 31, "joint")
    save_model(tmp_path / "model", Xvla(small({"arms": replace(ARMS, id=44)}, tokenizer="words")))
    for flags, message in (
        ({"domain": "g1"}, "domain: got 'g1', expected 'arms', which"),
        ({"domain": "arms", "domain_id": 0}, "domain_id: got 0, expected 31, which"),
        ({"domain": "arms", "action_mode": "auto"}, "action_mode: got 'auto', expected 'joint', which"),
        ({"domain": None, "init_from": str(tmp_path / "model"), "n_action_steps": 2}, "id=44.*id=31"),
    ):
        with pytest.raises(ValueError, match=message):
            make(None, meta=meta, **flags)


@pytest.mark.slow
def test_lerobot_train_saves_and_resumes_bit_for_bit(tmp_path):
    def run(*arguments: str) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=590, env=environment, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    dataset, out = make_dataset(tmp_path / "data" / "small"), tmp_path / "run"
    plugin = "--policy.discover_packages_path=wbvla.lerobot"
    run(
        *TRAIN, "--policy.type=xvla_wb", plugin, "--policy.device=cpu", "--policy.push_to_hub=false",
        "--policy.action_mode=whole_body", "--policy.scheduler_hold_steps=2",
        "--policy.scheduler_warmup_steps=2", "--dataset.repo_id=local/small", f"--dataset.root={dataset}",
        "--dataset.video_backend=pyav", f"--output_dir={out}", "--steps=6", "--save_freq=4", "--batch_size=4",
        "--num_workers=0", "--log_freq=1", "--seed=0", "--wandb.enable=false",
    )  # fmt: skip
    straight = load_file(out / "checkpoints" / "000006" / "pretrained_model" / "model.safetensors")
    shutil.rmtree(out / "checkpoints" / "000006")
    run(*TRAIN, f"--config_path={out}/checkpoints/000004/pretrained_model/train_config.json", plugin, "--resume=true")
    last = out / "checkpoints" / "000006" / "pretrained_model"
    resumed = load_file(last / "model.safetensors")
    assert int(resumed["draws"]) == 6
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    model = load_model(last)
    assert model.config.domains["g1"].action == "whole_body"


def test_the_documents_snippets_run(repo_root, tmp_path, monkeypatch):
    """The blocks of docs/xvla.md run in order, on a policy saved where they look for one."""
    policy = make(None, features(7, 7, ("front",)))
    policy.save_pretrained(tmp_path / "outputs/xvla_mine/checkpoints/last/pretrained_model")
    save_released(tmp_path / "weights/xvla-base")
    monkeypatch.chdir(tmp_path)
    names, page = {}, (repo_root / "docs/xvla.md").read_text()
    for block in re.findall(r"^```python test\n(.*?)^```", page, re.M | re.S):
        exec(block, names)
    (released,) = re.findall(r"^```python released\n(.*?)^```", page, re.M | re.S)
    answer: dict = {}
    exec(released, answer)
    assert answer["chunk"].shape == (6, 20)
    assert names["chunk"].shape == (1, 20, 7) and names["action"].shape == (1, 7)
    assert all(name.startswith("domains.arm.") for name in names["moving"])


@pytest.fixture(scope="module")
def g1_policy(tmp_path_factory):
    """A folder as `lerobot-train` leaves it: the G1's, random weights."""
    from lerobot.policies.factory import make_pre_post_processors

    folder = tmp_path_factory.mktemp("g1") / "policy"
    flags = {"domain": "g1", "domain_id": 30, "action_mode": "whole_body", "masked_actions": [14, 15]}
    policy = make(None, features(20, 68, ("head",)), recipe="tiny_trunk", n_action_steps=20, **flags)
    policy.config.num_denoising_steps = 1
    policy.save_pretrained(folder)
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_lerobot_rollout_drives_our_simulated_robot(g1_policy):
    from test_lerobot_env import lerobot

    said = lerobot(
        "rollout", "--strategy.type=base", f"--policy.path={g1_policy}", "--policy.device=cpu",
        "--inference.type=rtc", "--robot.type=wbvla_sim", "--robot.task=cart-pushing",
        "--robot.pos_names=true", "--task=push the cart", "--fps=20", "--duration=3",
        "--return_to_initial_position=false",
    )  # fmt: skip
    assert "wbvla_sim, seed 0: stopped after" in said and "Rollout finished" in said
    assert "inference error" not in said and "missing" not in said


@pytest.mark.slow
def test_lerobot_eval_scores_it_in_our_environment(g1_policy, tmp_path):
    from test_lerobot_env import lerobot

    lerobot(
        "eval", f"--policy.path={g1_policy}", "--policy.device=cpu", "--env.type=wbvla",
        "--env.task=cart-pushing", "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={tmp_path}/score",
    )  # fmt: skip
    score = json.loads((tmp_path / "score" / "eval_info.json").read_text())
    assert score["overall"]["pc_success"] == 0.0 and list(score["per_group"]) == ["cart-pushing"]
