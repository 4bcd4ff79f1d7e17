"""LeRobot configuration of the operator. In: `--teleop.*` flags. Out: `WbvlaOperatorConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.teleoperators.config import TeleoperatorConfig


@TeleoperatorConfig.register_subclass("wbvla_operator")
@dataclass(kw_only=True)
class WbvlaOperatorConfig(TeleoperatorConfig):
    """The scripted operator, for a `wbvla_sim` in the same process; it acts 20 times a second (--dataset.fps=20)."""
