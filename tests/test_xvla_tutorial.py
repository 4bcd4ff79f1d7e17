"""The tutorial's training commands, as docs/xvla.md corrects them, run with LeRobot's own program on small weights."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess

import pytest
import torch

from test_xvla_lerobot import TRAIN, save_tokenizer
from vla_world import make_dataset
from wbvla.xvla.checkpoint import load_model

SMALL = {"--steps": "2", "--batch_size": "2", "--num_workers": "0", "--policy.device": "cpu"}


@pytest.mark.slow
def test_the_tutorials_training_commands_run(repo_root, tmp_path):
    from test_xvla_released import lerobot_policy

    weights = tmp_path / "weights" / "xvla-base"
    lerobot_policy("ee6d", chunk=20).save_pretrained(weights)
    values = json.loads((weights / "config.json").read_text())
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    (weights / "config.json").write_text(json.dumps({**values, "tokenizer_name": tokenizer}))
    make_dataset(tmp_path / "data" / "my-task")
    (block,) = re.findall(r"^```bash tutorial\n(.*?)^```", (repo_root / "docs/xvla.md").read_text(), re.M | re.S)
    commands = [shlex.split(command) for command in block.replace("\\\n", " ").strip().split("\n\n")]
    assert [command[0] for command in commands] == ["lerobot-train", "lerobot-train"]
    for command in commands:
        flags = {flag: SMALL.get(flag, value) for flag, _, value in (word.partition("=") for word in command[1:])}
        done = subprocess.run(
            [*TRAIN, "--policy.discover_packages_path=wbvla.lerobot", "--dataset.video_backend=pyav"]
            + [f"{flag}={value}" for flag, value in flags.items()],
            cwd=tmp_path, capture_output=True, text=True, timeout=590, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    before = load_model(weights)
    whole, prompt = (
        load_model(tmp_path / "outputs" / name / "checkpoints" / "last") for name in ("xvla_my_task", "xvla_my_prompt")
    )
    start = before.domains["libero"].prompt
    for model in (whole, prompt):
        robot = model.config.domains["my_arm"]
        assert (robot.id, robot.action_dim, robot.cameras) == (34, 20, ("head",))
        assert not torch.equal(model.domains["my_arm"].prompt, start)
    shared = before.transformer.state_dict()
    assert all(torch.equal(shared[name], value) for name, value in prompt.transformer.state_dict().items())
    assert any(not torch.equal(shared[name], value) for name, value in whole.transformer.state_dict().items())
