"""Two robots, one X-VLA: do soft prompts tell them apart, and does a prompt with its action layers add a robot?

    python benchmarks/xvla_two_robots.py --seeds 0 1 2 --out outputs/xvla_two_robots
    python benchmarks/xvla_two_robots.py --seeds 0 --steps 20 --demonstrations 3 --trials 2     # does it run?

Task: cart pushing, on the shipped legs of the simulated G1 and X2: other arms, other heights, other cameras, the same
whole-body space. Demonstrations are the operator's. Three models a seed: one of both robots, one of the G1, and that
with the X2 added by prompt and action layers only (under 1 % of the numbers), from the very demonstrations that the
joint model had. Success is measured in closed loop on test seeds: joint, joint with the two robots' prompts exchanged,
added. Everything goes on where it was stopped. Writes OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"

TASK, ROBOTS = "cart-pushing", ("g1", "x2")
LATENCY_S = 0.06  # of a busy core; fixed, so that results do not depend on what else the machine does


def main() -> None:
    """Plan the stages, run them, print the table, write results.json."""
    from wbvla.chain import Runner
    from wbvla.monitor import Monitor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2600, help="of the optimiser, for each model")
    parser.add_argument("--demonstrations", type=int, default=80, help="of each robot")
    parser.add_argument("--trials", type=int, default=30, help="episodes of each condition")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("outputs/xvla_two_robots"))
    args = parser.parse_args()
    root = args.out.absolute()
    stages = plan(root, args)
    runner = Runner(root, stages, args.cores, None)
    runner.monitor = Monitor("two robots", stages, args.cores, runner.log_path)
    runner.run()
    report(root, args)


def plan(root: Path, args: argparse.Namespace) -> list:
    """Return the stages in an order in which each comes after those it follows."""
    from wbvla.collect.sim import CollectSim
    from wbvla.stages import wbvla_stage

    stages = []
    for robot in ROBOTS:
        out = f"data/{robot}"
        collect = CollectSim(str(root / out), TASK, robot, args.demonstrations, workers=1)
        title = f"{robot}: {args.demonstrations} demonstrations"
        stages.append(wbvla_stage(f"collect-{robot}", title, "collect sim", asdict(collect), (out,),
                                  expected_s=4 * args.demonstrations))  # fmt: skip
    for seed in args.seeds:
        stages += _seed(root, seed, args)
    return sorted(stages, key=lambda stage: "eval" in stage.name)  # trainings first: they take longest


def _seed(root: Path, seed: int, args: argparse.Namespace) -> list:
    from wbvla.evaluation.run import Evaluate
    from wbvla.stages import wbvla_stage
    from wbvla.xvla.adapt import Adapt

    data = {robot: str(root / "data" / robot) for robot in ROBOTS}
    folder, (first, second) = f"seed{seed}", ROBOTS
    shared = {"steps": args.steps, "seed": seed, "hold_out": 0.05}
    joint = Adapt(str(root / folder / "joint"), tuple(data.values()), recipe="two_robots", **shared)
    alone = Adapt(str(root / folder / "first"), (data[first],), recipe="one_robot", **shared)
    added = Adapt(str(root / folder / "added"), (data[second],), recipe="one_robot", init=alone.out, like=first,
                  mode="warmup", learning_rate=3e-3, **shared)  # fmt: skip
    collected = tuple(f"collect-{robot}" for robot in ROBOTS)
    stages = [
        _own_stage(f"joint-{seed}", "adapt", asdict(joint), folder + "/joint", collected, args.steps * 0.5),
        _own_stage(f"first-{seed}", "adapt", asdict(alone), folder + "/first", collected[:1], args.steps * 0.5),
        _own_stage(f"added-{seed}", "adapt", asdict(added), folder + "/added", (f"first-{seed}", collected[1]),
                   args.steps * 0.4),
        _own_stage(f"swap-{seed}", "swap", {"model": joint.out, "out": str(root / folder / "swapped")},
                   folder + "/swapped", (f"joint-{seed}",), 5),
    ]  # fmt: skip
    for model, robot, after in (
        *(("joint", robot, "joint") for robot in ROBOTS),
        *(("swapped", robot, "swap") for robot in ROBOTS),
        ("added", second, "added"),
    ):
        output = f"{folder}/{model}-{robot}.json"
        evaluate = Evaluate(str(root / folder / model), TASK, robot, args.trials, workers=1, seed=seed,
                            latency_s=LATENCY_S, json=str(root / output))  # fmt: skip
        stages.append(wbvla_stage(f"eval-{model}-{robot}-{seed}", f"seed {seed}: {model}, {robot}", "eval",
                                  asdict(evaluate), (output,), after=(f"{after}-{seed}",),
                                  expected_s=5 * args.trials))  # fmt: skip
    return stages


def _own_stage(name: str, verb: str, config: dict, output: str, after: tuple[str, ...], expected_s: float):
    from wbvla.stages import Stage

    argv = (sys.executable, str(Path(__file__).absolute()), verb, "{config}")
    return Stage(name, name, argv, config, (output,), after, expected_s=expected_s)


def adapt(config: dict) -> None:
    """Train one model of 1.8 million numbers, of which one robot's are less than 1 %."""
    from wbvla.recipes.xvla import TRAINING_RECIPES, XVLA_RECIPES, xvla_pretrain_tiny, xvla_tiny_trunk
    from wbvla.xvla.adapt import Adapt, run

    def shape(domains):
        return replace(xvla_tiny_trunk(domains), depth=6, prompt_tokens=8, time_dim=8)

    XVLA_RECIPES["two_robots"] = shape
    training = replace(xvla_pretrain_tiny(), model="two_robots", batch=32)
    TRAINING_RECIPES["one_robot"] = lambda: training
    TRAINING_RECIPES["two_robots"] = lambda: replace(training, heads_scale=0.1)
    run(Adapt(**{name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}))


def swap(config: dict) -> None:
    """Write a copy of a model in which the two robots have each other's soft prompts."""
    from wbvla.xvla.checkpoint import load_model, write_model

    model = load_model(config["model"])
    one, other = (model.domains[name].prompt for name in ROBOTS)
    one.data, other.data = other.data, one.data
    Path(config["out"]).mkdir(parents=True, exist_ok=True)
    write_model(Path(config["out"]), model)


def report(root: Path, args: argparse.Namespace) -> None:
    """Print successes of every condition and seed, and write them to OUT/results.json."""
    from wbvla.contract import save_contract
    from wbvla.evaluation.run import CONFIDENCE
    from wbvla.evaluation.statistics import wilson
    from wbvla.xvla.checkpoint import load_model

    added = load_model(root / f"seed{args.seeds[0]}" / "added")
    moved, whole = (sum(p.numel() for p in part.parameters()) for part in (added.domains[ROBOTS[1]], added))
    assert moved < 0.01 * whole, (moved, whole)
    rows, pooled = {}, {}
    for condition in ("joint-g1", "joint-x2", "swapped-g1", "swapped-x2", "added-x2"):
        of = [json.loads((root / f"seed{s}" / f"{condition}.json").read_text())["rows"][0] for s in args.seeds]
        rows[condition] = [[row["successes"], row["trials"]] for row in of]
        successes, trials = (sum(column) for column in zip(*rows[condition]))
        rate = wilson(successes, trials, CONFIDENCE)
        pooled[condition] = rate.rate
        each = "  ".join(f"{s}/{n}" for s, n in rows[condition])
        print(f"{condition:<12} {successes}/{trials}  {rate.low:.0%} - {rate.high:.0%}   seeds: {each}")
    share = pooled["added-x2"] / max(pooled["joint-x2"], 1e-9)
    print(f"x2 added by {moved} of {whole} numbers ({moved / whole:.2%}): {share:.0%} of joint training")
    settings = {name: getattr(args, name) for name in ("steps", "demonstrations", "trials", "seeds")}
    save_contract(root / "results.json", {"settings": settings, "added": [moved, whole], "successes": rows})
    print(f"wrote {root / 'results.json'}")


if __name__ == "__main__":
    if sys.argv[1:2] in (["adapt"], ["swap"]):
        {"adapt": adapt, "swap": swap}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
    else:
        main()
