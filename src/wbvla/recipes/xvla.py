"""X-VLA recipes. In: the robots. Out: one complete `XvlaConfig` each, and `Training` for pretraining and adaptation."""

from __future__ import annotations

from dataclasses import replace

from wbvla.vla.config import VlaConfig
from wbvla.xvla.config import PUBLISHED_IDS, Domain, Source, Training, XvlaConfig

# Florence-2-large, whose encoder the released X-VLA weights contain
FLORENCE_LARGE = {
    "vision_config": {
        "embed_dim": [256, 512, 1024, 2048],
        "depths": [1, 1, 9, 1],
        "num_heads": [8, 16, 32, 64],
        "num_groups": [8, 16, 32, 64],
        "projection_dim": 1024,
        "window_size": 12,
    },
    "text_config": {
        "model_type": "bart",
        "vocab_size": 51289,
        "d_model": 1024,
        "encoder_layers": 12,
        "encoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "max_position_embeddings": 4096,
    },
}

FLORENCE_TINY = {
    "vision_config": {
        "embed_dim": [24, 48, 96, 128],
        "depths": [1, 1, 1, 1],
        "num_heads": [2, 4, 8, 8],
        "num_groups": [2, 4, 8, 8],
        "projection_dim": 128,
        "window_size": 6,
        "drop_path_rate": 0.0,
    },
    "text_config": {
        "model_type": "bart",
        "vocab_size": 1024,
        "d_model": 128,
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "dropout": 0.0,
    },
}


def xvla_tiny(domains: dict[str, Domain]) -> XvlaConfig:
    """Two million parameters at 96 px, nothing to download: for one CPU core."""
    return XvlaConfig(
        domains=domains,
        florence=FLORENCE_TINY,
        tokenizer="words",
        image_size=96,
        text_tokens=16,
        chunk_steps=20,
        hidden_size=128,
        depth=4,
        heads=4,
        prompt_tokens=8,
        time_dim=16,
        max_tokens=128,
        dropout=0.0,
        attention="prefix",
    )


def xvla_tiny_trunk(domains: dict[str, Domain]) -> XvlaConfig:
    """As `xvla_tiny` with the WholeBodyVLA policy's tiny trunk as encoder: sees three times as fast."""
    return replace(xvla_tiny(domains), florence={}, trunk=VlaConfig().to_dict())


def xvla_released(domains: dict[str, Domain]) -> XvlaConfig:
    """The size of the released weights, with attention that can be cached: 0.88 billion parameters."""
    return XvlaConfig(domains=domains, florence=FLORENCE_LARGE, attention="prefix")


XVLA_RECIPES = {"tiny": xvla_tiny, "tiny_trunk": xvla_tiny_trunk, "released": xvla_released}


def get_xvla_recipe(name: str, domains: dict[str, Domain]) -> XvlaConfig:
    """Return a recipe by its name. Raises ValueError listing the known names."""
    if name not in XVLA_RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(XVLA_RECIPES)}")
    return XVLA_RECIPES[name](domains)


# Shares of the samples as published (2toinf/X-VLA, datasets/domain_config.py, commit 7a6c08a); by episodes the mixture
# is 290 thousand: AgiBot 48.8 %, DROID 31.6 %, RoboMind 19.9 %.
PRETRAINING_WEIGHTS = {
    "robomind_franka": 0.10,
    "robomind_ur": 0.10,
    "droid_left": 0.15,
    "droid_right": 0.15,
    "agibot": 0.40,
    "robomind_agilex": 0.07,
    "robomind_franka_dual": 0.03,
}


def xvla_pretrain() -> Training:
    """Phase I of the paper: everything moves, seven platforms in one space, 200 thousand steps of 1024 samples."""
    sources = tuple(Source(n, n, PUBLISHED_IDS[n], "ee6d", weight) for n, weight in PRETRAINING_WEIGHTS.items())
    return Training("released", sources=sources, steps=200_000, batch=1024, warmup_steps=2000)


def xvla_pretrain_tiny() -> Training:
    """Phase I for one CPU core, on whatever robots are given."""
    return Training("tiny", steps=2000, batch=16, learning_rate=1e-3, pretrained_scale=1.0)


def xvla_adapt() -> Training:
    """Phase II of the authors' code: 1000 steps of prompt and action layers, then everything."""
    return Training("released", steps=50_000, batch=16, warmup_steps=2000, hold_steps=1000, prompt_scale=0.1)


def xvla_adapt_tiny() -> Training:
    """Phase II for one CPU core."""
    return Training("tiny", steps=1000, batch=16, learning_rate=1e-3, warmup_steps=50, hold_steps=300)


def xvla_lora() -> Training:
    """Adapters of rank 8 on all shared layers, prompt and action layers whole: nine million numbers."""
    return Training("released", "lora", steps=50_000, batch=16, warmup_steps=2000, prompt_scale=0.1)


def xvla_lora_tiny() -> Training:
    """Adapters for one CPU core."""
    return Training("tiny", "lora", steps=1000, batch=16, learning_rate=1e-3, warmup_steps=50, lora_rank=4)


_TRAININGS = (xvla_pretrain, xvla_pretrain_tiny, xvla_adapt, xvla_adapt_tiny, xvla_lora, xvla_lora_tiny)
TRAINING_RECIPES = {recipe.__name__: recipe for recipe in _TRAININGS}


def get_training_recipe(name: str) -> Training:
    """Return a training recipe by its name. Raises ValueError listing the known names."""
    if name not in TRAINING_RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(TRAINING_RECIPES)}")
    return TRAINING_RECIPES[name]()
