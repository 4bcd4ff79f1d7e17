"""Every task, robot and policy without learning: does the operator succeed, and nothing simpler?

    python benchmarks/world_trials.py --out outputs/world_trials
    python benchmarks/world_trials.py --robots g1 --tasks cart-pushing --policies operator --trials 10

In: nothing. Out: OUT/results.json and a table: successes and subgoals of the scripted operator, of doing nothing, of
random actions, of walking only and of reaching only, on test seeds over the trained variation; the seeds on which the
operator failed. One stage for each; goes on where it was stopped, and repeats what new legs make stale.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from wbvla.sim.listing import choose_tasks

POLICIES = ("operator", "zero", "random", "walk-only", "reach-only")


def main() -> None:
    """Plan the stages, run them, print the table, write results.json."""
    from wbvla.chain import Runner
    from wbvla.contract import save_contract
    from wbvla.monitor import Monitor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", nargs="+", default=["g1", "x2"])
    parser.add_argument("--tasks", nargs="+", default=choose_tasks("all"), choices=choose_tasks("all"))
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("outputs/world_trials"))
    args = parser.parse_args()
    root = args.out.absolute()
    stages = plan(root, args)
    runner = Runner(root, stages, args.cores, None)
    runner.monitor = Monitor("world", stages, args.cores, runner.log_path)
    runner.run()
    rows = []
    for stage in stages:
        row = json.loads((root / stage.outputs[0]).read_text())["rows"][0]
        failed: dict[str, list[int]] = {}
        for episode in row.pop("episodes"):
            if row["policy"] == "operator" and not episode["success"]:
                failed.setdefault(episode["failure"], []).append(episode["seed"])
        rows.append({**row, "failed": failed})
        subgoals = "  ".join(f"{name} {count}" for name, count in row["subgoals"].items())
        print(f"{stage.title:<36} {row['successes']:>3}/{row['trials']}   falls {row['falls']}   {subgoals}")
    save_contract(root / "results.json", {"rows": rows})
    print(f"wrote {root / 'results.json'}")


def plan(root: Path, args: argparse.Namespace) -> list:
    """Return one stage for each policy, task and robot: the operators first."""
    from wbvla.evaluation.run import Evaluate
    from wbvla.lmo.controller import weights_folder
    from wbvla.stages import fingerprint_path, wbvla_stage

    stages = []
    for policy in args.policies:
        for robot in args.robots:
            legs = {"legs": fingerprint_path(weights_folder(robot))}
            for task in args.tasks:
                name = f"{policy}-{robot}-{task}"
                evaluate = Evaluate(policy, task, robot, args.trials, workers=1, json=str(root / f"{name}.json"))
                title = f"{robot}, {task}: {policy}"
                stages.append(wbvla_stage(name, title, "eval", asdict(evaluate), (f"{name}.json",), outside=legs,
                                          expected_s=5 * args.trials))  # fmt: skip
    return stages


if __name__ == "__main__":
    main()
