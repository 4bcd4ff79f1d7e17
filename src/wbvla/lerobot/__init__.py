"""Registration with LeRobot. In: nothing. Out: types for lerobot's commands: policies `wholebodyvla` and `xvla_wb`,
environment `wbvla`, robot `wbvla_sim`, teleoperator `wbvla_operator`.

LeRobot finds a policy's modules by rewriting its configuration's name (configuration_ to modeling_ and processor_), a
robot's or teleoperator's by leaving out config_; it imports this package at every start of its commands: only
configurations are imported here.
"""

from wbvla.lerobot.config_wbvla_operator import WbvlaOperatorConfig
from wbvla.lerobot.config_wbvla_sim import WbvlaSimConfig
from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig
from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
from wbvla.lerobot.environment import WbvlaEnvConfig

__all__ = ["WbvlaEnvConfig", "WbvlaOperatorConfig", "WbvlaSimConfig", "WholeBodyVLAConfig", "XvlaWbConfig"]
