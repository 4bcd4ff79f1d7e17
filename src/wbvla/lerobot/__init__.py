"""Registration with LeRobot. In: nothing. Out: policy types `wholebodyvla` and `xvla_wb` in lerobot's commands.

LeRobot finds the policy's modules by rewriting the configuration's name (configuration_ to modeling_ and processor_),
and imports this package at every start of its commands: only the configuration is imported here.
"""

from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig
from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig

__all__ = ["WholeBodyVLAConfig", "XvlaWbConfig"]
