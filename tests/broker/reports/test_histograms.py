"""Histograms: each duration is in the bucket whose bounds enclose it, and sums lose nothing."""

from __future__ import annotations

import math
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.reports.histogram import BASE, BUCKET_COUNT, UPPER_BOUNDS_S, Histogram

durations_s = st.floats(0.0, 10_000_000.0, allow_nan=False)


def histogram_of(found_s: list[float]) -> Histogram:
    slots = [0] * BUCKET_COUNT
    for duration_s in found_s:
        slots[bisect_right(UPPER_BOUNDS_S, duration_s)] += 1
    return Histogram.of_slots(slots, sum(found_s))


@given(st.floats(2e-6, 1_000_000.0))
def test_a_bucket_holds_the_durations_between_its_bounds(duration_s: float) -> None:
    histogram = histogram_of([duration_s])
    assert histogram.counts == (1,)
    bucket = histogram.first_bucket
    assert BASE**bucket * 0.999999 <= duration_s <= BASE ** (bucket + 1) * 1.000001


@given(st.lists(durations_s, max_size=50), st.lists(durations_s, max_size=50))
def test_the_sum_of_two_histograms_is_the_histogram_of_all_durations(
    one: list[float], other: list[float]
) -> None:
    added, whole = histogram_of(one) + histogram_of(other), histogram_of(one + other)
    assert added.count == whole.count
    assert added.sum_s == pytest.approx(whole.sum_s)
    if whole.counts:
        assert (added.first_bucket, added.counts) == (whole.first_bucket, whole.counts)


@given(st.lists(st.floats(1e-5, 100_000.0), min_size=1, max_size=100), st.floats(0.0, 1.0))
def test_a_quantile_is_off_by_a_fifth_at_most(found_s: list[float], share: float) -> None:
    estimate_s = histogram_of(found_s).quantile_s(share)
    exact_s = sorted(found_s)[max(1, math.ceil(share * len(found_s))) - 1]
    assert estimate_s is not None
    assert exact_s / 1.2 <= estimate_s <= exact_s * 1.2


def test_a_histogram_without_durations_has_no_quantile_and_no_mean() -> None:
    assert Histogram().quantile_s(0.5) is None
    assert Histogram().mean_s is None
    assert Histogram() + Histogram() == Histogram()
