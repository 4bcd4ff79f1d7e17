"""The scripted operator: sees the privileged state, speaks only what a human teleoperator could.

In: a task's state at 20 Hz. Out: WholeBodyAction: arm targets on smooth paths, flags that hold for 0.3 s or more.
"""

from __future__ import annotations

import numpy as np


def get_operator(task, robot, rng: np.random.Generator, sloppiness: float = 0.0):
    """Return the operator of a task: `reset(rng)` begins an episode, `act(state)` gives the action for 50 ms.

    Args:
        task: of wbvla.sim.tasks.
        robot: with whom.
        rng: draws the small differences between one demonstration and the next.
        sloppiness: from 0 to 1, see wbvla.sim.operator.sloppy.
    """
    from wbvla.sim.operator.carry import CarryOperator
    from wbvla.sim.operator.cart import CartOperator
    from wbvla.sim.operator.sloppy import SloppyOperator

    operator = (CartOperator if task.name == "cart-pushing" else CarryOperator)(robot, rng)
    return SloppyOperator(operator, robot, sloppiness, rng) if sloppiness else operator
