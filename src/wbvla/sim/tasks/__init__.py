"""The tasks by name. In: "box-loading". Out: a Task: scene, variation, privileged state, rules."""

from __future__ import annotations

TASKS = ("bag-packing", "box-loading", "cart-pushing")


def get_task(name: str):
    """Return a new task. Raises ValueError naming the known ones."""
    if name == "bag-packing":
        from wbvla.sim.tasks.bag_packing import BagPacking

        return BagPacking()
    if name == "box-loading":
        from wbvla.sim.tasks.box_loading import BoxLoading

        return BoxLoading()
    if name == "cart-pushing":
        from wbvla.sim.tasks.cart_pushing import CartPushing

        return CartPushing()
    raise ValueError(f"task: got {name!r}, expected one of {', '.join(TASKS)}")
