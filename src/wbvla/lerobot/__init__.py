"""Registration with LeRobot. In: nothing. Out: policy type `wholebodyvla` in lerobot-train, -eval and -rollout.

LeRobot finds the policy's modules by rewriting the configuration's name (configuration_ to modeling_ and processor_),
and imports this package at every start of its commands: only the configuration is imported here.
"""

from wbvla.lerobot.configuration_wholebodyvla import WholeBodyVLAConfig

__all__ = ["WholeBodyVLAConfig"]
