"""Export trained legs: a checkpoint in; policy.onnx and contract.json out, parity checked.

The exported graph holds the normaliser and the network; the contract holds everything else (wbvla.lmo.controller).
"""

from __future__ import annotations

import copy
import hashlib
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

PARITY = 1e-5


@dataclass
class ExportLmo:
    """Export a training run.

    Attributes:
        run_folder: folder given to `wbvla lmo train --out`.
        out: folder to write policy.onnx and contract.json into.
        robot: whose legs.
        recipe: name of the recipe that the run was trained with.
        worlds: simulated robots for each of the nine commands, for the scores that the contract records.
    """

    run_folder: str = "outputs/lmo"
    out: str = "outputs/lmo/export"
    robot: str = "g1"
    recipe: str = "lmo_g1"
    worlds: int = 64


def run(cfg: ExportLmo) -> dict:
    """Load, score, export."""
    from wbvla.lmo.ppo import Trainer, recipe_of
    from wbvla.robots import get_robot

    folder = Path(cfg.run_folder)
    trainer = Trainer(get_robot(cfg.robot), recipe_of(folder, cfg.recipe), 0, 2)
    trainer.load(folder)
    scores = trainer.evaluate(cfg.worlds)
    command = f"wbvla lmo train --recipe {cfg.recipe} --robot {cfg.robot} --steps {trainer.steps}"
    command += " --init EARLIER" * bool(trainer.earlier)
    contract = export(trainer, Path(cfg.out), command, scores)
    print(f"wrote {cfg.out}: {contract['policy_id']}, survival {scores['survival']:.3f}")
    return contract


def export(trainer, out: Path, command: str, scores: dict) -> dict:
    """Write the folder and return the contract. Raises RuntimeError if torch and ONNX disagree by more than 1e-5."""
    import numpy as np
    import onnxruntime
    import torch

    from wbvla.contract import save_contract
    from wbvla.lmo.observation import layout
    from wbvla.lmo.task import action_scale

    out.mkdir(parents=True, exist_ok=True)
    robot, config, actor = trainer.robot, trainer.config, trainer.alg.actor.eval()
    path = out / "policy.onnx"
    network = copy.deepcopy(torch.nn.Sequential(actor.obs_normalizer, actor.mlp)).eval().cpu()
    width = config.history * sum(w for _, w, _ in layout(robot, config.terms))
    batch = {"input": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        network, (torch.zeros(2, width),), str(path), input_names=["observation"], output_names=["action"],
        dynamic_shapes=batch, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    sample = np.random.default_rng(0).normal(size=(256, width)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(sample)).numpy()
    got = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"observation": sample}
    )[0]
    if np.abs(got - expected).max() > PARITY * max(1.0, np.abs(expected).max()):
        raise RuntimeError(f"torch and ONNX differ by {np.abs(got - expected).max():.2e}, expected at most {PARITY}")
    trainer.alg.train_mode()
    if config.arms:
        command += " --arms " + " ".join(Path(path).name for path in config.arms)
    if config.actuator:
        command += f" --actuator {Path(config.actuator).name}"
    contract = {
        "kind": "lmo", "version": 1, "robot": robot.name,
        "policy_id": hashlib.sha256(path.read_bytes()).hexdigest()[:16], "rate_hz": 50,
        "joints": list(robot.joints), "owned_by_lmo": list(robot.lmo_joints), "owned_by_vla": list(robot.arm_joints),
        "kp": robot.array("kp").tolist(), "kd": robot.array("kd").tolist(), "effort": robot.array("effort").tolist(),
        "default_rad": robot.array("default").tolist(), "observation": [list(t) for t in layout(robot, config.terms)],
        "history": {"frames": config.history},
        "action_scale_rad": action_scale(robot, config).tolist(), "lift_rad": config.lift_rad, "leg_m": robot.leg_m,
        "odometry": asdict(config.odometry), "nominal_height_m": robot.nominal_height_m,
        "height_range_m": list(config.heights_m), "shaping": asdict(config.shaping),
        "provenance": {
            "command": command, "commit": _commit(), "steps": trainer.steps, "earlier": trainer.earlier,
            "scores": scores,
        },
    }  # fmt: skip
    save_contract(out / "contract.json", contract)
    return contract


def _commit() -> str:
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
