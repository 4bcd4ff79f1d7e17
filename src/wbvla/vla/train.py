"""`wbvla vla pretrain` and `wbvla vla finetune`. In: labelled frames, demonstrations. Out: checkpoint folders.

Stage 1 learns both code families from images (cross-entropy); stage 2 learns action chunks from demonstrations. A run
continues what is in its `out` folder; a finished one is kept. Every checkpoint opens with wbvla.vla.policy.VlaPolicy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from wbvla.vla.config import VlaConfig
    from wbvla.vla.model import WholeBodyVla
    from wbvla.vla.sources import Demonstrations, Labels, Source

Report = Callable[[int, dict[str, float]], None]
_HELD_OUT_ROWS = 768  # measured at the end: enough for 1 % of flag accuracy, two seconds of work


@dataclass(frozen=True)
class Pretrain:
    """Teach the VLA to predict latent codes from an image and a sentence.

    Attributes:
        out: checkpoint folder to write; an interrupted run in it continues, a finished one is kept.
        labels: label folders of `wbvla lam label`, matched to the frames below by fingerprint.
        dataset: robot dataset whose frames are labelled.
        mani_videos: video folders that were labelled together with the mani model, in the same order.
        loco_videos: video folders that were labelled together with the loco model, in the same order.
        cache: folder of the decoded videos; give the one that labelling used. OUT.cache when left out.
        recipe: name of a recipe.
        robot: whose state and actions the model is made for.
        steps: of the optimiser.
        batch: frames in a step.
        learning_rate: its peak.
        seed: of weights, order and augmentation.
        checkpoint_s: seconds between checkpoints.
        threads: CPU threads; results repeat bit for bit with 1.
    """

    out: str
    labels: tuple[str, ...]
    dataset: str | None = None
    mani_videos: tuple[str, ...] = ()
    loco_videos: tuple[str, ...] = ()
    cache: str | None = None
    recipe: str = "tiny"
    robot: str = "g1"
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    checkpoint_s: float = 20.0
    threads: int = 1


@dataclass(frozen=True)
class Finetune:
    """Teach the VLA whole-body actions from demonstrations.

    Attributes:
        out: checkpoint folder to write; an interrupted run in it continues, a finished one is kept.
        dataset: LeRobot v3 dataset of demonstrations.
        init: checkpoint to start from (of `wbvla vla pretrain`); random weights when left out.
        labels: label folders of this dataset: predicting its codes stays part of the loss.
        recipe: name of a recipe; a checkpoint in `init` brings its own.
        robot: that was recorded.
        hold_out: share of the episodes kept from training and measured at the end.
        steps: of the optimiser.
        batch: demonstration rows in a step.
        learning_rate: its peak.
        seed: of weights, order and augmentation.
        checkpoint_s: seconds between checkpoints.
        threads: CPU threads; results repeat bit for bit with 1.
    """

    out: str
    dataset: str
    init: str | None = None
    labels: tuple[str, ...] = ()
    recipe: str = "tiny"
    robot: str = "g1"
    hold_out: float = 0.1
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    checkpoint_s: float = 20.0
    threads: int = 1


def run_pretrain(cfg: Pretrain, report: Report | None = None) -> dict[str, Any]:
    """Pretrain, or continue, or keep what is finished; return the metrics that metrics.json holds.

    Raises:
        ValueError, FileNotFoundError: wrong settings or data, or another run in `out`; one line with the fix.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint has been written.
    """
    from wbvla.vla.checkpoint import save_model
    from wbvla.vla.contracts import vla_contract
    from wbvla.vla.loop import Order, decaying_groups, finished, fit, make_plan
    from wbvla.vla.sources import open_labels

    plan = make_plan(cfg)
    if not cfg.labels:
        raise ValueError("labels: got none, expected at least one folder of `wbvla lam label`")
    labels = open_labels(tuple(cfg.labels))
    config = _with_codes(_recipe(cfg), labels)
    sources = _sources(cfg, labels, config)
    settings = {"stage": "pretrain", "plan": asdict(plan), "vla": config.to_dict(), "lam": labels.lams}
    settings |= {"data": [source.fingerprint for source in sources]}
    done = finished(Path(cfg.out), settings, cfg.steps)
    if done is not None:
        return done
    model = _new_model(config, cfg.seed)
    tasks = sorted({task for source in sources for task in source.tasks})
    contract = vla_contract(model, "pretrain", cfg.robot, 20.0, tasks, labels.lams, {})
    rows = [(i, row) for i, source in enumerate(sources) for row in np.flatnonzero((source.codes >= 0).any(1))]
    order = Order(np.array(rows), cfg.batch, cfg.seed)
    losses_of = lambda step, generator: model.losses(_label_batch(sources, order(step)), generator)  # noqa: E731
    save = lambda folder: save_model(folder, model, contract)  # noqa: E731
    groups = decaying_groups(model, plan)
    return fit(model, losses_of, groups, plan, settings, save, Path(cfg.out), "vla pretrain", report=report)


def run_finetune(cfg: Finetune, report: Report | None = None) -> dict[str, Any]:
    """Fine-tune, or continue, or keep what is finished; return the metrics that metrics.json holds.

    Raises:
        ValueError, FileNotFoundError: wrong settings or data, or another run in `out`; one line with the fix.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint has been written.
    """
    from wbvla.data.frames import FrameCache
    from wbvla.robots import get_robot
    from wbvla.vla.checkpoint import save_model, weights_id
    from wbvla.vla.contracts import vla_contract
    from wbvla.vla.loop import Order, decaying_groups, finished, fit, make_plan
    from wbvla.vla.sources import Demonstrations, check_dataset, open_labels

    plan = make_plan(cfg)
    if not 0.0 <= cfg.hold_out < 1.0:
        raise ValueError(f"hold_out: got {cfg.hold_out}, expected a share of the episodes in [0, 1)")
    delays = check_dataset(cfg.dataset, get_robot(cfg.robot))
    model, lams = _starting_model(cfg)
    cache = FrameCache.open(cfg.dataset, model.config.image_size)
    labels = open_labels(tuple(cfg.labels))
    codes = _dataset_codes(cfg, cache, labels, lams, model.config) if cfg.labels else None
    settings = {"stage": "finetune", "plan": asdict(plan), "vla": model.config.to_dict(), "lam": labels.lams}
    settings |= {"data": cache.fingerprint, "hold_out": cfg.hold_out, "init": cfg.init and weights_id(cfg.init)}
    done = finished(Path(cfg.out), settings, cfg.steps)
    if done is not None:
        return done
    data = Demonstrations(cache, model.config.chunk_steps)
    rows, held = data.split(cfg.hold_out)
    states, actions = cache.states[rows], cache.actions[rows]
    model.set_statistics(states.mean(0), states.std(0), actions.mean(0), actions.std(0))
    contract = vla_contract(
        model, "finetune", cfg.robot, float(cache.fps), list(cache.tasks), lams or labels.lams, delays
    )
    order = Order(rows, cfg.batch, cfg.seed)
    losses_of = lambda step, generator: model.losses(_chunk_batch(data, order(step), codes), generator)  # noqa: E731
    save = lambda folder: save_model(folder, model, contract)  # noqa: E731
    measure = (lambda: _measure(model, data, held)) if len(held) else None
    groups = decaying_groups(model, plan)
    return fit(model, losses_of, groups, plan, settings, save, Path(cfg.out), "vla finetune", measure, report)


def _recipe(cfg: Pretrain | Finetune) -> VlaConfig:
    from wbvla.recipes.vla import get_vla_recipe
    from wbvla.robots import get_robot
    from wbvla.types import state_names

    robot = get_robot(cfg.robot)
    size = {"state_dim": len(state_names(robot.joints)), "masked_actions": robot.masked_actions}
    return replace(get_vla_recipe(cfg.recipe), **size)


def _with_codes(config: VlaConfig, labels: Labels) -> VlaConfig:
    """Give the model as many queries and choices as the labels have; a missing family keeps the recipe's."""
    sizes = {f"n_{family}": lam["n_codes"] for family, lam in labels.lams.items()}
    return replace(config, **sizes, codebook_size=next(iter(labels.lams.values()))["codebook_size"])


def _new_model(config: VlaConfig, seed: int) -> WholeBodyVla:
    import torch

    from wbvla.vla.model import WholeBodyVla

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WholeBodyVla(config)


def _starting_model(cfg: Finetune) -> tuple[WholeBodyVla, dict[str, Any]]:
    """Return the model to fine-tune and the latent action models behind its codes."""
    if cfg.init is None:
        return _new_model(_recipe(cfg), cfg.seed), {}
    from wbvla.vla.checkpoint import load_model
    from wbvla.vla.contracts import check_robot

    model, contract = load_model(cfg.init)
    check_robot(contract, cfg.init, cfg.robot)
    return model, contract["lam"]


def _sources(cfg: Pretrain, labels: Labels, config: VlaConfig) -> list[Source]:
    """Open all frames and give them their codes; every source must have labels and all labels must be used."""
    from wbvla.data.frames import FrameCache
    from wbvla.data.video import ClipCache
    from wbvla.robots import get_robot
    from wbvla.vla.sources import check_dataset, dataset_source, join_codes, video_source

    n_codes = {"mani": config.n_mani, "loco": config.n_loco}
    sources = {}
    if cfg.dataset is not None:
        check_dataset(cfg.dataset, get_robot(cfg.robot))
        frames = FrameCache.open(cfg.dataset, config.image_size)
        codes = join_codes(labels, frames.fingerprint, len(frames.images), n_codes)
        sources[cfg.dataset] = dataset_source(frames, codes)
    for videos in {tuple(cfg.mani_videos), tuple(cfg.loco_videos)} - {()}:
        clips = ClipCache.open(videos, config.image_size, cfg.cache or f"{cfg.out}.cache")
        codes = join_codes(labels, clips.fingerprint, len(clips.frames), n_codes)
        sources[", ".join(videos)] = video_source(clips, codes)
    size = f"the labels must be made at {config.image_size} px from the same files"
    for name, source in sources.items():
        if not (source.codes >= 0).any():
            raise ValueError(f"{name}: got no label folder for these frames; {size}; run wbvla lam label")
    unused = labels.codes.keys() - {source.fingerprint for source in sources.values()}
    if unused:
        raise ValueError(f"labels: got {len(unused)} folders whose frames are not among the dataset and videos; {size}")
    return [sources[name] for name in sorted(sources)]


def _dataset_codes(cfg: Finetune, cache, labels: Labels, lams: dict[str, Any], config: VlaConfig) -> np.ndarray:
    """Return the codes (N, C) of the demonstrations' rows, from the models that `init` was pretrained with."""
    from wbvla.vla.sources import join_codes

    for family, lam in labels.lams.items():
        if lams and lams.get(family) != lam:
            raise ValueError(f"labels: their {family} model is not the one that {cfg.init} was pretrained with")
        if (lam["n_codes"], lam["codebook_size"]) != (getattr(config, f"n_{family}"), config.codebook_size):
            raise ValueError(f"labels: their {family} codes do not fit the model; pretrain with these labels first")
    if cache.fingerprint not in labels.codes:
        raise ValueError(
            f"labels: got none for the frames of {cfg.dataset} at {config.image_size} px; run wbvla lam label"
        )
    return join_codes(labels, cache.fingerprint, len(cache.images), {"mani": config.n_mani, "loco": config.n_loco})


def _label_batch(sources: list[Source], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Assemble (B, 2) rows of (source, frame)."""
    import torch

    from wbvla.vla.text import tokenize

    picked = [(sources[i], row) for i, row in rows.tolist()]
    return {
        "images": torch.from_numpy(np.stack([source.images[row] for source, row in picked])),
        "tokens": torch.from_numpy(tokenize([source.tasks[source.text[row]] for source, row in picked])),
        "codes": torch.from_numpy(np.stack([source.codes[row] for source, row in picked])),
    }


def _chunk_batch(data: Demonstrations, rows: np.ndarray, codes: np.ndarray | None) -> dict[str, torch.Tensor]:
    """Assemble demonstration rows."""
    import torch

    from wbvla.vla.text import tokenize

    cache = data.cache
    actions, padded = data.chunks(rows)
    batch = {
        "images": torch.from_numpy(cache.images[rows]),
        "tokens": torch.from_numpy(tokenize([cache.tasks[i] for i in cache.task_index[rows]])),
        "state": torch.from_numpy(cache.states[rows]),
        "actions": torch.from_numpy(actions),
        "padded": torch.from_numpy(padded),
    }
    if codes is not None:
        batch["codes"] = torch.from_numpy(codes[rows])
    return batch


def _measure(model: WholeBodyVla, data: Demonstrations, held: np.ndarray) -> dict[str, float]:
    """Return the losses on evenly spread held-out rows, named held_out_*."""
    import torch

    rows = held[:: max(1, len(held) // _HELD_OUT_ROWS)]
    sums: dict[str, float] = {}
    with torch.inference_mode():
        for part in np.array_split(rows, max(1, len(rows) // 64)):
            for name, value in model.losses(_chunk_batch(data, part, None)).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    return {f"held_out_{name}": total / len(rows) for name, total in sums.items()}
