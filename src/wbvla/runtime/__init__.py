"""The two-rate runtime: a policy server (about 10 Hz) and a robot's fast loop (50 Hz) with sockets between them.

In: observations from a robot adapter. Out: joint targets for it, and a report of timing and decisions.
Imports neither torch, lerobot nor mujoco: the robot's small computer runs it with the base dependencies.
"""

from importlib import import_module

_HOME = {
    "ChunkPlayer": "chunk",
    "FastLoop": "loop",
    "PolicyClient": "client",
    "PolicyServer": "server",
    "RobotAdapter": "loop",
}
__all__ = ["ChunkPlayer", "FastLoop", "PolicyClient", "PolicyServer", "RobotAdapter"]


def __getattr__(name: str):
    """Import a name when it is first used: the command line reads the stages' settings without the sockets."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
