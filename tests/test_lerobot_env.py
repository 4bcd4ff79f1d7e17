"""Laws of the LeRobot environment type `wbvla` and robot type `wbvla_sim`: LeRobot's own commands use them, offline."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("lerobot")

from vla_world import make_dataset
from wbvla.data.frames import FACTS, FrameCache, read_info
from wbvla.data.recorder import dataset_features
from wbvla.lerobot.config_wbvla_sim import WbvlaSimConfig
from wbvla.lerobot.environment import WbvlaEnvConfig
from wbvla.robots import get_robot
from wbvla.sim.env import TaskEnv
from wbvla.types import action_names

G1 = get_robot("g1")
NAMES = action_names(G1.arm_joints)
SMALL_ACT = (
    "--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false", "--policy.dim_model=64",
    "--policy.n_heads=4", "--policy.dim_feedforward=128", "--policy.n_encoder_layers=1", "--policy.n_decoder_layers=1",
    "--policy.n_vae_encoder_layers=1", "--policy.chunk_size=20", "--policy.n_action_steps=20",
    "--policy.pretrained_backbone_weights=null",
)  # fmt: skip


def lerobot(command: str, *arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", f"lerobot.scripts.lerobot_{command}", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_lerobot_knows_the_types():
    from lerobot.envs.configs import EnvConfig
    from lerobot.robots.config import RobotConfig
    from lerobot.teleoperators.config import TeleoperatorConfig

    assert EnvConfig.get_choice_class("wbvla") is WbvlaEnvConfig
    assert "wbvla_sim" in RobotConfig.get_known_choices()
    assert "wbvla_operator" in TeleoperatorConfig.get_known_choices()


def test_a_policys_features_are_those_of_our_recordings():
    from lerobot.envs import env_to_policy_features

    ours = dataset_features(G1, 64)
    for key, feature in env_to_policy_features(WbvlaEnvConfig(image_size=64)).items():
        shape = ours[key]["shape"]
        assert tuple(feature.shape) == ((3, 64, 64) if "images" in key else shape)


def test_environments_see_the_episodes_of_the_split_side_by_side():
    from lerobot.envs import make_env, preprocess_observation

    envs = make_env(WbvlaEnvConfig(task="cart-pushing,box-loading", image_size=32), n_envs=2)
    assert set(envs) == {"cart-pushing", "box-loading"}
    batch = envs["cart-pushing"][0]
    observation, info = batch.reset(seed=[1000, 3])
    assert not info["is_success"].any()
    named = preprocess_observation(observation)
    direct = TaskEnv("cart-pushing", image_size=32)
    for i, seed in enumerate((200_000, 200_003)):  # 1000 wraps around at the end of the thousand test episodes
        first = direct.reset(seed)
        np.testing.assert_array_equal(named["observation.state"][i].numpy(), first.state)
        picture = named["observation.images.head"][i].permute(1, 2, 0).numpy() * 255
        np.testing.assert_allclose(picture, first.image, atol=1e-3)
    actions = np.tile(direct.applied, (2, 1))
    observation, *_, info = batch.step(actions)
    after, _ = direct.step(direct.applied)
    np.testing.assert_array_equal(observation["agent_pos"][1], after.state)
    assert batch.call("_max_episode_steps") == (direct.task.time_limit_s * 20,) * 2
    assert info["is_success"].dtype == bool
    for one in envs.values():
        one[0].close()


def test_wrong_environments_are_refused():
    for wrong, complaint in (
        ({"task": "cart"}, "task: got 'cart', expected all, or some of"),
        ({"fps": 60}, "action rate: got 60 Hz, expected 10 to 50"),
        ({"unseen": ["box_kg"], "task": "all"}, "axes: got box_kg, expected some of distance_m"),
    ):
        with pytest.raises(ValueError, match=complaint):
            WbvlaEnvConfig(**wrong)
    with pytest.raises(ValueError, match="split: got 'exam'"):
        WbvlaEnvConfig(split="exam").create_envs(1)


def test_the_recording_behind_a_policy_must_fit(tmp_path):
    dataset = str(make_dataset(tmp_path / "small", episodes=1, frames=4, size=32))
    WbvlaEnvConfig(image_size=32, dataset=dataset)._check_dataset()
    with pytest.raises(ValueError, match="shape"):
        WbvlaEnvConfig(image_size=64, dataset=dataset).create_envs(1)
    camera = asdict(G1.camera)
    (tmp_path / "small" / FACTS).write_text(json.dumps({"camera": {**camera, "tilt_rad": 1.0}}))
    with pytest.raises(ValueError, match=r"camera.tilt_rad: got 1.0"):
        WbvlaEnvConfig(image_size=32, dataset=dataset).create_envs(1)
    (tmp_path / "small" / FACTS).write_text(json.dumps({"camera": camera}))
    WbvlaEnvConfig(image_size=32, dataset=dataset)._check_dataset()
    info = read_info(dataset)
    info["features"]["action"]["names"][0] = "left_shoulder_roll"
    (tmp_path / "small" / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"names.*left_shoulder_roll"):
        WbvlaEnvConfig(image_size=32, dataset=dataset).create_envs(1)


@pytest.fixture
def sim():
    from wbvla.lerobot.wbvla_sim import WbvlaSim

    robot = WbvlaSim(WbvlaSimConfig(task="cart-pushing", image_size=32, pause_s=2.0))
    robot.connect()
    yield robot
    robot.disconnect()


def test_the_simulated_robot_stands_looks_and_starts_anew_after_a_pause(sim):
    stand = {**dict.fromkeys(NAMES, 0.0), "height_m": G1.nominal_height_m}
    stand |= dict(zip(G1.arm_joints, G1.array("default")[G1.n_lmo :].tolist()))
    pictures = []
    for _ in range(20):
        seen = sim.get_observation()
        assert list(seen) == list(sim.observation_features)
        assert seen["head"].shape == (32, 32, 3) and seen["head"].dtype == np.uint8
        sent = sim.send_action({**stand, "s_psi": 0.8})
        pictures.append(seen["head"])
        time.sleep(0.05)
    assert sent["s_psi"] == 1.0 and list(sent) == NAMES
    assert (pictures[0] != pictures[-1]).any(), "it turns"
    first, stopped_s = sim.episode, sim.episode.t_s
    assert first.seed == 0 and not first.over
    while first.t_s - stopped_s < 2.2:  # simulated seconds, of which a busy machine makes fewer
        assert not first.over, "the episode goes on while nobody acts"
        time.sleep(0.05)
    sim.get_observation()
    assert sim.episode is not first and sim.episode.seed == 1 and first.over
    with pytest.raises(ValueError, match="s_psi missing"):
        sim.send_action({name: value for name, value in stand.items() if name != "s_psi"})
    with pytest.raises(ConnectionError, match="disconnect it first"):
        sim.connect()


def test_the_operator_needs_a_simulated_robot():
    from wbvla.lerobot.config_wbvla_operator import WbvlaOperatorConfig
    from wbvla.lerobot.wbvla_operator import WbvlaOperator

    with pytest.raises(ValueError, match="expected --robot.type=wbvla_sim"):
        WbvlaOperator(WbvlaOperatorConfig()).get_action()


@pytest.mark.slow
def test_lerobot_record_records_the_operator_under_our_names(tmp_path):
    root = tmp_path / "recorded"
    printed = lerobot(
        "record", "--robot.type=wbvla_sim", "--robot.task=cart-pushing", "--teleop.type=wbvla_operator",
        "--dataset.repo_id=local/recorded", f"--dataset.root={root}", "--dataset.single_task=push the cart",
        "--dataset.fps=20", "--dataset.num_episodes=2", "--dataset.episode_time_s=3", "--dataset.reset_time_s=0",
        "--dataset.push_to_hub=false", "--play_sounds=false",
    )  # fmt: skip
    info, ours = read_info(root), dataset_features(G1, 96)
    assert info["total_episodes"] == 2 and info["fps"] == 20
    for key in ("action", "observation.state", "observation.images.head"):
        assert info["features"][key]["names"] == ours[key]["names"]
        assert tuple(info["features"][key]["shape"]) == ours[key]["shape"]
    cache = FrameCache.open(root, 96)
    starts = [np.flatnonzero(cache.episode == i)[0] for i in (0, 1)]
    assert not cache.states[starts, -4:-1].any(), "each episode begins with the robot standing"
    assert re.findall(r"wbvla_sim, seed (\d)", printed) == ["0", "1"]
    assert cache.actions[:, 16].max() == 1.0, "the operator walks to the cart"


@pytest.mark.slow
def test_lerobot_trains_an_act_on_our_recording_and_scores_it(tmp_path, wbvla):
    recorded = wbvla("collect", "sim", "--task", "box-loading", "--episodes", 2, "--out", "boxes", timeout=600)
    assert recorded.returncode == 0, recorded.stderr
    dataset, out = tmp_path / "boxes", tmp_path / "act"
    lerobot(
        "train", *SMALL_ACT, "--dataset.repo_id=local/boxes", f"--dataset.root={dataset}",
        "--dataset.video_backend=pyav", "--dataset.use_imagenet_stats=false", f"--output_dir={out}", "--steps=4",
        "--save_freq=4", "--batch_size=4", "--num_workers=0", "--wandb.enable=false",
    )  # fmt: skip
    lerobot(
        "eval", f"--policy.path={out}/checkpoints/last/pretrained_model", "--policy.device=cpu", "--env.type=wbvla",
        "--env.task=box-loading", f"--env.dataset={dataset}", "--eval.n_episodes=1", "--eval.batch_size=1",
        f"--output_dir={tmp_path}/score",
    )  # fmt: skip
    score = json.loads((tmp_path / "score" / "eval_info.json").read_text())
    assert 0.0 <= score["overall"]["pc_success"] <= 100.0
    assert list(score["per_group"]) == ["box-loading"]
