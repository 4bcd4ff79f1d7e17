"""One row of a protocol's table: a `Cell` says what to run and measure; `score` runs it and returns the `Row`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wbvla.lmo.bench.draw import Plan, Setting, steps_of
from wbvla.lmo.bench.metrics import common, interval
from wbvla.lmo.bench.plant import Plant
from wbvla.lmo.bench.play import Guide, Trace, play
from wbvla.lmo.bench.policy import Policy

BATCH = 128  # worlds side by side; no figure depends on it

Measures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One row.

    Attributes:
        name: its name in table and JSON.
        worlds: how many robots, unless the user wants another number.
        seconds: length of an episode.
        draw: makes one world's plan from its own random generator.
        measure: figures beyond the common ones, (n,) each, from a trace.
        guide: makes the commander of a batch where commands depend on the robot's place; its `figures()` are added.
        needs_height: skip the row for policies without a height command.
        height_m: the height that the row asks for; it is skipped for robots that cannot stand so tall.
    """

    name: str
    worlds: int
    seconds: float
    draw: Callable[[np.random.Generator, Setting], Plan]
    measure: Callable[[Trace], Measures] = lambda trace: {}
    guide: Callable[[Setting, int], Guide] | None = None
    needs_height: bool = False
    height_m: float = 0.0


@dataclass
class Row:
    """A scored cell: one number a world for every figure, NaN where it has no meaning."""

    name: str
    worlds: int
    seconds: float
    values: Measures = field(default_factory=dict)

    @property
    def survived(self) -> int:
        """Worlds that did not fall."""
        return int(self.values["survival"].sum())

    def mean(self, figure: str) -> float | None:
        """Return the mean over worlds, None if no world has the figure."""
        return mean(self.values[figure])

    def facts(self) -> dict:
        """Return the row as JSON types: survival with its interval; mean and standard deviation of the others."""
        low, high = interval(self.survived, self.worlds)
        out = {"name": self.name, "worlds": self.worlds, "seconds": self.seconds, "survived": self.survived}
        out |= {"survival": self.survived / self.worlds, "survival_90": [round(low, 6), round(high, 6)]}
        for figure, x in self.values.items():
            if figure != "survival":
                out[figure] = {"mean": mean(x), "std": spread(x), "n": int(np.isfinite(x).sum())}
        return out


def mean(x: np.ndarray) -> float | None:
    """Return the mean of the finite values, None without any."""
    x = x[np.isfinite(x)]
    return round(float(x.mean()), 9) if len(x) else None


def spread(x: np.ndarray) -> float | None:
    """Return the standard deviation of the finite values, None without any."""
    x = x[np.isfinite(x)]
    return round(float(x.std()), 9) if len(x) else None


def pooled(rows: list[Row], figure: str) -> float | None:
    """Return the mean of a figure over all worlds of several rows."""
    return mean(np.concatenate([row.values[figure] for row in rows])) if rows else None


def score(cell: Cell, plant: Plant, policy: Policy, setting: Setting, seed: int, worlds: int = 0,
          advance: Callable[[int], None] = lambda n: None, batch: int = BATCH) -> Row:  # fmt: skip
    """Run a cell. World i draws from the seed pair (seed, i), in every cell and for every policy alike."""
    n = worlds or cell.worlds
    row, parts = Row(cell.name, n, cell.seconds), []
    for start in range(0, n, batch):
        generators = [np.random.default_rng((seed, i)) for i in range(start, min(n, start + batch))]
        plans = [cell.draw(rng, setting) for rng in generators]
        guide = cell.guide(setting, len(plans)) if cell.guide else None
        trace = play(plant, policy, plans, guide, advance)
        values = common(trace) | cell.measure(trace)
        parts.append(values | (guide.figures() if guide else {}))
        if not policy.interface.follows_height:
            parts[-1]["height_error_m"] = np.full(len(plans), np.nan)
    row.values = {figure: np.concatenate([part[figure] for part in parts]) for figure in parts[0]}
    return row


def world_steps(cells: list[Cell], worlds: int) -> int:
    """Return the simulated steps of 20 ms of all worlds of some cells."""
    return sum((worlds or cell.worlds) * steps_of(cell.seconds) for cell in cells)
