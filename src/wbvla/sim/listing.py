"""`wbvla tasks`: every task with its sentence, subgoals and axes of variation.

In: a `ListTasks` configuration. Out: text, and the same as JSON. `choose_tasks` reads the --task of other verbs.
"""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ListTasks:
    """The tasks of the simulated world.

    Attributes:
        json: file for the same facts.
    """

    json: str | None = None


def run(cfg: ListTasks) -> dict[str, Any]:
    """Print all tasks and return their facts by name."""
    from wbvla.sim.tasks import TASKS, get_task

    facts = {name: describe(get_task(name)) for name in TASKS}
    for name, task in facts.items():
        paper = {ours: theirs for theirs, ours in task["paper"].items()}
        goals = (f"{goal} (the paper's {paper[goal]})" if goal in paper else goal for goal in task["subgoals"])
        print(f"{name}: {task['text']}\n  subgoals: {', '.join(goals)}; at most {task['time_limit_s']:.0f} s")
        for axis, ranges in task["axes"].items():
            unseen = ", ".join(_interval(pair) for pair in ranges["unseen"])
            print(f"  {axis:<16} trained {_interval(ranges['trained'])}, unseen {unseen}")
    if cfg.json is not None:
        Path(cfg.json).write_text(json_module.dumps(facts, indent=1) + "\n")
    return facts


def choose_tasks(names: str) -> tuple[str, ...]:
    """Return the tasks of "NAME", "NAME,NAME" or "all". Raises ValueError on an unknown or a repeated one."""
    from wbvla.sim.tasks import TASKS

    chosen = TASKS if names == "all" else tuple(name.strip() for name in names.split(","))
    if not set(chosen) <= set(TASKS) or len(set(chosen)) < len(chosen):
        raise ValueError(f"task: got {names!r}, expected all, or some of {', '.join(TASKS)} with commas between")
    return chosen


def describe(task) -> dict[str, Any]:
    """Return what can be known of a task without simulating it."""
    axes = {name: {"trained": list(a.trained), "unseen": [list(i) for i in a.unseen]} for name, a in task.axes.items()}
    return {
        "text": task.text,
        "subgoals": list(task.subgoals),
        "paper": dict(task.paper),
        "time_limit_s": task.time_limit_s,
        "axes": axes,
    }


def _interval(pair) -> str:
    return f"{pair[0]:.2f} to {pair[1]:.2f}"
