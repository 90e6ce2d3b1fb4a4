"""Charts as data: for the chart library, and as the path of a picture for a browser without scripts. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypedDict

Points = Sequence[tuple[int, float]]
WIDTH, HEIGHT = 320, 64


class Line(TypedDict):
    """A line of a chart; ``path`` is its ``d`` of an SVG path."""

    label: str
    values: list[float | None]
    path: str
    last: float | None


class Chart(TypedDict):
    """A chart over time. ``unit`` is one of rate, s, bytes, share and count."""

    title: str
    unit: str
    at_ms: list[int]
    lines: list[Line]
    peak: float


def chart(title: str, unit: str, series: Sequence[tuple[str, Points]]) -> Chart:
    """A chart of some series, which need not have samples of the same times.

    Parameters:
      series: The label and the points of each line.
    """
    at_ms = sorted({at for _, points in series for at, _ in points})
    peak = max((value for _, points in series for _, value in points), default=0.0)
    lines = []
    for label, points in series:
        known = dict(points)
        values = [known.get(at) for at in at_ms]
        last = points[-1][1] if points else None
        lines.append(Line(label=label, values=values, path=_path(at_ms, values, peak), last=last))
    return Chart(title=title, unit=unit, at_ms=at_ms, lines=lines, peak=peak)


def _path(at_ms: Sequence[int], values: Sequence[float | None], peak: float) -> str:
    if len(at_ms) < 2:
        return ""
    begin, span = at_ms[0], at_ms[-1] - at_ms[0]
    steps: list[str] = []
    is_down = False
    for at, value in zip(at_ms, values, strict=True):
        if value is None:
            is_down = False
            continue
        x = (at - begin) / span * WIDTH
        y = HEIGHT - 2 - (value / peak if peak else 0.0) * (HEIGHT - 4)
        steps.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
        is_down = True
    return "".join(steps)


def data_of(one: Chart) -> str:
    """The data of the chart library, as JSON: seconds since 1970, and the values of each line."""
    return json.dumps(
        {
            "title": one["title"],
            "unit": one["unit"],
            "labels": [line["label"] for line in one["lines"]],
            "data": [[at / 1000 for at in one["at_ms"]], *(line["values"] for line in one["lines"])],
        }
    )
