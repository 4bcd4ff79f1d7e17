"""Put several policies' `wbvla lmo bench` files side by side: a Markdown table on the screen, one JSON file.

Run: scripts/bench_table.py NAME=FOLDER [NAME=FOLDER ...] --json docs/results/bench_public.json
A folder holds accuracy.json, stability.json, robust.json and tour.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

PROTOCOLS = ("accuracy", "stability", "robust", "tour")
PAIRS = {
    "forward / back, final pose": ("forward_position_error_m", "forward_yaw_error_rad"),
    "left / right, final pose": ("lateral_position_error_m", "lateral_yaw_error_rad"),
    "turn, final pose": ("turn_position_error_m", "turn_yaw_error_rad"),
    "speed missed: forward, lateral, yaw": ("tracking_error_forward", "tracking_error_lateral", "tracking_error_yaw"),
    "sway standing, with pushes": ("com_sway_stand_m", "com_sway_stand_push_m"),
    "survived: pushes standing, squatting": ("survival_stand_push", "survival_squat_push"),
    "survived: walk with jumps 0, 0.5, 1.0 m/s": (
        "survival_walk_jump_00", "survival_walk_jump_05", "survival_walk_jump_10",
    ),
    "survived: nominal 60 s, randomised": ("survival_nominal", "survival_randomised"),
    "survived: hands loaded, moving and held": ("survival_loaded_moving", "survival_loaded_held"),
    "survived: hand-over": ("survival_handover",),
    "tour completed": ("tour_completion",),
}  # fmt: skip


def collect(folder: Path) -> dict:
    """Return one policy's figures with their source and numbers of worlds."""
    out: dict = {"figures": {}, "worlds": {}}
    for protocol in PROTOCOLS:
        result = json.loads((folder / f"{protocol}.json").read_text())
        out["policy"], out["source"] = result["policy"], result["contract"].get("source", "")
        out["onnx"], out["worlds"][protocol] = result["source"]["onnx"], result["worlds"]
        out["figures"] |= {k: v for k, v in result["figures"].items() if k != "trials"}
    return out


def main() -> None:
    """Print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    policies = {name: collect(Path(folder)) for name, folder in (row.split("=", 1) for row in arguments.policies)}
    print("| | " + " | ".join(policies) + " |\n|---|" + "---|" * len(policies))
    shown = lambda x: "-" if x is None else f"{x:.2f}"  # noqa: E731
    for label, keys in PAIRS.items():
        cells = [" / ".join(shown(p["figures"][k]) for k in keys) for p in policies.values()]
        print(f"| {label} | " + " | ".join(cells) + " |")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(policies, indent=1) + "\n")
    print(f"\nwrote {arguments.json}")


if __name__ == "__main__":
    main()
