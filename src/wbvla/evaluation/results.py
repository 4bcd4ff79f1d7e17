"""The outcome of `wbvla demo`. In: what the stages wrote into DIR. Out: results.json, report.html, tables to print.

results.json: {"seconds", "rows": [{"policy", "task", "successes", "trials", ..}], "lam": {family: {"utilisation", ..}}}
and more keys beside these; a row of the report is a row of results.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wbvla.evaluation.policies import LABELS
from wbvla.evaluation.run import CONFIDENCE, write_json
from wbvla.evaluation.statistics import Rate, separated

FAMILIES = ("mani", "loco")
LAM_NUMBERS = ("utilisation", "perplexity", "dead_codes", "rrg", "loss", "copy_loss", "pairs")


def write_results(
    root: Path, seconds: float, stage_seconds: dict[str, float], seed: int, videos: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Gather, write results.json and report.html, return what results.json holds.

    Args:
        root: the demo's folder, every stage done.
        seconds: of the whole run; stage_seconds: of each stage.
        seed: the run's seed.
        videos: the user's video folders, reported as sources of their own.
    """
    from wbvla.evaluation.report import write_report

    rows = [_row(path) for path in _evaluations(root)]
    lam = {family: _lam(root, family, videos) for family in FAMILIES}
    vla = {name: _vla(root, name) for name in ("pretrain", "full", "no-lam")}
    results = {
        "seconds": seconds,
        "seed": seed,
        "rows": rows,
        "lam": lam,
        "vla": vla,
        "separated": _comparisons(rows),
        "realtime": _realtime(root),
        "stage_seconds": stage_seconds,
    }
    write_json(root / "results.json", results)
    write_report(root / "report.html", build_report(root, results))
    return results


def build_report(root: Path, results: dict[str, Any]):
    """Return the `Report` of a run's results."""
    from wbvla.evaluation.report import Curve, Report

    curves = {"held-in loss of the latent action models, by step": []}
    codebooks, table = {}, [["model", "video", "codebook used", "perplexity", "gain over copying", "held-out pairs"]]
    for family in FAMILIES:
        metrics = _read(root / "lam" / family / "metrics.json")
        curves["held-in loss of the latent action models, by step"].append(
            Curve(family, [(step, loss) for step, loss, *_ in metrics["curve"]])
        )
        total = max(sum(metrics["histogram"]), 1)
        codebooks[f"{family}: share of each code, most used first"] = [n / total for n in metrics["histogram"]]
        numbers = results["lam"][family]
        table.append(_lam_cells(family, "all", numbers))
        table += [_lam_cells(family, name, part) for name, part in numbers["sources"].items()]
    stages = {"pretraining on codes": ("pretrain",), "fine-tuning on demonstrations": ("full", "no-lam")}
    for title, names in stages.items():
        found = [(name, _read(root / "vla" / name / "metrics.json")["curve"]) for name in names]
        curves[f"VLA loss, {title}, by step"] = [Curve(n, [(step, loss) for step, loss, *_ in c]) for n, c in found]
    film = root / "evaluation" / "vla.mp4"
    row = next((r for r in results["rows"] if r["policy"] == "vla"), None)
    caption = "The learned policy at work; the inset is what its head camera sees."
    if row is not None and row["successes"] == 0:
        caption += " It did not succeed in any trial: this is the first one."
    minutes = f"{results['seconds'] / 60:.1f} minutes"
    facts = {"seed": str(results["seed"]), "whole run": minutes}
    if row is not None:
        facts |= {"trials": f"{row['trials']} per policy, test seeds", "latency": f"{1000 * row['latency_s']:.0f} ms"}
    facts["in real time"] = _realtime_line(results["realtime"])
    return Report(
        title="wbvla demo: a humanoid that learned to push a cart",
        facts=facts,
        rows=[{**r, "label": LABELS[r["policy"]]} for r in results["rows"]],
        confidence=CONFIDENCE,
        video=film if film.is_file() else None,
        video_caption=caption,
        curves=curves,
        codebooks=codebooks,
        tables={"Latent action models, on held-out video": table},
    )


def print_results(root: Path, results: dict[str, Any]) -> None:
    """Print both tables and where everything was written."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    names = list(results["rows"][0]["subgoals"]) if results["rows"] else []
    table = Table("policy", "success", f"{CONFIDENCE:.0%} interval", *names, "falls", title="closed loop, test seeds")
    for row in results["rows"]:
        counts = [f"{row['subgoals'][name]}/{row['trials']}" for name in names]
        interval = f"{row['low']:.0%} - {row['high']:.0%}"
        table.add_row(row["policy"], f"{row['successes']}/{row['trials']}", interval, *counts, str(row["falls"]))
    console.print(table)
    table = Table("LAM", "video", "used", "perplexity", "gain", "pairs", title="latent action models, held-out video")
    for family, numbers in results["lam"].items():
        table.add_row(*_lam_cells(family, "all", numbers))
        for name, part in numbers["sources"].items():
            table.add_row(*_lam_cells("", name, part))
    console.print(table)
    for line in results["separated"]:
        console.print(line)
    console.print(_realtime_line(results["realtime"]))
    console.print(f"{results['seconds'] / 60:.1f} minutes. Written:")
    for name, what in (
        ("report.html", "the report, with the video"),
        ("results.json", "all numbers"),
        ("dataset", "the demonstrations, a LeRobot v3 dataset"),
        ("lam", "latent action models"),
        ("vla", "VLA checkpoints: pretrain, full, no-lam"),
        ("evaluation", "every episode of every policy"),
        ("stages", "each stage's configuration: repeat one with `wbvla VERB --config FILE`"),
        ("logs", "what each stage printed"),
    ):
        console.print(f"  {root / name}  {what}", soft_wrap=True, highlight=False)


def _row(path: Path) -> dict[str, Any]:
    """Read an evaluation of one task; the episodes stay in its own file."""
    row = _read(path)["rows"][0]
    del row["episodes"]
    return {**row, "policy": path.stem}


def _realtime(root: Path) -> dict[str, Any]:
    """Compare the trials that were repeated in wall time with their twins in simulated time, seed by seed."""
    real, simulated = (_read(root / "evaluation" / f"{name}.json")["rows"][0] for name in ("vla-realtime", "vla"))
    twins = {episode["seed"]: episode["success"] for episode in simulated["episodes"]}
    return {
        "trials": real["trials"],
        "successes": real["successes"],
        "same_outcome": sum(episode["success"] == twins[episode["seed"]] for episode in real["episodes"]),
        "round_trip_s": real["latency_s"],
        "flag_differences": real["flag_differences"],
    }


def _realtime_line(realtime: dict[str, Any]) -> str:
    return (
        f"{realtime['same_outcome']} of {realtime['trials']} trials repeated in real time through the sockets ended "
        f"the same (round trip {1000 * realtime['round_trip_s']:.0f} ms)"
    )


def _evaluations(root: Path) -> list[Path]:
    paths = [root / "evaluation" / f"{name}.json" for name in LABELS]
    return [path for path in paths if path.is_file()]


def _lam(root: Path, family: str, videos: tuple[str, ...]) -> dict[str, Any]:
    """Take a model's held-out numbers, in total and by source; the user's folders keep the names they were given by."""
    metrics = _read(root / "lam" / family / "metrics.json")
    given = {str(Path(video).absolute()): video for video in videos}
    sources = {
        given.get(name, "simulated clips"): {k: part[k] for k in LAM_NUMBERS if k in part}
        for name, part in metrics["sources"].items()
    }
    return {**{k: metrics[k] for k in LAM_NUMBERS if k in metrics}, "sources": sources}


def _vla(root: Path, name: str) -> dict[str, Any]:
    """Take a checkpoint's numbers; its learning curve stays in its own file."""
    metrics = _read(root / "vla" / name / "metrics.json")
    del metrics["curve"]
    return metrics


def _lam_cells(family: str, source: str, numbers: dict[str, Any]) -> list[str]:
    return [
        family,
        source,
        f"{numbers['utilisation']:.0%}",
        f"{numbers['perplexity']:.1f}",
        f"{numbers['rrg']:.1%}",
        str(numbers["pairs"]),
    ]


def _comparisons(rows: list[dict[str, Any]]) -> list[str]:
    """Say of each other learned or open-loop policy whether the VLA's interval lies above its own."""
    by_name = {row["policy"]: row for row in rows}
    if "vla" not in by_name:
        return []

    def rate(row: dict[str, Any]) -> Rate:
        return Rate(row["rate"], row["low"], row["high"])

    others = [name for name in ("vla-no-lam", "blind", "replay", "random") if name in by_name]
    words = {True: "better than", False: "not separated from"}
    return [f"vla is {words[separated(rate(by_name['vla']), rate(by_name[n]))]} {n}" for n in others]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
