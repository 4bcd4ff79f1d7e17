"""LeRobot processors of X-VLA. In: its configuration. Out: LeRobot's default pipelines.

The policy scales images, reads sentences and normalises by itself, so nothing is done twice, in lerobot-eval either.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig


def make_xvla_wb_pre_post_processors(
    config: XvlaWbConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """Return the pre- and post-processing pipelines; LeRobot calls this by its name."""
    return make_default_pre_post_processors(config, dataset_stats, normalizer_device=config.device)
