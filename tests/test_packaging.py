"""Laws of what is installed: the base is light and enough for a robot, LeRobot finds the plug-in, versions agree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata, resources

import pytest

from wbvla.cli import EXTRAS

OPTIONAL = tuple(sorted({module for modules in EXTRAS.values() for module in modules}))

# A base-only installation in one process: importing anything that an extra brings fails as if it were not there.
BLOCK_EXTRAS = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def run_python(script: str, timeout: float = 120) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def project(path) -> dict:
    return tomllib.loads(path.read_text())["project"]


def requirement_names(lines: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", line)[0].lower().replace("_", "-") for line in lines}


def test_base_install_imports_the_whole_runtime():
    """Every module of wbvla.runtime loads without torch, lerobot, mujoco or anything else an extra brings."""
    imported = run_python(
        BLOCK_EXTRAS
        + """
import importlib, pkgutil, wbvla.runtime
for module in pkgutil.iter_modules(wbvla.runtime.__path__):
    importlib.import_module("wbvla.runtime." + module.name)
    print(module.name)
"""
    )
    assert "wire" in imported.split()


def test_base_install_runs_a_step_of_the_legs():
    """What the robot's computer does 50 times a second needs the base dependencies only."""
    if not (resources.files("wbvla") / "lmo" / "weights" / "g1" / "policy.onnx").is_file():
        pytest.skip("no legs ship with this checkout")
    targets = run_python(
        BLOCK_EXTRAS
        + """
import json, numpy as np
from wbvla.lmo.controller import shipped_controller
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception
robot = get_robot("g1")
q_rad = robot.array("default")
body = Proprioception(q_rad, np.zeros_like(q_rad), np.zeros(3), np.array([0.0, 0.0, -1.0]))
controller = shipped_controller("g1")
controller.reset()
print(json.dumps(np.asarray(controller.step(LocoCommand(height_m=robot.nominal_height_m), body)).tolist()))
"""
    )
    targets_rad = json.loads(targets)
    assert len(targets_rad) == 15
    assert all(abs(angle) < 3.2 for angle in targets_rad)


def test_base_dependencies_are_light(repo_root):
    base = requirement_names(project(repo_root / "pyproject.toml")["dependencies"])
    heavy = {name.lower().replace("_", "-") for name in OPTIONAL} | {"rsl-rl-lib", "vector-quantize-pytorch", "pillow"}
    assert not base & heavy


def test_plugin_has_the_exact_name_that_lerobot_looks_for():
    """LeRobot compares the raw distribution name; a hyphen would make the plug-in silently invisible."""
    assert metadata.metadata("lerobot_policy_wbvla")["Name"] == "lerobot_policy_wbvla"


def test_lerobot_discovers_the_policy_type():
    """The call every LeRobot command makes at its start registers our policy type."""
    known = run_python(
        "from lerobot.utils.import_utils import register_third_party_plugins\n"
        "register_third_party_plugins()\n"
        "from lerobot.configs.policies import PreTrainedConfig\n"
        "print(*PreTrainedConfig.get_known_choices())"
    )
    assert "wholebodyvla" in known.split()


def test_versions_agree(repo_root):
    import wbvla

    main = project(repo_root / "pyproject.toml")
    plugin = project(repo_root / "plugins" / "lerobot_policy_wbvla" / "pyproject.toml")
    assert main["version"] == plugin["version"] == wbvla.__version__
    assert f"## {main['version']}" in (repo_root / "CHANGELOG.md").read_text()


def test_constraints_are_names_and_versions_that_cover_every_requirement(repo_root):
    lines = [line for line in (repo_root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.+!]+", line) for line in lines)
    pinned = requirement_names(lines)
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]
    about = project(repo_root / "pyproject.toml")
    asked = requirement_names(sum(about["optional-dependencies"].values(), about["dependencies"])) - {"wbvla"}
    assert asked <= pinned


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "bench"])
def test_every_make_target_installs_first_on_a_fresh_clone(repo_root, tmp_path, target):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "scripts", "plugins"):
        source = repo_root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", target],
        cwd=tmp_path,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.splitlines()[0] == "./scripts/bootstrap.sh"


def test_setup_without_python_312_says_what_to_install(repo_root, tmp_path):
    """With an empty PATH and home the search ends in one message, not in a half-made environment."""
    shutil.copytree(repo_root / "scripts", tmp_path / "scripts")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "id"):
        (tools / tool).symlink_to(shutil.which(tool))
    nothing = {"PATH": str(tools), "HOME": str(tmp_path)}
    done = subprocess.run(
        [tools / "sh", "scripts/bootstrap.sh"], cwd=tmp_path, env=nothing, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Install it with one of" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_bootstrap_is_a_portable_shell_script(repo_root):
    assert subprocess.run(["sh", "-n", repo_root / "scripts" / "bootstrap.sh"], check=False).returncode == 0
    assert os.access(repo_root / "scripts" / "bootstrap.sh", os.X_OK)
    assert os.access(repo_root / ".ci" / "run", os.X_OK)
