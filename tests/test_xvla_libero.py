"""LIBERO and the policy type `xvla_wb`: LeRobot's processors feed it, and with LIBERO installed lerobot-eval runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wbvla.xvla.florence import IMAGENET_MEAN, IMAGENET_STD
from xvla_world import CHUNK, SIZE

CAMERAS = ("image", "image2")


def why_not() -> str:
    """What LIBERO lacks here, "" if nothing."""
    if importlib.util.find_spec("libero") is None:
        return "LIBERO is not installed; it needs an environment of its own, see docs/xvla.md"
    config = Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".libero")) / "config.yaml"
    if not config.is_file():
        return f"LIBERO has no {config}; importing it would ask questions"
    import yaml

    assets = Path(yaml.safe_load(config.read_text()).get("assets", ""))
    return "" if (assets / "scenes").is_dir() else f"LIBERO's assets are not in {assets}"


@pytest.fixture
def policy():
    """A small policy with LIBERO's numbers: 8 of state, 7 of action, two cameras."""
    from test_xvla_lerobot import features, make

    stats = {
        "observation.state": {"mean": torch.zeros(8), "std": torch.ones(8)},
        "action": {"mean": torch.zeros(7), "std": torch.full((7,), 0.5)},
    }
    return make(stats, features(7, 8, CAMERAS), domain="libero", domain_id=3)


def test_libero_observations_pass_lerobots_processors_once(policy):
    """Pictures arrive unscaled by others (no double normalisation), the state as 8 numbers, the domain as 3."""
    from lerobot.envs.configs import LiberoEnv
    from lerobot.envs.factory import make_env_pre_post_processors
    from lerobot.policies.factory import make_pre_post_processors

    before_env, after_env = make_env_pre_post_processors(LiberoEnv(control_mode="absolute"), policy.config)
    assert [type(step).__module__ for step in before_env.steps] == ["lerobot.processor.env_processor"]
    assert not after_env.steps
    before, after = make_pre_post_processors(policy.config, dataset_stats={})
    pictures = {f"observation.images.{name}": torch.rand(1, 3, 96, 96) for name in CAMERAS}
    body = {
        "eef": {"pos": torch.rand(1, 3), "quat": torch.tensor([[0.0, 0.0, 0.0, 1.0]]), "mat": torch.eye(3)[None]},
        "gripper": {"qpos": torch.zeros(1, 2), "qvel": torch.zeros(1, 2)},
        "joints": {"pos": torch.zeros(1, 7), "vel": torch.zeros(1, 7)},
    }
    seen = before(before_env({**pictures, "observation.robot_state": body, "task": ["open the drawer"]}))
    inputs = policy._inputs(seen)
    turned = pictures["observation.images.image"].flip(2, 3).permute(0, 2, 3, 1) * 255
    torch.testing.assert_close(inputs["images"][:, 0], turned)
    assert inputs["state"].shape == (1, 8) and inputs["domains"] == ["libero"]
    assert policy.model.config.domains["libero"].id == 3
    action = after(policy.select_action(seen))
    assert action.shape == (1, 7) and action.isfinite().all()


def libero_observation(n: int = 2) -> dict:
    """What LeRobot's LIBERO environment shows: robosuite turns the hand's quaternion and the grip site apart."""
    from scipy.spatial.transform import Rotation

    hand = Rotation.random(n, random_state=0)
    site = hand * Rotation.from_euler("z", -90, degrees=True)
    g = torch.Generator().manual_seed(0)
    body = {
        "eef": {
            "pos": torch.rand((n, 3), generator=g),
            "quat": torch.from_numpy(hand.as_quat()).float(),
            "mat": torch.from_numpy(site.as_matrix()).float(),
        },
        "gripper": {"qpos": torch.rand((n, 2), generator=g)},
    }
    pictures = {f"observation.images.{name}": torch.rand((n, 3, SIZE, SIZE), generator=g) for name in CAMERAS}
    return {**pictures, "observation.robot_state": body}


def test_released_weights_play_libero_as_in_lerobots_own_pipeline(tmp_path, monkeypatch):
    from lerobot.envs.configs import LiberoEnv
    from lerobot.envs.factory import make_env_pre_post_processors
    from lerobot.policies.factory import make_policy
    from lerobot.policies.xvla.processor_xvla import LiberoProcessorStep, XVLARotation6DToAxisAngleProcessorStep

    from test_xvla_lerobot import features, make
    from test_xvla_released import inputs, lerobot_policy, their_actions
    from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
    from wbvla.lerobot.modeling_xvla_wb import XvlaWbPolicy

    theirs, observation = lerobot_policy("ee6d"), libero_observation()
    theirs.save_pretrained(tmp_path / "released")
    tokens = inputs(2)[0]["tokens"]
    seen = LiberoProcessorStep().observation(observation)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    batch = {
        "input_ids": tokens,
        "image_input": torch.stack([(seen[f"observation.images.{n}"] - mean) / std for n in CAMERAS], 1),
        "image_mask": torch.ones(2, 2, dtype=torch.bool),
        "domain_id": torch.tensor([3, 3]),
        "proprio": seen["observation.state"],
    }
    noise = torch.randn(2, CHUNK, 20)
    poses = their_actions(theirs, batch, 4, noise, monkeypatch)
    wanted = XVLARotation6DToAxisAngleProcessorStep()({"action": poses.flatten(0, 1)})["action"].view(2, CHUNK, 7)

    flags = dict(domain="libero", init_from=str(tmp_path / "released"), released_for="libero", num_denoising_steps=4,
                 n_action_steps=CHUNK)  # fmt: skip
    environment = LiberoEnv(control_mode="absolute")
    ours = make_policy(XvlaWbConfig(device="cpu", **flags), env_cfg=environment).eval()  # as lerobot-eval does
    ours.save_pretrained(tmp_path / "ours")
    for policy in (ours, XvlaWbPolicy.from_pretrained(tmp_path / "ours").eval()):
        policy._tokenize = lambda tasks: tokens
        before_env, _ = make_env_pre_post_processors(environment, policy.config)
        shown = {**before_env(observation), "task": ["open the drawer"] * 2}
        got = policy.predict_action_chunk(shown, noise)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="in training; leave it out"):
        ours.forward({**shown, "action": torch.zeros(2, CHUNK, 7)})
    with pytest.raises(ValueError, match="got 20 numbers of state, expected LIBERO's 8"):
        ours.predict_action_chunk({**shown, "observation.state": torch.zeros(2, 20)})
    with pytest.raises(ValueError, match="released_for: domain 'nobody' is None"):
        make(None, features(7, 8, CAMERAS), **{**flags, "domain": "nobody"})


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_lerobot_eval_runs_on_libero(policy, tmp_path):
    from lerobot.policies.factory import make_pre_post_processors

    policy.save_pretrained(tmp_path / "policy")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(tmp_path / "policy")
    done = subprocess.run(
        [
            sys.executable, "-m", "lerobot.scripts.lerobot_eval", f"--policy.path={tmp_path / 'policy'}",
            "--policy.discover_packages_path=wbvla.lerobot", "--policy.device=cpu", "--env.type=libero",
            "--env.task=libero_object", "--env.task_ids=[0]", "--env.control_mode=absolute", "--env.episode_length=5",
            "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={tmp_path / 'out'}",
        ],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "eval_info.json").is_file()
