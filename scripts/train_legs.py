"""Train and score a robot's legs from nothing: stage I, stage II, all protocols. Continues where it was stopped.

Run: make train-legs ARGS="--robot g1 --stage1 8_000_000 --stage2 40_000_000"
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PROTOCOLS = ("stage1", "accuracy", "stability", "robust", "tour")


def wbvla(*arguments: object) -> None:
    """Run a verb; end with its error if it fails."""
    if code := subprocess.run([sys.executable, "-m", "wbvla.cli", *map(str, arguments)]).returncode:
        raise SystemExit(code)


def main() -> None:
    """Train both stages, then score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", default="g1")
    parser.add_argument("--stage1", type=int, default=8_000_000, help="environment steps")
    parser.add_argument("--stage2", type=int, default=40_000_000, help="environment steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/legs"))
    arguments = parser.parse_args()
    robot, out = arguments.robot, arguments.out / arguments.robot
    common = ("--robot", robot, "--seed", arguments.seed)
    first, second = out / "stage1", out / "stage2"
    wbvla("lmo", "train", *common, "--recipe", f"lmo_{robot}", "--steps", arguments.stage1, "--out", first)
    wbvla("lmo", "train", *common, "--recipe", f"lmo_{robot}_stage2", "--steps", arguments.stage2, "--out", second,
          "--init", first)  # fmt: skip
    for protocol in PROTOCOLS:
        path = out / f"{protocol}.json"
        wbvla("lmo", "bench", "--robot", robot, "--protocol", protocol, "--policy", second / "export", "--json", path)
    print(f"legs: {second / 'export'}, scores: {out}/*.json")


if __name__ == "__main__":
    main()
