"""Train the legs' ablations and baseline at one budget and score them by one protocol: which part does what.

In: a budget, seeds. Out: a JSON file with the figures of every run, and a table; runs that are finished are kept.
Run: .venv/bin/python benchmarks/lmo_ablations.py --steps 8_000_000 --seeds 0 --json docs/results/lmo_ablations.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from wbvla import __version__

# What is trained: recipes of the two stages, which share the budget; a run without one stage gives all to the other.
VARIANTS = {
    "flags, both stages": ("lmo_g1", "lmo_g1_stage2"),
    "velocity tracking": ("lmo_g1_velocity", "lmo_g1_stage2_velocity"),
    "without stage I": ("lmo_g1_only_stage2",),
    "without stage II": ("lmo_g1",),
    "without J_dir": ("lmo_g1_no_direction", "lmo_g1_stage2_no_direction"),
}
PROTOCOLS = ("accuracy", "stability", "robust")
SHOWN = (
    "forward_position_error_m", "forward_yaw_error_rad", "lateral_position_error_m", "lateral_yaw_error_rad",
    "turn_position_error_m", "turn_yaw_error_rad", "com_sway_stand_push_m", "survival_stand_push",
    "survival_walk_jump_10", "survival_randomised",
)  # fmt: skip


def wbvla(*arguments: object) -> None:
    """Run a verb; end with its error if it fails."""
    if code := subprocess.run([sys.executable, "-m", "wbvla.cli", *map(str, arguments)]).returncode:
        raise SystemExit(code)


def train(recipes: tuple[str, ...], steps: int, seed: int, out: Path) -> Path:
    """Train the stages one after the other; return the folder of the finished legs. Continues what was begun."""
    earlier = None
    for recipe in recipes:
        folder = out / recipe
        if not (folder / "export" / "policy.onnx").exists():
            begin = ("--init", earlier) if earlier else ()
            share = steps // len(recipes)
            wbvla("lmo", "train", "--recipe", recipe, "--steps", share, "--seed", seed, "--out", folder, *begin)
        earlier = folder
    return earlier / "export"


def score(legs: Path, worlds: int) -> dict:
    """Return the figures of all protocols."""
    figures = {}
    for protocol in PROTOCOLS:
        path = legs / f"{protocol}.json"
        if not path.exists():
            wbvla("lmo", "bench", "--protocol", protocol, "--policy", legs, "--worlds", worlds, "--json", path)
        figures |= json.loads(path.read_text())["figures"]
    return figures


def main() -> None:
    """Train and score every variant and seed; write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--worlds", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("outputs/ablations"))
    parser.add_argument("--json", type=Path, default=Path("outputs/ablations/report.json"))
    arguments = parser.parse_args()
    report = {"benchmark": "lmo_ablations", "wbvla": __version__, "steps": arguments.steps, "runs": []}
    for name, recipes in VARIANTS.items():
        for seed in arguments.seeds:
            out = arguments.out / f"{name.replace(' ', '_').replace(',', '')}_{seed}"
            figures = score(train(recipes, arguments.steps, seed, out), arguments.worlds)
            report["runs"].append({"variant": name, "recipes": recipes, "seed": seed, "figures": figures})
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print_table(report["runs"])
    print(f"wrote {arguments.json}")


def print_table(runs: list[dict]) -> None:
    """Print one row a variant: mean over seeds, and spread where there are several."""
    from rich.console import Console
    from rich.table import Table

    table = Table("variant", *SHOWN)
    for name in VARIANTS:
        cells = []
        for key in SHOWN:
            x = np.array([run["figures"][key] for run in runs if run["variant"] == name], float)
            cells.append(f"{x.mean():.3f}" + f" ± {x.std(ddof=1):.3f}" * (len(x) > 1))
        table.add_row(name, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
