"""Draws the picture of an evaluation: predicted probabilities against observed shares."""

from collections.abc import Mapping, Sequence
from typing import Any


def reliability_svg(bins: Sequence[Mapping[str, Any]], size: int = 360, margin: int = 48) -> str:
    """Draw predicted against observed shares; a point's area goes with its number of ads."""
    scale = size - 2 * margin
    most = max(item["ads"] for item in bins)

    def x(value: float) -> float:
        return round(margin + value * scale, 1)

    def y(value: float) -> float:
        return round(size - margin - value * scale, 1)

    ticks = [number / 5 for number in range(6)]
    points = [(item["mean_probability"], item["share_of_violations"], item["ads"]) for item in bins]
    path = " ".join(f"{x(mean)},{y(share)}" for mean, share, _ in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
        *(
            f'<line x1="{x(t)}" y1="{y(0)}" x2="{x(t)}" y2="{y(1)}" stroke="#eee"/>'
            f'<line x1="{x(0)}" y1="{y(t)}" x2="{x(1)}" y2="{y(t)}" stroke="#eee"/>'
            f'<text x="{x(t)}" y="{size - margin + 16}" text-anchor="middle">{t:.1f}</text>'
            f'<text x="{margin - 8}" y="{y(t) + 4}" text-anchor="end">{t:.1f}</text>'
            for t in ticks
        ),
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#999" stroke-dasharray="4 3"/>',
        f'<polyline points="{path}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>',
        *(
            f'<circle cx="{x(mean)}" cy="{y(share)}" r="{2 + 7 * (ads / most) ** 0.5:.1f}" '
            'fill="#1f6feb" fill-opacity="0.6"/>'
            for mean, share, ads in points
        ),
        f'<text x="{size / 2}" y="{size - 10}" text-anchor="middle">mean probability</text>',
        f'<text x="14" y="{size / 2}" text-anchor="middle" transform="rotate(-90 14 {size / 2})">'
        "share of violations</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
