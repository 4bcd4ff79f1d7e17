"""`wbvla lmo bench`: a protocol and a policy in; a table on the screen and every number as JSON out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass
class BenchLmo:
    """Score a legs policy by a written protocol.

    Attributes:
        robot: whose legs.
        protocol: what to measure; docs/lmo_bench.md defines each with every number.
        policy: ONNX file, or a folder with policy.onnx and contract.json; the shipped legs when left out.
        contract: the policy's contract (docs/lmo_contract.md); contract.json beside the policy when left out.
        file: for follow: the recorded command stream, a CSV.
        arms: for stability: recorded arm motion, .npz or LeRobot dataset; the committed clip when left out.
        worlds: simulated robots in every row; 0 is the protocol's own number.
        seed: of everything that is drawn; world i draws from the pair (seed, i).
        threads: CPU threads of the physics; no figure depends on them.
        model: own is the project's primitive robot; mjlab is the G1 that mjlab ships.
        physics_ms: physics step, ms; a whole part of 20.
        iterations: solver iterations of a physics step.
        feet: contact shapes of the own model's feet.
        collisions: full is links against links and floor; feet is feet against the floor only.
        json: file for the figures.
    """

    robot: str = "g1"
    protocol: Literal["stage1", "accuracy", "stability", "robust", "tour", "follow"] = "stage1"
    policy: str = ""
    contract: str = ""
    file: str = ""
    arms: str = ""
    worlds: int = 0
    seed: int = 0
    threads: int = 2
    model: Literal["own", "mjlab"] = "own"
    physics_ms: float = 5.0
    iterations: int = 10
    feet: Literal["capsules", "spheres"] = "capsules"
    collisions: Literal["full", "feet"] = "full"
    json: str = ""


def run(cfg: BenchLmo) -> dict | int:
    """Print progress and the table, write the JSON and return it; 130 after Ctrl-C."""
    from wbvla.data.progress import Progress
    from wbvla.lmo.bench.cell import world_steps
    from wbvla.lmo.bench.model import Physics

    _check(cfg)
    physics = Physics(cfg.model, cfg.physics_ms / 1e3, cfg.iterations, 20, cfg.feet, cfg.collisions)
    protocol, cells, extra = _protocol(cfg)
    policy, setting = _policy_and_setting(cfg)
    reach = setting.robot.height_range_m[1]
    fits = lambda cell: cell.height_m <= reach and (policy.interface.follows_height or not cell.needs_height)  # noqa: E731
    skipped = [cell.name for cell in cells if not fits(cell)]
    cells = [cell for cell in cells if cell.name not in skipped]
    progress = Progress(f"bench {cfg.protocol}", world_steps(cells, cfg.worlds), "world-steps")
    rows = []
    try:
        _score_all(cfg, physics, policy, setting, cells, rows, progress)
    except KeyboardInterrupt:
        if rows:
            _print(cfg, policy.id, rows, {})
        print(f"wbvla: interrupted after {len(rows)} of {len(cells)} rows; nothing was written", file=sys.stderr)
        return 130
    progress.close()
    figures = protocol.figures(rows) | {"trials": sum(row.worlds for row in rows)}
    _print(cfg, policy.id, rows, figures)
    result = {
        "robot": cfg.robot, "protocol": cfg.protocol, "policy": policy.id, "figures": figures,
        "rows": [row.facts() for row in rows], "skipped": skipped, "seed": cfg.seed, "worlds": cfg.worlds,
        "physics": asdict(physics) | {"control_s": 0.02, "mujoco": _mujoco_version()},
        "source": extra | _source(cfg) | {"onnx": policy.sha256}, "contract": policy.interface.contract,
    }  # fmt: skip
    if cfg.json:
        path = Path(cfg.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _check(cfg: BenchLmo) -> None:
    for flag, least in (("worlds", 0), ("seed", 0), ("threads", 1), ("iterations", 1)):
        if getattr(cfg, flag) < least:
            raise ValueError(f"--{flag}: got {getattr(cfg, flag)}, expected {least} or more")
    if (cfg.protocol == "follow") != bool(cfg.file):
        raise ValueError("--file names the recording for --protocol follow, and goes with no other protocol")
    if cfg.json and Path(cfg.json).is_dir():
        raise ValueError(f"--json: {cfg.json} is a folder, expected a file")


def _protocol(cfg: BenchLmo):
    """Return the protocol's module, its cells, and what the result should say about its input."""
    from wbvla.lmo.bench import accuracy, follow, robust, stability, stage1, tour

    modules = {"stage1": stage1, "accuracy": accuracy, "stability": stability, "robust": robust, "tour": tour,
               "follow": follow}  # fmt: skip
    module = modules[cfg.protocol]
    if cfg.protocol != "follow":
        return module, module.cells(), {}
    stream = follow.read_stream(cfg.file)
    facts = {"scale": stream.scale, "stretch": round(stream.stretch, 6), "seconds": 0.02 * len(stream.command)}
    return module, module.cells(stream), facts


def _policy_and_setting(cfg: BenchLmo):
    from wbvla.lmo.bench.arms import committed, load_clip
    from wbvla.lmo.bench.draw import Setting
    from wbvla.lmo.bench.policy import open_policy
    from wbvla.robots import get_robot

    robot = get_robot(cfg.robot)
    policy = open_policy(cfg.policy, cfg.contract, robot)
    return policy, Setting(
        robot, policy.interface.default, policy.interface.nominal_m, load_clip(cfg.arms or committed(cfg.robot))
    )


def _score_all(cfg: BenchLmo, physics, policy, setting, cells, rows: list, progress) -> None:
    from wbvla.lmo.bench.cell import score
    from wbvla.lmo.bench.plant import Plant

    i = policy.interface
    with Plant(setting.robot, physics, i.kp, i.kd, i.effort, cfg.threads) as plant:
        for cell in cells:
            note = lambda n, name=cell.name: progress.advance(n, name)  # noqa: E731
            rows.append(score(cell, plant, policy, setting, cfg.seed, cfg.worlds, note))


def _print(cfg: BenchLmo, policy_id: str, rows: list, figures: dict) -> None:
    """Print one table: the common columns, then what the protocol measures, then the headline figures below."""
    from rich.console import Console
    from rich.table import Table

    common = {"survival": None, "error_vx_m_s": "vx err", "error_vy_m_s": "vy err", "error_wz_rad_s": "wz err",
              "height_error_m": "h err", "torque_p95": "torque p95", "torque_above_95": "> 95 %",
              "foot_impact": "impact", "foot_slip_m_s": "slip", "jitter_rad": "jitter",
              "power_w": "power W"}  # fmt: skip
    special = list(dict.fromkeys(key for row in rows for key in row.values if key not in common))
    title = f"{cfg.protocol}: {cfg.robot}, policy {policy_id}, seed {cfg.seed}"
    table = Table("row", "stood", *(name for name in common.values() if name), "measured", title=title)
    for row in rows:
        plain = [_number(row.mean(key)) for key in common if key != "survival"]
        measured = ", ".join(f"{key} {_number(row.mean(key))}" for key in special if key in row.values)
        table.add_row(row.name, f"{row.survived}/{row.worlds}", *plain, measured)
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    console.print(table)
    for name, value in figures.items():
        console.print(f"  {name:<28} {_number(value)}", highlight=False)


def _number(value: float | bool | None) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _mujoco_version() -> str:
    import mujoco

    return mujoco.__version__


def _source(cfg: BenchLmo) -> dict:
    """Return which recordings were used, by hash."""
    import hashlib

    from wbvla.lmo.bench.arms import committed

    files = {"file": cfg.file, "arms": cfg.arms or str(committed(cfg.robot)) if cfg.protocol == "stability" else ""}
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else path.name  # noqa: E731
    return {key: digest(Path(name)) for key, name in files.items() if name}
