"""The tasks by name. In: "cart-pushing". Out: a Task: scene, start distribution, privileged state, rules."""

from __future__ import annotations

TASKS = ("cart-pushing",)


def get_task(name: str):
    """Return a new task. Raises ValueError naming the known ones."""
    if name == "cart-pushing":
        from wbvla.sim.tasks.cart_pushing import CartPushing

        return CartPushing()
    raise ValueError(f"task: got {name!r}, expected one of {', '.join(TASKS)}")
