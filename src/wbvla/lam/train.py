"""Train a latent action model. In: folders of action-free video. Out: a model folder and its held-out metrics.

OUT/model.safetensors + contract.json   for `load_lam`
OUT/metrics.json                        health of the codebook and reconstruction gain, in total and for each source
OUT/checkpoint.safetensors              and features, while it runs; OUT/cache: decoded frames
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbvla.contract import require_match, save_contract
from wbvla.data.progress import Progress
from wbvla.lam.config import FAMILIES, LamRecipe

if TYPE_CHECKING:
    import torch

    from wbvla.data.video import ClipCache

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.json"
_RESTARTS_UNTIL = 0.8  # of training: the last codes need time to settle
_CURVE_POINTS = 100


@dataclass(frozen=True)
class TrainLam:
    """Train one latent action model on video folders.

    Attributes:
        out: model folder to write; an interrupted run in it continues, a finished one is kept.
        videos: video files or folders of them; each is reported separately.
        family: "mani" (arms move before a still camera) or "loco" (the camera itself moves).
        k_s: gap between the two frames, seconds.
        recipe: name of a recipe.
        steps: of the optimiser; the recipe's number when left out.
        batch: frame pairs in a step; the recipe's number when left out.
        size: side of the images, pixels.
        seed: of weights and the order of the frame pairs.
        resume: continue what is in `out`; --no-resume starts anew.
        checkpoint_s: seconds between checkpoints.
        cache: folder for decoded frames, `out`/cache when left out; runs may share one.
    """

    out: str
    videos: tuple[str, ...]
    family: str = "loco"
    k_s: float = 0.5
    recipe: str = "tiny"
    steps: int | None = None
    batch: int | None = None
    size: int = 96
    seed: int = 0
    resume: bool = True
    checkpoint_s: float = 20.0
    cache: str | None = None


def run(cfg: TrainLam) -> dict:
    """Train, or continue, or keep what is finished; return the metrics that metrics.json holds.

    Raises:
        ValueError, FileNotFoundError: wrong settings, no videos, or another run in `out`.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint has been written.
    """
    from wbvla.data.video import ClipCache

    recipe = _resolve(cfg)
    out = Path(cfg.out)
    clips = ClipCache.open(tuple(cfg.videos), cfg.size, cfg.cache or out / "cache")
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "family": cfg.family,
        "k_s": cfg.k_s,
        "seed": cfg.seed,
        "recipe": asdict(recipe),
        "videos": clips.fingerprint,
    }
    if not cfg.resume:
        for name in (CHECKPOINT, METRICS):
            (out / name).unlink(missing_ok=True)
    done = _finished(out, settings)
    return done if done is not None else _Training(cfg, recipe, settings, clips).run()


def _resolve(cfg: TrainLam) -> LamRecipe:
    """Return the recipe with the run's replacements; check the settings."""
    from wbvla.recipes.lam import get_lam_recipe

    if cfg.family not in FAMILIES:
        raise ValueError(f"family: got {cfg.family!r}, expected one of {', '.join(FAMILIES)}")
    recipe = get_lam_recipe(cfg.recipe)
    steps = recipe.steps if cfg.steps is None else cfg.steps
    batch = recipe.batch if cfg.batch is None else cfg.batch
    if min(steps, batch) < 1:
        raise ValueError(f"steps, batch: got {steps} and {batch}, expected positive numbers")
    if not 0 < cfg.k_s < math.inf:
        raise ValueError(f"k_s: got {cfg.k_s}, expected a positive number of seconds, for example 0.5")
    if cfg.seed < 0:
        raise ValueError(f"seed: got {cfg.seed}, expected at least 0")
    if not cfg.checkpoint_s >= 0:
        raise ValueError(f"checkpoint_s: got {cfg.checkpoint_s}, expected at least 0 s")
    return replace(recipe, steps=steps, batch=batch, features=replace(recipe.features, image_size=cfg.size))


def _finished(out: Path, settings: dict) -> dict | None:
    """Return the metrics of a finished run in `out`, None if there is none; another run there is an error."""
    if not (out / METRICS).is_file():
        return None
    from wbvla.lam.model import CONTRACT, WEIGHTS

    if not ((out / WEIGHTS).is_file() and (out / CONTRACT).is_file()):
        return None
    try:
        metrics = json.loads((out / METRICS).read_text())
        made_with = metrics["settings"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{out / METRICS}: unreadable; this model is damaged, use --no-resume or delete it") from None
    require_match(settings, made_with, f"{out}: the model there (choose another --out or --no-resume)")
    return metrics


class _Training:
    """One run: data, model, optimiser, step counter and learning curve."""

    def __init__(self, cfg: TrainLam, recipe: LamRecipe, settings: dict, clips: ClipCache) -> None:
        import torch

        from wbvla.lam.checkpoint import load_checkpoint, read_header
        from wbvla.lam.features import PatchEncoder, feature_cache, fit_encoder
        from wbvla.lam.model import LatentActionModel, weights_id
        from wbvla.lam.pairs import frame_pairs, held_out

        self.cfg, self.recipe, self.settings, self.clips = cfg, recipe, settings, clips
        self.out = Path(cfg.out)
        self.checkpoint = self.out / CHECKPOINT
        self.partner = frame_pairs(clips.clip, clips.t_s, cfg.k_s)
        test = held_out(clips.clip, clips.source)
        paired, other = self.partner >= 0, test[self.partner]
        self.train_rows = np.flatnonzero(paired & ~test & ~other)
        self.test_rows = np.flatnonzero(paired & test & other)
        if not len(self.train_rows) or not len(self.test_rows):
            raise ValueError(
                f"videos: got {len(self.train_rows)} training and {len(self.test_rows)} held-out frame pairs "
                f"{cfg.k_s} s apart, expected both; give more or longer videos (one alone: {10 * cfg.k_s:g} s)"
            )
        header = read_header(self.checkpoint, settings) if self.checkpoint.is_file() else None
        torch.manual_seed(cfg.seed)
        encoder = PatchEncoder(recipe.features)
        if header is None:
            encoder = fit_encoder(
                clips.frames[np.flatnonzero(~test)[:: max(1, len(test) // 2000)]], recipe.features, cfg.seed
            )
        self.model = LatentActionModel(encoder, recipe.model)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.step, self.curve = 0, []
        if header is not None:
            load_checkpoint(self.checkpoint, self.model, self.optimiser)
            self.step, self.curve = header["step"], header["curve"]
        encoder_id = weights_id(encoder.state_dict())
        self.features = feature_cache(encoder, encoder_id, clips.frames, clips.fingerprint, self.out / "features")

    def run(self) -> dict:
        """Train to the last step, checkpointing by the clock and on Ctrl-C, then evaluate and save."""
        from wbvla.lam.interrupt import Interruptible

        started = saved = time.monotonic()
        total = self.recipe.steps
        progress = Progress(f"lam {self.cfg.family}", total, "steps", self.step)
        self.model.train()
        with Interruptible() as interrupt:
            while self.step < total:
                values = self._train_step()
                if self.step % max(1, total // _CURVE_POINTS) == 0 or self.step == total:
                    self.curve.append([self.step, values["loss"], values["mse"]])
                progress.advance(note=f"loss {values['loss']:.3f}, codes used {values['used']}")
                if interrupt.asked or time.monotonic() - saved >= self.cfg.checkpoint_s:
                    self._save_checkpoint()
                    saved = time.monotonic()
                if interrupt.asked:
                    raise KeyboardInterrupt
        metrics = {**self._evaluate(), "steps": total, "seconds": round(time.monotonic() - started, 1)}
        progress.close(f"utilisation {metrics['utilisation']:.0%}, reconstruction gain {metrics['rrg']:.1%}")
        return self._save(metrics)

    def _train_step(self) -> dict:
        import torch

        rng = np.random.default_rng((self.cfg.seed, 2, self.step))
        rows = self.train_rows[rng.integers(len(self.train_rows), size=self.recipe.batch)]
        first, second = self._batch(rows), self._batch(self.partner[rows])
        model, quantiser = self.model, self.model.quantiser
        generator = torch.Generator().manual_seed(self.cfg.seed * 1_000_003 + self.step)
        if self.step == 0:  # nothing was used yet: every code starts on an encoder output
            with torch.no_grad():
                quantiser.restart_dead(model.inverse(torch.stack([first, second], 1)), 1.0, generator)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        result = model(first, second)
        self.optimiser.zero_grad(set_to_none=True)
        result["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.step += 1
        used = f"{int((quantiser.usage > 0).sum())}/{quantiser.codebook_size}"
        if self.step % self.recipe.restart_every == 0 and self.step < _RESTARTS_UNTIL * self.recipe.steps:
            quantiser.restart_dead(result["z"], self.recipe.restart_share, generator)
        return {"loss": result["loss"].item(), "mse": result["mse"].item(), "used": used}

    def _batch(self, rows: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.features[rows]).float()

    def _evaluate(self) -> dict:
        """Measure the model on held-out pairs, in total and for each source."""
        import torch

        model = self.model.eval()
        rows, errors, indices = self.test_rows, [], []
        with torch.no_grad():
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                first, second = self._batch(part), self._batch(self.partner[part])
                codes = model.encode_features(first, second)
                made = model.dynamics(first, model.quantiser.decode(codes))
                indices.append(codes.numpy())
                errors.append(torch.stack([(x - second).square().mean((1, 2)) for x in (made, first)], 1).numpy())
        errors, indices = np.concatenate(errors).astype(np.float64), np.concatenate(indices)
        source = self.clips.source[self.clips.clip[rows]]
        by_source = {
            name: _metrics(errors[source == i], indices[source == i], self.recipe.model.codebook_size)
            for i, name in enumerate(self.cfg.videos)
            if (source == i).any()
        }
        return {**_metrics(errors, indices, self.recipe.model.codebook_size), "sources": by_source}

    def _save_checkpoint(self) -> None:
        from wbvla.lam.checkpoint import save_checkpoint

        save_checkpoint(self.checkpoint, self.model, self.optimiser, self.step, self.settings, self.curve)

    def _save(self, metrics: dict) -> dict:
        """Write weights, contract, then metrics: with metrics.json in place the folder is complete."""
        from wbvla.lam.checkpoint import write_json, write_tensors
        from wbvla.lam.model import CONTRACT, WEIGHTS, build_contract

        write_tensors(self.out / WEIGHTS, self.model.state_dict())
        contract = build_contract(self.model, self.cfg.family, self.cfg.k_s)
        save_contract(self.out / CONTRACT, contract)
        metrics |= {
            "family": self.cfg.family,
            "lam_id": contract["lam_id"],
            "pairs_train": len(self.train_rows),
            "curve": self.curve,
            "settings": self.settings,
        }
        write_json(self.out / METRICS, metrics)
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.out / "features", ignore_errors=True)
        return metrics


def learning_rate(recipe: LamRecipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _metrics(errors: np.ndarray, indices: np.ndarray, codebook_size: int) -> dict:
    """Summarise (pairs, [model, copied frame]) squared errors and (pairs, N) codes."""
    from wbvla.lam.quantiser import usage_metrics

    mse, copied = errors.mean(0)
    return {
        **usage_metrics(indices, codebook_size),
        "rrg": float(1.0 - mse / copied) if copied > 0 else 0.0,
        "loss": float(mse),
        "copy_loss": float(copied),
        "pairs": len(indices),
        "histogram": np.bincount(indices.reshape(-1), minlength=codebook_size).tolist(),
    }
