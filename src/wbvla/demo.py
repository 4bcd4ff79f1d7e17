"""`wbvla demo`: the whole chain, from nothing to a trained humanoid and a report.

In: a `Demo` configuration. Out: DIR/dataset, models, report.html and results.json.
Every stage is a `wbvla` verb run as a process of its own with the configuration file DIR/stages/NAME.yaml, so that each
can be repeated by hand; what is done and valid is skipped, what was interrupted continues (see wbvla.chain).
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wbvla.recipes.demo import IMAGE_SIZE, K_S, LAM_RECIPE, ROBOT, TASK, VLA_RECIPE, DemoBudget, demo_fast, demo_full

FAMILIES = ("mani", "loco")
POLICIES = ("operator", "vla-no-lam", "random", "blind", "vla", "replay")  # the longest first: both cores end together
BASELINES = ("random", "blind", "replay")
LEGS_VARIABLE = "WBVLA_LEGS"  # folder of the legs to use instead of the shipped ones
_CLIPS = "import json, sys; from wbvla.collect.egocentric import run_clips; run_clips(**json.load(open(sys.argv[1])))"


@dataclass(frozen=True)
class Demo:
    """The whole chain.

    Attributes:
        out: folder of everything it makes.
        fast: a three-minute look: every stage, nothing learned well.
        seed: of demonstrations, clips, training and the block of test episodes.
        video: folders of your own first-person videos; the latent action models train on them too.
        train_legs: train the legs as well instead of using the shipped ones (much longer).
        workers: processor cores to use.
    """

    out: str = "outputs/demo"
    fast: bool = False
    seed: int = 0
    video: tuple[str, ...] = ()
    train_legs: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {least}")


def run(cfg: Demo) -> dict[str, Any]:
    """Bring every stage up to date, write results.json and report.html, and print the table. Returns the results.

    Raises:
        ValueError: a stage failed or an input is unusable; one line.
        KeyboardInterrupt: after Ctrl-C, when the running stages have saved; the same command continues.
    """
    from wbvla.chain import Runner
    from wbvla.evaluation.results import print_results, write_results
    from wbvla.monitor import Monitor

    root = Path(cfg.out).absolute()
    if root.exists() and not root.is_dir():
        raise ValueError(f"out: {root} is a file, expected a folder; choose another")
    stages = plan(cfg, root)
    if cfg.train_legs:
        os.environ[LEGS_VARIABLE] = str(root / "legs" / "export")  # inherited by every stage
    runner = Runner(root, stages, cfg.workers, None)
    runner.monitor = Monitor("demo", stages, cfg.workers, runner.log_path)
    clock = _Clock(root)
    try:
        runner.run()
    except BaseException:
        clock.stop()
        raise
    results = write_results(root, clock.total(runner.ran), runner.seconds(), cfg.seed, cfg.video)
    clock.clear()
    print_results(root, results)
    return results


def plan(cfg: Demo, root: Path) -> list:
    """Return the stages in order. Raises ValueError or FileNotFoundError on unusable videos."""
    budget = demo_fast() if cfg.fast else demo_full()
    outside = {} if cfg.train_legs else {"legs": _legs_fingerprint()}
    stages = _legs(cfg, root, budget) if cfg.train_legs else []
    legs = ("legs-export",) if cfg.train_legs else ()
    stages += _data(cfg, root, budget, legs, outside)
    stages += _lams(cfg, root, budget)
    stages += _vlas(cfg, root, budget)
    stages += _evaluations(cfg, root, budget, legs, outside)
    return stages


def _legs(cfg: Demo, root: Path, budget: DemoBudget) -> list:
    from wbvla.lmo.export import ExportLmo
    from wbvla.lmo.train import TrainLmo
    from wbvla.stages import wbvla_stage

    run_folder, export = root / "legs" / "run", root / "legs" / "export"
    train = TrainLmo(robot=ROBOT, out=str(run_folder), steps=budget.legs_steps, seed=cfg.seed, threads=cfg.workers)
    ship = ExportLmo(run_folder=str(run_folder), out=str(export), robot=ROBOT, worlds=8 if cfg.fast else 64)
    took = budget.expected_s["legs"]
    return [
        wbvla_stage("legs-train", "train the legs", "lmo train", asdict(train), ("legs/run",), cores=cfg.workers,
                    expected_s=took),
        wbvla_stage("legs-export", "export the legs", "lmo export", asdict(ship), ("legs/export",),
                    after=("legs-train",), expected_s=30),
    ]  # fmt: skip


def _data(cfg: Demo, root: Path, budget: DemoBudget, legs: tuple[str, ...], outside: dict[str, str]) -> list:
    from wbvla.collect.sim import CollectSim
    from wbvla.stages import Stage, wbvla_stage

    demonstrations = CollectSim(
        out=str(root / "dataset"),
        task=TASK,
        robot=ROBOT,
        episodes=budget.episodes,
        workers=cfg.workers,
        image_size=IMAGE_SIZE,
        seed=cfg.seed,
    )
    clips = {
        "out": str(root / "clips"),
        "n_loco": budget.clips_loco,
        "n_mani": budget.clips_mani,
        "size": IMAGE_SIZE,
        "seed": cfg.seed,
        "workers": cfg.workers,
    }
    title = f"record {budget.episodes} demonstrations"
    n_clips = budget.clips_loco + budget.clips_mani
    return [
        wbvla_stage("collect", title, "collect sim", asdict(demonstrations), ("dataset",), after=legs,
                    outside=outside, cores=cfg.workers, expected_s=budget.expected_s["collect"]),
        Stage("clips", f"film {n_clips} clips without actions", (sys.executable, "-c", _CLIPS, "{config}"), clips,
              ("clips",), cores=cfg.workers, expected_s=budget.expected_s["clips"]),
    ]  # fmt: skip


def _lams(cfg: Demo, root: Path, budget: DemoBudget) -> list:
    from wbvla.lam.label import LabelLam
    from wbvla.lam.train import TrainLam
    from wbvla.stages import fingerprint_path, wbvla_stage

    outside = {video: fingerprint_path(Path(video)) for video in _own_videos(cfg)}
    train, label = [], []
    for family in FAMILIES:
        lam, videos, cache = str(root / "lam" / family), _videos(cfg, root, family), str(root / "cache")
        model = TrainLam(
            out=lam,
            videos=videos,
            family=family,
            k_s=K_S,
            recipe=LAM_RECIPE,
            steps=budget.lam_steps,
            size=IMAGE_SIZE,
            seed=cfg.seed,
            cache=cache,
        )
        name, title = f"lam-{family}", f"latent action model: {family}"
        train.append(
            wbvla_stage(name, title, "lam train", asdict(model), (f"lam/{family}",), after=("clips",), outside=outside,
                        expected_s=budget.expected_s["lam"])
        )  # fmt: skip
        for what, frames, source in (
            ("dataset", {"dataset": str(root / "dataset")}, "collect"),
            ("clips", {"videos": videos, "cache": cache}, "clips"),
        ):
            labels = LabelLam(lam=lam, out=str(root / "labels" / f"{what}-{family}"), **frames)
            label.append(
                wbvla_stage(f"label-{what}-{family}", f"{family} codes of the {what}", "lam label", asdict(labels),
                            (f"labels/{what}-{family}",), after=(f"lam-{family}", source), outside=outside,
                            expected_s=budget.expected_s["label"])
            )  # fmt: skip
    return train + label


def _vlas(cfg: Demo, root: Path, budget: DemoBudget) -> list:
    from wbvla.stages import wbvla_stage
    from wbvla.vla.train import Finetune, Pretrain

    names = [f"{what}-{family}" for family in FAMILIES for what in ("dataset", "clips")]
    dataset = str(root / "dataset")
    pretrain = Pretrain(
        out=str(root / "vla" / "pretrain"),
        labels=tuple(str(root / "labels" / name) for name in names),
        dataset=dataset,
        mani_videos=_videos(cfg, root, "mani"),
        loco_videos=_videos(cfg, root, "loco"),
        cache=str(root / "cache"),
        recipe=VLA_RECIPE,
        robot=ROBOT,
        steps=budget.pretrain_steps,
        seed=cfg.seed,
    )
    without = Finetune(
        out=str(root / "vla" / "no-lam"),
        dataset=dataset,
        recipe=VLA_RECIPE,
        robot=ROBOT,
        steps=budget.finetune_steps,
        seed=cfg.seed,
    )
    full = replace(
        without,
        out=str(root / "vla" / "full"),
        init=pretrain.out,
        labels=tuple(str(root / "labels" / name) for name in names if name.startswith("dataset-")),
    )
    labels, took = tuple(f"label-{name}" for name in names), budget.expected_s
    return [
        wbvla_stage("pretrain", "VLA: pretrain on latent codes", "vla pretrain", asdict(pretrain), ("vla/pretrain",),
                    after=(*labels, "collect", "clips"), expected_s=took["pretrain"]),
        wbvla_stage("finetune", "VLA: fine-tune on demonstrations", "vla finetune", asdict(full), ("vla/full",),
                    after=("pretrain", *labels, "collect"), expected_s=took["finetune"]),
        wbvla_stage("finetune-no-lam", "VLA without LAM: the same fine-tuning", "vla finetune", asdict(without),
                    ("vla/no-lam",), after=("collect",), expected_s=took["finetune"]),
    ]  # fmt: skip


def _own_videos(cfg: Demo) -> tuple[str, ...]:
    """The user's video folders as absolute paths. Raises FileNotFoundError for one that is not there."""
    for video in cfg.video:
        if not Path(video).exists():
            raise FileNotFoundError(f"video: no file or folder {video}; check the path")
    return tuple(str(Path(video).absolute()) for video in cfg.video)


def _videos(cfg: Demo, root: Path, family: str) -> tuple[str, ...]:
    """What a family's model trains on: simulated clips, then the user's folders."""
    return (str(root / "clips" / family), *_own_videos(cfg))


def _evaluations(cfg: Demo, root: Path, budget: DemoBudget, legs: tuple[str, ...], outside: dict[str, str]) -> list:
    from wbvla.evaluation.policies import LABELS
    from wbvla.evaluation.run import Evaluate
    from wbvla.stages import wbvla_stage

    vla, no_lam, folder = root / "vla" / "full", root / "vla" / "no-lam", root / "evaluation"
    special: dict[str, dict[str, Any]] = {
        "vla": {"policy": str(vla), "video": str(folder / "vla.mp4")},
        "vla-no-lam": {"policy": str(no_lam)},
        "blind": {"checkpoint": str(vla)},
        "random": {"checkpoint": str(vla)},
        "replay": {"dataset": str(root / "dataset")},
    }
    after = {
        "operator": legs,
        "replay": ("collect",),
        "vla-no-lam": ("finetune-no-lam",),
        **dict.fromkeys(("vla", "blind", "random"), ("finetune",)),
    }
    cores = max(1, cfg.workers // 2)  # two evaluations, or one beside a training, keep all cores busy
    stages = []
    for policy in POLICIES:
        trials = budget.baseline_trials if policy in BASELINES else budget.trials
        evaluate = Evaluate(
            **{"policy": policy, **special.get(policy, {})},
            task=TASK,
            robot=ROBOT,
            trials=trials,
            workers=cores,
            seed=cfg.seed,
            json=str(folder / f"{policy}.json"),
        )
        outputs = (f"evaluation/{policy}.json", *(("evaluation/vla.mp4",) if policy == "vla" else ()))
        stages.append(
            wbvla_stage(f"eval-{policy}", f"{trials} trials: {LABELS[policy]}", "eval", asdict(evaluate),
                        outputs, after=after[policy], outside=outside, cores=cores,
                        expected_s=budget.expected_s["evaluate"])
        )  # fmt: skip
    first_block = -(-cfg.seed * budget.trials // budget.realtime_trials)  # within the seeds of the simulated trials
    repeat = Evaluate(
        policy=str(vla),
        task=TASK,
        robot=ROBOT,
        trials=budget.realtime_trials,
        seed=first_block,
        json=str(folder / "vla-realtime.json"),
        realtime=True,
    )
    stages.append(
        wbvla_stage("eval-vla-realtime", f"{budget.realtime_trials} of them in real time, through the sockets", "eval",
                    asdict(repeat), ("evaluation/vla-realtime.json",), after=("finetune", *legs), outside=outside,
                    cores=cfg.workers, expected_s=budget.expected_s["realtime"])
    )  # fmt: skip
    return stages


def _legs_fingerprint() -> str:
    from wbvla.lmo.controller import weights_folder
    from wbvla.stages import fingerprint_path

    return fingerprint_path(weights_folder(ROBOT))


class _Clock:
    """Wall-clock seconds of a run, over its interruptions."""

    def __init__(self, root: Path) -> None:
        self._path, self._began = root / "stages" / "open_seconds", time.monotonic()
        self._results = root / "results.json"

    def _seconds(self) -> float:
        before = float(self._path.read_text()) if self._path.is_file() else 0.0
        return before + time.monotonic() - self._began

    def stop(self) -> None:
        """The run ends early: remember how long it took so far."""
        seconds = self._seconds()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(f"{seconds:.1f}\n")

    def total(self, ran: int) -> float:
        """Return the seconds of the finished run; of the earlier one when no stage had to run now."""
        import json

        if ran == 0 and not self._path.is_file() and self._results.is_file():
            return float(json.loads(self._results.read_text())["seconds"])
        return round(self._seconds(), 1)

    def clear(self) -> None:
        """The run is complete."""
        self._path.unlink(missing_ok=True)
