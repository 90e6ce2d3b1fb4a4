"""The no-op row as a bar chart, in SVG, for the README."""

from __future__ import annotations

from html import escape

from bench.results import RowResult

WIDTH, BAR, GAP, LABELS, TOP = 760, 22, 10, 250, 44
OURS, CEILING, OTHERS = "#2563eb", "#9ca3af", "#f59e0b"
STYLE = "font-family:system-ui,sans-serif;font-size:13px"


def bars(result: RowResult, caption: str) -> str:
    """Each contestant's median of the row's first metric, the best first."""
    metric = result.row.metrics[0]
    medians = {
        contestant: value
        for contestant in result.row.contestants
        if (value := result.median(contestant.key, metric.name)) is not None
    }
    ordered = sorted(medians.items(), key=lambda pair: -pair[1])
    longest = max(medians.values(), default=1.0)
    height = TOP + len(ordered) * (BAR + GAP) + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" style="{STYLE}" role="img">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, f"{result.row.title}: {metric.unit}", weight="bold"),
    ]
    for number, (contestant, value) in enumerate(ordered):
        y = TOP + number * (BAR + GAP)
        colour = (
            OURS if contestant.key == result.row.ours else CEILING if contestant.key == "stub" else OTHERS
        )
        length = max(2.0, (WIDTH - LABELS - 90) * value / longest)
        parts += [
            _text(LABELS - 8, y + 16, contestant.title, anchor="end"),
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
            _text(LABELS + length + 6, y + 16, f"{value:,.0f}"),
        ]
    parts += [_text(12, height - 10, caption, size=11), "</svg>"]
    return "\n".join(parts) + "\n"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 13
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" fill="#111827"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
