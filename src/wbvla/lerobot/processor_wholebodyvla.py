"""LeRobot processors of the VLA. In: its configuration. Out: LeRobot's default pipelines.

The model normalises by itself (its statistics travel in its weights), so every mode is IDENTITY; the steps stay because
lerobot-train addresses them by name when it resumes.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig


def make_wholebodyvla_pre_post_processors(
    config: WholeBodyVLAConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """Return the pre- and post-processing pipelines; LeRobot calls this by its name."""
    return make_default_pre_post_processors(config, dataset_stats, normalizer_device=config.device)
