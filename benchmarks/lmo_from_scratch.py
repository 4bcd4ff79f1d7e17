"""Train G1 legs from nothing on this machine and score them: what an hour of two cores gives, seed by seed.

In: seeds. Out: a JSON file with steps, load, stage1 and survival of every seed; no retries, no choice between them.
Run: .venv/bin/python benchmarks/lmo_from_scratch.py --seeds 0 1 2 --json docs/results/lmo_from_scratch.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from wbvla import __version__

HEIGHTS_M = (0.65, 0.70, 0.74)
LOAD_S = 30.0


def wbvla(*arguments: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-m", "wbvla.cli", *arguments]


def train(seed: int, minutes: float, out: Path) -> tuple[float, list[float]]:
    """Train one seed; return the wall time in minutes and the machine's load every 30 s."""
    started, load = time.monotonic(), []
    command = wbvla("lmo", "train", "--recipe", "lmo_g1", "--seed", str(seed), "--out", str(out), "--no-resume",
                    "--steps", "1000000000", "--minutes", str(minutes))  # fmt: skip
    process = subprocess.Popen(command)
    while process.poll() is None:
        load.append(round(os.getloadavg()[0], 2))
        time.sleep(LOAD_S)
    if process.returncode:
        raise SystemExit(f"seed {seed}: training ended with exit code {process.returncode}")
    return round((time.monotonic() - started) / 60, 2), load


def score(out: Path) -> dict:
    """Return stage1's figures and the survival of nine commands x 64 robots x 10 s at three heights."""
    legs, stage1 = str(out / "export"), out / "stage1.json"
    subprocess.run(wbvla("lmo", "bench", "--protocol", "stage1", "--policy", legs, "--json", str(stage1)), check=True)
    survival = {}
    for height_m in HEIGHTS_M:
        path = out / f"eval_{height_m}.json"
        subprocess.run(
            wbvla("lmo", "eval", "--policy", legs, "--arms", "1.0", "--height-m", str(height_m), "--json", str(path)),
            check=True,
        )
        survival[str(height_m)] = json.loads(path.read_text())["survival"]
    return {"stage1": json.loads(stage1.read_text())["figures"], "survival": survival}


def main() -> None:
    """Train and score every seed in turn; write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=57.0, help="of training; start and export come on top")
    parser.add_argument("--out", type=Path, default=Path("outputs/scratch"))
    parser.add_argument("--json", type=Path, default=Path("outputs/scratch/report.json"))
    arguments = parser.parse_args()
    report = {"benchmark": "lmo_from_scratch", "wbvla": __version__, "machine": platform.machine(),
              "cores": os.cpu_count(), "arms": 1.0, "runs": []}  # fmt: skip
    for seed in arguments.seeds:
        out = arguments.out / f"seed_{seed}"
        minutes, load = train(seed, arguments.minutes, out)
        steps = json.loads((out / "checkpoint.json").read_text())["steps"]
        report["runs"].append({"seed": seed, "minutes": minutes, "steps": steps, "load": load, **score(out)})
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"wrote {arguments.json}")


if __name__ == "__main__":
    main()
