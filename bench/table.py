"""The results as a table for people, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from bench.results import RowResult, Verdict
from bench.row import Metric


def row_table(result: RowResult) -> str:
    """One row's heading, its contestants, its verdicts and its omissions."""
    row = result.row
    first, *others = row.metrics
    head = [
        row.work(result.sizes),
        f"{first.unit}, median",
        "spread",
        "this broker",
        *(m.unit for m in others),
    ]
    lines = [_line(head), _line(["---", *("---:" for _ in head[1:])])]
    for contestant in row.contestants:
        values = result.values(contestant.key, first.name)
        if not values:
            continue
        ratio = result.ratio(contestant.key, first)
        lines.append(
            _line(
                [
                    contestant.title,
                    _number(statistics.median(values), first),
                    f"{_number(min(values), first)} - {_number(max(values), first)}",
                    "" if contestant.key == row.ours or ratio is None else f"{ratio:.2f}x",
                    *(_number(result.median(contestant.key, metric.name), metric) for metric in others),
                ]
            )
        )
    notes = [f"- {_sentence(result, verdict)}" for verdict in result.verdicts()]
    notes += [f"- left out: {_title(result, key)}: {why}" for key, why in result.left_out.items()]
    return "\n".join([f"### {row.title} (`{row.name}`)", "", *lines, *_block(notes)])


def durability_table(titles: Iterable[tuple[str, str]]) -> str:
    lines = [_line(["system", "what is promised"]), _line(["---", "---"])]
    return "\n".join([*lines, *(_line(pair) for pair in titles)])


def _sentence(result: RowResult, verdict: Verdict) -> str:
    goal = f"{verdict.metric.unit}: at least {verdict.target.at_least:g}x"
    if verdict.hardest is None or verdict.ratio is None:
        return f"{goal}: nothing was measured to compare with"
    word = "reached" if verdict.reached else "MISSED"
    return f"{goal} the best of these, {_title(result, verdict.hardest)}: {verdict.ratio:.2f}x, {word}"


def _title(result: RowResult, key: str) -> str:
    return next((c.title for c in result.row.contestants if c.key == key), key)


def _number(value: float | None, metric: Metric) -> str:
    return "" if value is None else f"{value:,.{metric.digits}f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _block(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []
