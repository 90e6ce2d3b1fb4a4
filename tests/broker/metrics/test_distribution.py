"""Durations of reports in the buckets of Prometheus."""

from __future__ import annotations

import math
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from broker.metrics.distribution import BOUNDS_S, Distribution
from broker.reports.histogram import DurationCounter, Histogram

durations = st.lists(st.floats(0.0, 1e6), max_size=50)


def counted(durations_s: list[float]) -> Histogram:
    counter = DurationCounter()
    for duration_s in durations_s:
        counter.add(duration_s)
    return counter.read()


@given(durations)
def test_a_bucket_has_the_durations_up_to_its_bound(durations_s: list[float]) -> None:
    distribution = Distribution()
    distribution.add(counted(durations_s), None)
    for bound_s, count in distribution.cumulative():
        # A duration that lies on a bound is on either side of it.
        below, up_to = (sum(d < bound_s * edge for d in durations_s) for edge in (1 - 1e-9, 1 + 1e-9))
        assert below <= count <= up_to
    assert math.isclose(distribution.sum_s, sum(durations_s))


@given(durations, durations)
def test_only_what_is_new_in_a_histogram_is_added(before_s: list[float], since_s: list[float]) -> None:
    distribution, expected = Distribution(), Distribution()
    distribution.add(counted(before_s + since_s), counted(before_s))
    expected.add(counted(since_s), None)
    assert distribution.counts == expected.counts


def test_bounds_are_in_the_unit_of_the_metric() -> None:
    distribution = Distribution()
    distribution.add(counted([0.3]), None)
    (bound_ms,) = [b for b, count in distribution.cumulative(unit_s=0.001) if count == 1][:1]
    assert bound_ms == 1000 * BOUNDS_S[bisect_left(BOUNDS_S, 0.3)] == 500.0
