"""Laws of the Wilson interval: known values, the defining equation, symmetry, monotony."""

import math
from statistics import NormalDist

import pytest

from wbvla.evaluation.statistics import separated, wilson


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
        (81, 263, 0.95, 0.2553, 0.3662),
        (15, 148, 0.95, 0.0624, 0.1605),
        (0, 20, 0.95, 0.0, 0.1611),
        (1, 29, 0.95, 0.0061, 0.1718),
    ],
)
def test_published_values(successes, n, confidence, low, high):
    rate = wilson(successes, n, confidence)
    assert rate.low == pytest.approx(low, abs=6e-5)
    assert rate.high == pytest.approx(high, abs=6e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 30), (18, 30), (29, 30), (61, 100)])
def test_ends_solve_the_defining_equation(successes, n):
    rate = wilson(successes, n)
    z = NormalDist().inv_cdf(0.95)
    for end in (rate.low, rate.high):
        assert abs(rate.rate - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-9)


def test_failures_mirror_successes():
    a, b = wilson(7, 30), wilson(23, 30)
    assert a.low == pytest.approx(1 - b.high)
    assert a.high == pytest.approx(1 - b.low)


def test_edges():
    assert wilson(0, 30).low == 0.0
    assert wilson(30, 30).high == 1.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_more_trials_narrow_the_interval():
    widths = [wilson(n // 2, n).high - wilson(n // 2, n).low for n in (10, 30, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


def test_separated_needs_a_gap():
    assert separated(wilson(25, 30), wilson(2, 30))
    assert not separated(wilson(18, 30), wilson(15, 30))
    assert not separated(wilson(2, 30), wilson(25, 30))


@pytest.mark.parametrize(("successes", "n", "confidence"), [(-1, 3, 0.9), (4, 3, 0.9), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_input_is_refused(successes, n, confidence):
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, n, confidence)
