"""X-VLA recipes. In: the robots. Out: one complete `XvlaConfig` each."""

from __future__ import annotations

from wbvla.xvla.config import Domain, XvlaConfig

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


def xvla_released(domains: dict[str, Domain]) -> XvlaConfig:
    """The size of the released weights, with attention that can be cached: 0.88 billion parameters."""
    return XvlaConfig(domains=domains, florence=FLORENCE_LARGE, attention="prefix")


XVLA_RECIPES = {"tiny": xvla_tiny, "released": xvla_released}


def get_xvla_recipe(name: str, domains: dict[str, Domain]) -> XvlaConfig:
    """Return a recipe by its name. Raises ValueError listing the known names."""
    if name not in XVLA_RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(XVLA_RECIPES)}")
    return XVLA_RECIPES[name](domains)
