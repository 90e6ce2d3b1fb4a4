"""How rounds become ratios and verdicts."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from bench.command import exit_code
from bench.ground import Ground
from bench.picture import bars
from bench.results import RowResult
from bench.row import Contestant, Measured, Metric, Row, Target, percentile
from bench.sizes import SMOKE, Sizes
from bench.table import row_table

RATE = Metric("rate", "tasks/s")
LATENCY = Metric("latency", "ms", better="less", digits=1)


class _Row(Row):
    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks} tasks"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        raise NotImplementedError


def row_result(*targets: Target, rounds: list[dict[str, Measured]]) -> RowResult:
    contestants = [Contestant("kafka", "ours"), Contestant("a", "A & B"), Contestant("b", "B")]
    row = _Row("row", "Row", contestants, [RATE, LATENCY], targets)
    return RowResult(row, SMOKE, rounds=rounds)


ROUNDS: list[dict[str, Measured]] = [
    {"kafka": {"rate": 100, "latency": 2}, "a": {"rate": 50, "latency": 8}, "b": {"rate": 20, "latency": 4}},
    # A round in which the machine was busy: all are slower, and the ratios are what they were.
    {"kafka": {"rate": 10, "latency": 20}, "a": {"rate": 5, "latency": 80}, "b": {"rate": 2, "latency": 40}},
]


def test_ratios_are_taken_within_each_round() -> None:
    assert row_result(rounds=ROUNDS).ratios("a", RATE) == [2, 2]


def test_less_is_better_turns_the_ratio_round() -> None:
    assert row_result(rounds=ROUNDS).ratio("a", LATENCY) == 4


def test_a_target_is_held_against_the_best_of_its_peers() -> None:
    faster, slower = Target("rate", ("a", "b"), at_least=2), Target("latency", ("a", "b"), 3)
    reached, missed = row_result(faster, slower, rounds=ROUNDS).verdicts()
    assert (reached.hardest, reached.ratio, reached.reached) == ("a", 2, True)
    assert (missed.hardest, missed.ratio, missed.reached) == ("b", 2, False)


def test_a_ratio_far_below_its_target_ends_the_bench_well() -> None:
    result = row_result(Target("rate", ("a",), at_least=400), rounds=ROUNDS)
    (verdict,) = result.verdicts()
    assert not verdict.reached
    assert exit_code([result]) == 0


def test_a_figure_that_is_lacking_ends_the_bench_with_an_error_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one_failed = [{**ROUNDS[0], "b": {"rate": 20.0, "latency": math.nan}}]
    assert exit_code([row_result(rounds=one_failed)]) == 1
    assert "row: no figure for b: ms" in capsys.readouterr().err
    assert exit_code([row_result(rounds=[])]) == 1


def test_a_peer_that_is_not_there_decides_nothing_and_is_named() -> None:
    result = row_result(Target("rate", ("a",), at_least=4), rounds=[{"kafka": ROUNDS[0]["kafka"]}])
    result.left_out["a"] = "its server is not installed"
    (verdict,) = result.verdicts()
    assert verdict.ratio is None
    assert not verdict.reached
    assert "left out: A & B: its server is not installed" in row_table(result)


def test_the_picture_is_well_formed_and_shows_every_contestant() -> None:
    texts = [text.text for text in ElementTree.fromstring(bars(row_result(rounds=ROUNDS), "a < b")).iter()]
    assert {"ours", "A & B", "B", "a < b"} <= set(texts)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.75, 3), (0.99, 4), (0.01, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([4, 2, 1, 3], share) == expected
