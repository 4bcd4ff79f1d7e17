"""VLA recipes. In: nothing. Out: one complete `VlaConfig` each."""

from __future__ import annotations

from wbvla.vla.config import VlaConfig


def vla_tiny() -> VlaConfig:
    """One million parameters at 96 px: trains in minutes and answers in milliseconds on one CPU core."""
    return VlaConfig()


VLA_RECIPES = {"tiny": vla_tiny}


def get_vla_recipe(name: str) -> VlaConfig:
    """Return a recipe by its name. Raises ValueError listing the known names."""
    if name not in VLA_RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(VLA_RECIPES)}")
    return VLA_RECIPES[name]()
