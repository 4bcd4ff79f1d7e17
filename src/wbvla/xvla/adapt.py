"""`wbvla xvla adapt`: pretrain an X-VLA on many robots, or teach one another. In: datasets. Out: a checkpoint folder.

A recipe says what moves: everything (phase I), prompt and action layers first and then everything (phase II), prompts
only, or adapters. A run continues what is in its `out` folder, bit for bit; a finished one is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wbvla.xvla.config import Domain, Source, Training

if TYPE_CHECKING:
    from wbvla.xvla.follow import Report
    from wbvla.xvla.model import Xvla
    from wbvla.xvla.sources import RobotRows

_HELD_OUT_ROWS = 256


@dataclass(frozen=True)
class Adapt:
    """Train an X-VLA on the datasets of one or several robots, or add robots to a trained one.

    Attributes:
        out: checkpoint folder to write; an interrupted run in it continues, a finished one is kept.
        datasets: folders of LeRobot v3 datasets; the recipe's, looked for in `data`, when left out.
        domains: each dataset's robot, in the same order; what the datasets store when left out.
        ids: each robot's number, in the same order; what the datasets store, or the first free one, when left out.
        weights: each dataset's share of the samples, in the same order; equal ones when left out.
        data: folder that holds the recipe's datasets.
        recipe: name of a training recipe; the flags below that are left out take its values.
        init: checkpoint to start from: this project's, LeRobot's `xvla` or 2toINF's; random weights when left out.
        trunk: what becomes the encoder of a new model: a checkpoint of `wbvla vla pretrain`, or Florence-2's weights.
        objective: what the network predicts, clean actions or velocities; the recipe's or that of `init` when left out.
        attention: prefix reads the context once for all denoising steps; the recipe's or that of `init` when left out.
        like: robot of `init` that new ones start as copies of: prompt, and layers where the action space is the same.
        action_mode: action space of robots whose dataset stores none.
        mode: what moves.
        freeze: parts that stay as they are: vision, projector, language, trunk, transformer, prompts, heads, adapters.
        steps: of the optimiser.
        batch: samples in a step.
        accumulate: equal parts of a batch that are computed one after the other, for less memory, or by the processes
            that torchrun starts; as many as there are processes when left out.
        learning_rate: its peak; the encoder's is a tenth.
        warmup_steps: in which it rises.
        heads_scale: of the action layers' learning rate. Below 1 prompts have to tell robots of one action space
            apart, because their layers, which start equal, stay alike.
        hold_steps: first ones, in which only prompts, action layers and adapters move.
        hold_out: share of each dataset's episodes kept from training and measured at the end.
        validate: task whose success is measured in closed loop with the first dataset's robot, at the end.
        trials: episodes of that measurement.
        measure_every: steps between measurements on the way; 0 = at the end only.
        wandb: project of Weights & Biases to log to; none when left out.
        device: where to compute: cpu or cuda.
        dtype: in which numbers to compute; weights and optimiser stay float32.
        seed: of weights, order, noise and augmentation.
        checkpoint_s: seconds between checkpoints.
        threads: CPU threads; results repeat bit for bit with 1.
    """

    out: str
    datasets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    data: str | None = None
    recipe: str = "xvla_adapt_tiny"
    init: str | None = None
    trunk: str | None = None
    objective: Literal["clean", "velocity"] | None = None
    attention: Literal["bidirectional", "prefix"] | None = None
    like: str | None = None
    action_mode: str = "auto"
    mode: Literal["joint", "warmup", "prompts", "lora"] | None = None
    freeze: tuple[str, ...] = ()
    steps: int | None = None
    batch: int | None = None
    accumulate: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None
    heads_scale: float | None = None
    hold_steps: int | None = None
    hold_out: float = 0.1
    validate: str | None = None
    trials: int = 20
    measure_every: int = 0
    wandb: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    checkpoint_s: float = 20.0
    threads: int = 1


def run(cfg: Adapt, report: Report | None = None) -> dict[str, Any]:
    """Train, or continue, or keep what is finished; return the metrics that metrics.json holds.

    Raises:
        ValueError, FileNotFoundError: wrong settings or data, or another run in `out`; one line with the fix.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint has been written.
    """
    from wbvla.vla.processes import joined

    with joined(cfg.device) as device:
        return _run(replace(cfg, device=device), report)


def _run(cfg: Adapt, report: Report | None) -> dict[str, Any]:
    from wbvla.device import get_device
    from wbvla.vla.checkpoint import weights_id
    from wbvla.vla.loop import finished, fit, make_plan
    from wbvla.vla.processes import rank, started
    from wbvla.xvla.checkpoint import write_model
    from wbvla.xvla.follow import Logger, prompt_gradient
    from wbvla.xvla.phases import learning_rate_factors, parameter_groups, set_trainable
    from wbvla.xvla.sources import Mixture, RobotRows

    training = _training(cfg)
    sources = training.sources
    plan = make_plan(
        replace(cfg, steps=training.steps, batch=training.batch, learning_rate=training.learning_rate),
        training.weight_decay,
        cfg.measure_every,
        started() if cfg.accumulate is None else cfg.accumulate,
    )
    device = get_device(cfg.device)
    if not 0.0 <= cfg.hold_out < 1.0:
        raise ValueError(f"hold_out: got {cfg.hold_out}, expected a share of the episodes in [0, 1)")
    model, names, new = _starting_model(cfg, training)
    _require_measurable(cfg, model, names[0])
    config = model.config
    data = [
        RobotRows(source.dataset, name, config.domains[name], config.image_size, config.chunk_steps)
        for source, name in zip(sources, names)
    ]
    for of in data:
        model.domains[of.name].space.require_range(of.actions.min(0), of.actions.max(0))
    settings = {"stage": "xvla", "training": asdict(training), "plan": asdict(plan), "xvla": config.to_dict()}
    settings |= {"data": [of.fingerprint for of in data], "hold_out": cfg.hold_out, "dtype": cfg.dtype}
    settings |= {"like": cfg.like, "validate": [cfg.validate, cfg.trials], "domains": names}
    settings |= {"init": cfg.init and weights_id(cfg.init), "trunk": cfg.trunk and weights_id(cfg.trunk)}
    done = finished(Path(cfg.out), settings, plan.steps)
    if done is not None:
        return done
    splits = [of.demonstrations.split(cfg.hold_out) for of in data]
    _set_statistics(model, new, [(of, rows) for of, (rows, _) in zip(data, splits)], cfg)
    set_trainable(model, training.mode, names, training.freeze)
    scales = training.pretrained_scale, training.prompt_scale, training.heads_scale
    groups = parameter_groups(model, training.learning_rate, *scales)
    parts = [group["name"] for group in groups]
    factors = learning_rate_factors(parts, plan.steps, training.warmup_steps, training.hold_steps)
    for group, factor in zip(groups, factors):
        group["weight_decay"] = training.weight_decay
        group["rate"] = lambda step, lr=group["lr"], factor=factor: lr * factor(step)
    mixture = Mixture([rows for rows, _ in splits], [s.weight for s in sources], plan.batch, plan.steps, plan.seed)
    losses_of = _losses(cfg, model.to(device), data, lambda part: mixture.part(part, plan.parts))
    measure = _measurement(cfg, model, data, [held for _, held in splits])
    with Logger(cfg.wandb if rank() == 0 else None, cfg.out, asdict(cfg), report) as log:
        save = lambda folder: write_model(folder, model)  # noqa: E731
        gradients = lambda: {"gradients/soft_prompt_norm": prompt_gradient(model)}  # noqa: E731
        label = f"xvla {training.mode}"
        return fit(model, losses_of, groups, plan, settings, save, Path(cfg.out), label, measure, log, gradients)


def _require_measurable(cfg: Adapt, model: Xvla, robot: str) -> None:
    """Raise ValueError if success could not be measured: now, not after the training."""
    from wbvla.sim.tasks import get_task
    from wbvla.xvla.policy import for_tasks

    if cfg.validate is not None:
        get_task(cfg.validate)
        for_tasks(model, robot)
        if cfg.trials < 1:
            raise ValueError(f"trials: got {cfg.trials}, expected at least 1")


def _training(cfg: Adapt) -> Training:
    """Return the recipe with the flags that were given."""
    from wbvla.recipes.xvla import get_training_recipe

    training = get_training_recipe(cfg.recipe)
    for flag in ("domains", "ids", "weights"):
        if getattr(cfg, flag) and len(getattr(cfg, flag)) != len(cfg.datasets):
            got = len(getattr(cfg, flag))
            raise ValueError(f"{flag}: got {got}, expected one for each of the {len(cfg.datasets)} datasets")
    sources = training.sources
    if cfg.datasets:
        nothing, equal = (None,) * len(cfg.datasets), (1.0,) * len(cfg.datasets)
        facts = zip(cfg.datasets, cfg.domains or nothing, cfg.ids or nothing, cfg.weights or equal)
        sources = tuple(Source(dataset, name, number, weight=weight) for dataset, name, number, weight in facts)
    elif sources and cfg.data is not None:
        sources = tuple(replace(source, dataset=str(Path(cfg.data) / source.dataset)) for source in sources)
    elif sources:
        wanted = ", ".join(source.dataset for source in sources)
        raise ValueError(f"data: got nothing, expected a folder that holds {wanted}; or give --datasets")
    else:
        raise ValueError("datasets: got none, expected at least one folder of a LeRobot dataset")
    names = ("mode", "freeze", "steps", "batch", "learning_rate", "warmup_steps", "heads_scale", "hold_steps")
    given = {name: getattr(cfg, name) for name in names if getattr(cfg, name) not in (None, ())}
    if "steps" in given:  # a shorter run warms up as much shorter
        share = min(1.0, given["steps"] / training.steps)
        shrunk = {name: int(share * getattr(training, name)) for name in ("warmup_steps", "hold_steps")}
        given = shrunk | given
    return replace(training, sources=sources, **given)


def _starting_model(cfg: Adapt, training: Training) -> tuple[Xvla, list[str], list[str]]:
    """Return the model with all robots of the datasets, each dataset's robot, and the robots that are new to it."""
    import torch

    from wbvla.recipes.xvla import get_xvla_recipe
    from wbvla.vla.checkpoint import load_model as load_vla
    from wbvla.xvla.checkpoint import load_model
    from wbvla.xvla.model import Xvla
    from wbvla.xvla.phases import require_layers
    from wbvla.xvla.released import fill, is_florence, read_florence
    from wbvla.xvla.sources import describe, stored_domain

    model = None if cfg.init is None else load_model(cfg.init)
    if model is not None and cfg.trunk is not None:
        raise ValueError("trunk: got a trunk beside --init, which brings its own encoder; leave one of them out")
    if model is None and training.mode != "joint":
        raise ValueError(f"mode: got {training.mode!r} for a new model, whose other parts are random; give --init")
    if model is None and cfg.like is not None:
        raise ValueError(f"like: got {cfg.like!r} for a new model, expected --init with a robot of that name")
    known: dict[str, Domain] = {} if model is None else dict(model.config.domains)
    before, names = set(known), []
    for source in training.sources:
        if source.action is None and "action" not in stored_domain(source.dataset) and source.domain not in known:
            source = replace(source, action=cfg.action_mode)
        name, domain = describe(source, known)
        known[name] = domain
        names.append(name)
    new = [name for name in known if name not in before]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        if model is None:
            config = get_xvla_recipe(training.model, known)
            encoder: dict[str, torch.Tensor] = {}
            if cfg.trunk is not None and is_florence(cfg.trunk):
                florence, encoder = read_florence(cfg.trunk)
                config = replace(config, florence=florence, trunk={})
            elif cfg.trunk is not None:
                trunk = load_vla(cfg.trunk)[0]
                config = replace(config, florence={}, trunk=trunk.config.to_dict(), image_size=trunk.config.image_size)
                encoder = {f"trunk.{name}": tensor for name, tensor in trunk.trunk.state_dict().items()}
            model = Xvla(config)
            heads = list(model.domains.values())
            for head in heads:
                first = next(other for other in heads if head.fits(other))
                if first is not head:
                    head.copy_layers(first)
            if encoder:
                fill(model.vlm, encoder)
        else:
            for name in new:
                require_layers(training.mode, name, model.add_domain(name, known[name], cfg.like))
        wishes = {"objective": cfg.objective, "attention": cfg.attention}
        wished = replace(model.config, **{k: v for k, v in wishes.items() if v is not None})
        if wished != model.config and training.mode != "joint":
            raise ValueError(f"mode: in {training.mode!r} the transformer stays; leave --objective and --attention out")
        model.config = wished
        if training.mode == "lora" and not model.config.lora_rank:
            model.add_adapters(training.lora_rank)
    return model, names, new


def _set_statistics(model: Xvla, new: list[str], parts: list, cfg: Adapt) -> None:
    """Give new robots the mean and deviation of their training rows.

    In a new model the robots of one action space read and write it in one unit: their actions' mean, and the deviation
    from their own means. So it takes a prompt to say where a robot's arms are.
    """
    import numpy as np

    def rows_of(name: str, what: str) -> np.ndarray:
        return np.concatenate([getattr(of, what)[rows] for of, rows in parts if of.name == name])

    mean = {name: rows_of(name, "actions").mean(0) for name in new}
    variance = {name: rows_of(name, "actions").var(0) for name in new}
    for name in new:
        domain = model.config.domains[name]
        alike = [name]
        if cfg.init is None and domain.action != "auto":  # whose entries mean something else on every robot
            alike = [other for other in new if model.config.domains[other].action == domain.action]
        action = np.mean([mean[other] for other in alike], 0), np.mean([variance[other] for other in alike], 0) ** 0.5
        state = rows_of(name, "states")
        model.set_statistics(name, action, (state.mean(0), state.std(0)), cfg.like if cfg.init is not None else None)


def _losses(cfg: Adapt, model: Xvla, data: list[RobotRows], mixture: Callable) -> Callable:
    """Return the function from step and generator to losses, named as they are logged."""
    import torch

    from wbvla.vla.augment import augment
    from wbvla.xvla.sources import mixed_batch
    from wbvla.xvla.tokens import make_tokenizer

    config = model.config
    tokenize = make_tokenizer(config.tokenizer, config.text_tokens, model.vlm.vocabulary, model.vlm.pad_token)

    def losses_of(part: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        batch = mixed_batch(data, mixture(part), tokenize, model.vlm.pad_token)
        shape = batch["images"].shape[:2]
        # colours only, as upstream: actions in metres need the picture's geometry
        images = augment(batch["images"].flatten(0, 1), 0, 0.25, 0.1, generator)
        batch["images"] = images.unflatten(0, shape)
        return named_losses(model, batch, cfg, generator)

    return losses_of


def named_losses(model: Xvla, batch: dict[str, Any], cfg: Adapt, generator) -> dict[str, Any]:
    """Return a batch's "loss" and its kinds as "loss/<kind>"."""
    import torch

    moved = {k: v.to(cfg.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    with torch.autocast(torch.device(cfg.device).type, torch.bfloat16, enabled=cfg.dtype == "bfloat16"):
        losses = model.losses(moved, generator=generator)
    return {kind if kind == "loss" else f"loss/{kind}": value for kind, value in losses.items()}


def _measurement(cfg: Adapt, model: Xvla, data: list[RobotRows], held: list) -> Callable[[], dict[str, float]] | None:
    """Return what measures held-out losses and success in closed loop; None if neither is wanted."""
    import torch

    from wbvla.xvla.follow import success_rate
    from wbvla.xvla.sources import mixed_batch
    from wbvla.xvla.tokens import make_tokenizer

    if cfg.validate is None and not any(len(rows) for rows in held):
        return None
    config = model.config
    tokenize = make_tokenizer(config.tokenizer, config.text_tokens, model.vlm.vocabulary, model.vlm.pad_token)

    def measure() -> dict[str, float]:
        metrics, sums = {}, {}
        for of, rows in zip(data, held):
            rows = rows[:: max(1, len(rows) // _HELD_OUT_ROWS)]
            for first in range(0, len(rows), 32):
                part = rows[first : first + 32]
                batch = mixed_batch([of], [part], tokenize, model.vlm.pad_token)
                with torch.inference_mode():
                    losses = named_losses(model, batch, cfg, torch.Generator().manual_seed(first))
                total, count = sums.get(of.name, (0.0, 0))
                sums[of.name] = total + float(losses["loss"]) * len(part), count + len(part)
        for name, (total, count) in sums.items():
            metrics[f"held_out_loss/{name}"] = total / count
        if cfg.validate is not None:
            metrics["validation/success_rate"] = success_rate(model, cfg.validate, data[0].name, cfg.trials)
        return metrics

    return measure
