"""Two robots, one X-VLA: do soft prompts tell them apart, and does a prompt with its action layers add a robot?

    python benchmarks/xvla_two_robots.py --seeds 0 1 2 --out outputs/xvla_two_robots
    python benchmarks/xvla_two_robots.py --seeds 0 --steps 20 --demonstrations 20 --trials 2     # does it run?

Task: cart pushing, on the shipped legs of the simulated G1 and X2: other arms, other heights, other cameras, the same
whole-body space. Demonstrations are the operator's, the same for every seed. Three models a seed: one of both robots,
one of the G1, and that with the X2 added by prompt and action layers only (under 1 % of the numbers), from the very
demonstrations that the joint model had. All are trained by one recipe, and the joint model for twice the steps: each of
its robots has as many samples as in the others. Success is measured in closed loop on test seeds: joint, joint with the
two robots' prompts exchanged, added. Goes on where it was stopped; repeats what new legs or another recipe make stale.
Writes OUT/results.json and says whether both bars, fixed before any run, hold.
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
# Action layers start equal, in one unit, and learn at a tenth of the rate: it is left to the prompts to tell the robots
# apart.
RECIPE = {"batch": 32, "heads_scale": 0.1}
SHAPE = {"depth": 6, "prompt_tokens": 8, "time_dim": 8}
FIRST_BLOCK = 13  # of test seeds: those before were looked at while the recipe was made
COLLAPSE, ADDED = 0.25, 0.80  # exchanged prompts: at most, for each robot; added robot: at least; of joint success


def main() -> None:
    """Plan the stages, run them, print the table, write results.json."""
    from wbvla.chain import Runner
    from wbvla.monitor import Monitor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000, help="of the optimiser, twice as many for the joint model")
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
                                  outside=_legs(robot), expected_s=4 * args.demonstrations))  # fmt: skip
    for seed in args.seeds:
        stages += _seed(root, seed, args)
    return sorted(stages, key=lambda stage: "eval" in stage.name)  # trainings first: they take longest


def _seed(root: Path, seed: int, args: argparse.Namespace) -> list:
    from wbvla.evaluation.run import Evaluate
    from wbvla.stages import wbvla_stage
    from wbvla.xvla.adapt import Adapt

    data = {robot: str(root / "data" / robot) for robot in ROBOTS}
    folder, (first, second) = f"seed{seed}", ROBOTS
    shared = {"recipe": "two_robots", "steps": args.steps, "seed": seed, "hold_out": 0.05, **RECIPE}
    joint = Adapt(str(root / folder / "joint"), tuple(data.values()), **{**shared, "steps": 2 * args.steps})
    alone = Adapt(str(root / folder / "first"), (data[first],), **shared)
    added = Adapt(str(root / folder / "added"), (data[second],), init=alone.out, like=first, mode="warmup",
                  **{**shared, "learning_rate": 3e-3, "heads_scale": 1.0})  # fmt: skip
    collected = tuple(f"collect-{robot}" for robot in ROBOTS)
    stages = [
        _own_stage(f"joint-{seed}", "adapt", asdict(joint), folder + "/joint", collected, args.steps),
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
        evaluate = Evaluate(str(root / folder / model), TASK, robot, args.trials, workers=1, seed=FIRST_BLOCK + seed,
                            latency_s=LATENCY_S, json=str(root / output))  # fmt: skip
        stages.append(wbvla_stage(f"eval-{model}-{robot}-{seed}", f"seed {seed}: {model}, {robot}", "eval",
                                  asdict(evaluate), (output,), after=(f"{after}-{seed}",), outside=_legs(robot),
                                  expected_s=5 * args.trials))  # fmt: skip
    return stages


def _legs(robot: str) -> dict[str, str]:
    from wbvla.lmo.controller import weights_folder
    from wbvla.stages import fingerprint_path

    return {"legs": fingerprint_path(weights_folder(robot))}


def _own_stage(name: str, verb: str, config: dict, output: str, after: tuple[str, ...], expected_s: float):
    from wbvla.stages import Stage

    argv = (sys.executable, str(Path(__file__).absolute()), verb, "{config}")
    return Stage(name, name, argv, config | {"shape": SHAPE}, (output,), after, expected_s=expected_s)


def adapt(config: dict) -> None:
    """Train one model of 1.8 million numbers, of which one robot's are less than 1 %."""
    from wbvla.recipes.xvla import TRAINING_RECIPES, XVLA_RECIPES, xvla_pretrain_tiny, xvla_tiny_trunk
    from wbvla.xvla.adapt import Adapt, run

    shape = config.pop("shape")
    XVLA_RECIPES["two_robots"] = lambda domains: replace(xvla_tiny_trunk(domains), **shape)
    TRAINING_RECIPES["two_robots"] = lambda: replace(xvla_pretrain_tiny(), model="two_robots")
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
    """Print successes of every condition and seed and whether the bars hold, and write them to OUT/results.json."""
    from wbvla.contract import save_contract
    from wbvla.evaluation.run import CONFIDENCE
    from wbvla.evaluation.statistics import wilson
    from wbvla.xvla.checkpoint import load_model

    added = load_model(root / f"seed{args.seeds[0]}" / "added")
    moved, whole = (sum(p.numel() for p in part.parameters()) for part in (added.domains[ROBOTS[1]], added))
    rows, pooled = {}, {}
    for condition in ("joint-g1", "joint-x2", "swapped-g1", "swapped-x2", "added-x2"):
        of = [json.loads((root / f"seed{s}" / f"{condition}.json").read_text())["rows"][0] for s in args.seeds]
        rows[condition] = [[row["successes"], row["trials"]] for row in of]
        successes, trials = (sum(column) for column in zip(*rows[condition]))
        rate = wilson(successes, trials, CONFIDENCE)
        pooled[condition] = rate.rate
        each = "  ".join(f"{s}/{n}" for s, n in rows[condition])
        print(f"{condition:<12} {successes}/{trials}  {rate.low:.0%} - {rate.high:.0%}   seeds: {each}")
    shares = {}
    for name, condition, joint in (
        *((f"exchanged, {robot}", f"swapped-{robot}", f"joint-{robot}") for robot in ROBOTS),
        ("added", "added-x2", "joint-x2"),
    ):
        low, high = interval(rows[condition], rows[joint])
        shares[name] = {"share": pooled[condition] / max(pooled[joint], 1e-9), "low": low, "high": high}
        good = shares[name]["share"] >= ADDED if name == "added" else shares[name]["share"] <= COLLAPSE
        bar = f"at least {ADDED:.0%}" if name == "added" else f"at most {COLLAPSE:.0%}"
        verdict = "holds" if good and pooled[joint] > 0 else "MISSED"
        print(f"{name}: {shares[name]['share']:.0%} of joint success ({low:.0%} - {high:.0%}), {bar}: {verdict}")
    print(f"x2 added by {moved} of {whole} numbers ({moved / whole:.2%}), under 1 %: {moved < 0.01 * whole}")
    settings = {name: getattr(args, name) for name in ("steps", "demonstrations", "trials", "seeds")} | RECIPE | SHAPE
    results = {"settings": settings, "added": [moved, whole], "successes": rows, "shares": shares}
    save_contract(root / "results.json", results)
    print(f"wrote {root / 'results.json'}")


def interval(of: list[list[int]], joint: list[list[int]], draws: int = 10_000) -> list[float]:
    """Return the 90 % interval of a share of joint success: seeds, then each one's episodes, drawn again."""
    import numpy as np

    rng = np.random.default_rng(0)
    seeds, totals = rng.integers(len(of), size=(draws, len(of))), []
    for counts in (of, joint):
        successes, trials = np.array(counts).T
        totals.append(np.maximum(rng.binomial(trials[seeds], (successes / trials)[seeds]).sum(1), 0.5))
    return np.quantile(totals[0] / totals[1], (0.05, 0.95)).tolist()


if __name__ == "__main__":
    if sys.argv[1:2] in (["adapt"], ["swap"]):
        {"adapt": adapt, "swap": swap}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
    else:
        main()
