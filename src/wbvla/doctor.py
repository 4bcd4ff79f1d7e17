"""`wbvla doctor`: looks at this installation and says what works and what does not.

In: nothing. Out: one line a check on stdout, tracebacks in full where a check failed, exit code 1 if any did.
LeRobot hides the error of a plug-in that cannot be imported and later only says "invalid choice"; here it shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

PLUGIN = "lerobot_policy_wbvla"
POLICY_TYPE = "wholebodyvla"

RENDER = """
import mujoco, time
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 96, 96) as renderer:
    renderer.update_scene(data)
    renderer.render()
    start = time.perf_counter()
    assert renderer.render().any(), "the picture is black"
    print(f"96 px picture in {1e3 * (time.perf_counter() - start):.1f} ms")
"""


@dataclass(frozen=True)
class Doctor:
    """Check Python, packages, rendering, the shipped legs and the LeRobot plug-in."""


class NotInstalled(Exception):
    """A check does not apply: an optional extra is absent. The message names it."""


def run(config: Doctor) -> int:
    """Run every check, print one line each, and return 1 if any failed."""
    failed = 0
    for name, check in CHECKS.items():
        try:
            print(f"ok       {name:<12} {check()}", flush=True)
        except NotInstalled as absent:
            print(f"absent   {name:<12} {absent}", flush=True)
        except Exception:  # whatever a broken installation raises is the answer that the user came for
            failed += 1
            print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} check(s) failed" if failed else "all checks passed")
    return 1 if failed else 0


def _check_machine() -> str:
    return f"Python {sys.version.split()[0]}, {len(os.sched_getaffinity(0))} usable cores"


def _check_packages() -> str:
    """Compare installed versions with what wbvla's own metadata asks for, extras included."""
    from packaging.requirements import Requirement

    wrong, seen = [], 0
    for line in metadata.requires("wbvla") or []:
        requirement = Requirement(line)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if "extra" not in line:
                wrong.append(f"{requirement.name}: not installed, expected {requirement.specifier}")
            continue
        seen += 1
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name}: got {version}, expected {requirement.specifier}")
    if wrong:
        raise RuntimeError("; ".join(wrong) + "; fix with: uv pip install -c constraints.txt -e '.[sim,train]'")
    return f"wbvla {metadata.version('wbvla')}, {seen} required packages at versions that fit"


def _check_rendering() -> str:
    """Draw one picture in a process of its own: a broken GL driver may end the process that loads it."""
    _need("mujoco", "sim")
    backend = os.environ.get("MUJOCO_GL", "egl")
    done = subprocess.run(
        [sys.executable, "-c", RENDER],
        env={**os.environ, "MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"MuJoCo cannot draw with MUJOCO_GL={backend}; on Debian and Ubuntu: "
            f"sudo apt install libegl1 libgl1 libgl1-mesa-dri\n{done.stderr}"
        )
    return f"MUJOCO_GL={backend}, {done.stdout.strip()}"


def _check_legs() -> str:
    """Run the shipped legs' policy on a standing robot and time one step."""
    import numpy as np

    from wbvla.lmo.controller import shipped_controller
    from wbvla.robots import get_robot
    from wbvla.types import LocoCommand, Proprioception

    robot = get_robot("g1")
    controller = shipped_controller("g1")
    q_rad = robot.array("default")
    body = Proprioception(q_rad, np.zeros_like(q_rad), np.zeros(3), np.array([0.0, 0.0, -1.0]))
    command = LocoCommand(height_m=robot.nominal_height_m)
    controller.reset()
    controller.step(command, body)
    start = time.perf_counter()
    for _ in range(100):
        targets_rad = controller.step(command, body)
    if not np.isfinite(targets_rad).all():
        raise RuntimeError(f"the legs' policy answers {targets_rad}")
    return f"g1: {1e4 * (time.perf_counter() - start):.0f} us a step"


def _check_plugin() -> str:
    """Import the plug-in the way LeRobot's commands do, but let its error through."""
    _need("lerobot", "train")
    names = {dist.metadata["Name"] for dist in metadata.distributions()}
    if PLUGIN not in names:
        raise RuntimeError(f"LeRobot will not find {PLUGIN}: fix with: pip install ./plugins/{PLUGIN}")
    __import__(PLUGIN)
    from lerobot.configs.policies import PreTrainedConfig

    known = PreTrainedConfig.get_known_choices()
    if POLICY_TYPE not in known:
        raise RuntimeError(f"--policy.type={POLICY_TYPE} is not registered; known: {', '.join(sorted(known))}")
    return f"lerobot {metadata.version('lerobot')} knows --policy.type={POLICY_TYPE}"


def _need(distribution: str, extra: str) -> None:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise NotInstalled(f"{distribution} is not installed: pip install 'wbvla[{extra}]'") from None


CHECKS: dict[str, Callable[[], str]] = {
    "machine": _check_machine,
    "packages": _check_packages,
    "rendering": _check_rendering,
    "legs": _check_legs,
    "plug-in": _check_plugin,
}
