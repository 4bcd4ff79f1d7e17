"""Intervals for success rates. In: successes out of n trials. Out: Wilson score intervals and comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Rate:
    """A success rate with its Wilson interval; all three in [0, 1]."""

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.rate:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def wilson(successes: int, n: int, confidence: float = 0.9) -> Rate:
    """Return the two-sided Wilson score interval of a binomial proportion.

    The set of p for which |p_hat - p| <= z sqrt(p (1 - p) / n) (Wilson, 1927, without continuity correction). With
    n = 0 nothing is known: rate NaN, interval [0, 1].

    Raises:
        ValueError: successes outside 0..n, or a confidence outside (0, 1).
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson: got {successes} successes of {n} trials, expected 0 <= successes <= trials")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: got {confidence}, expected a number between 0 and 1, for example 0.9")
    if n == 0:
        return Rate(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    scale = 1.0 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n successes the formula gives exactly 0 and 1; rounding must not move them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Rate(p, low, high)


def separated(a: Rate, b: Rate) -> bool:
    """Return True when interval `a` lies entirely above interval `b`."""
    return a.low > b.high
