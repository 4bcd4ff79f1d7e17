"""The two-rate runtime: a policy server (about 10 Hz) and a robot's fast loop (50 Hz) with sockets between them.

In: observations from a robot adapter. Out: joint targets for it, and a report of timing and decisions.
Imports neither torch, lerobot nor mujoco: the robot's small computer runs it with the base dependencies.
"""

from wbvla.runtime.chunk import ChunkPlayer
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.loop import FastLoop, RobotAdapter
from wbvla.runtime.server import PolicyServer

__all__ = ["ChunkPlayer", "FastLoop", "PolicyClient", "PolicyServer", "RobotAdapter"]
