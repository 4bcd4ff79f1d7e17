"""Recipes of latent action models. In: nothing. Out: frozen configurations."""

from __future__ import annotations

from collections.abc import Callable

from wbvla.lam.config import FeatureConfig, LamRecipe, ModelConfig


def lam_tiny() -> LamRecipe:
    """One minute on one CPU core: 96 px, a 6 x 6 grid of 64 features, 4 codes from a book of 16 (UniVLA's 4 x 16)."""
    return LamRecipe(
        name="tiny",
        features=FeatureConfig(image_size=96, patch_px=16, dim=64),
        model=ModelConfig(
            width=64, heads=4, encoder_blocks=2, decoder_blocks=2, n_codes=4, codebook_size=16, code_dim=32
        ),
        steps=800,
        batch=32,
        learning_rate=1e-3,
        weight_decay=1e-2,
        warmup_steps=50,
        clip_norm=1.0,
        restart_every=25,
        restart_share=0.1,
    )


RECIPES: dict[str, Callable[[], LamRecipe]] = {"tiny": lam_tiny}


def get_lam_recipe(name: str) -> LamRecipe:
    """Return a recipe by name. Raises ValueError listing the names."""
    if name not in RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
