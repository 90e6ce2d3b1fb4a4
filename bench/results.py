"""The measurements of each round, and the verdicts about the targets."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from bench.row import Measured, Metric, Row, Target
from bench.sizes import Sizes


@dataclass
class RowResult:
    """The rounds of one row.

    Attributes:
      rounds: For each round, the measurement of each contestant, by its key.
      left_out: Contestants that were not measured, or not to the end, each with the reason.
      failed: Those of them whose requirements were present, each with the reason.
      load: The machine's load average (1 minute) before each measurement.
    """

    row: Row
    sizes: Sizes
    rounds: list[dict[str, Measured]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)

    def values(self, key: str, metric: str) -> list[float]:
        return [measured[key][metric] for measured in self.rounds if key in measured]

    def median(self, key: str, metric: str) -> float | None:
        values = self.values(key, metric)
        return statistics.median(values) if values else None

    def ratios(self, key: str, metric: Metric) -> list[float]:
        """This broker's result as a multiple of the result of contestant `key`, in each round that has both.

        Within a round, because the other load of the machine changes from round to round.
        """
        pairs = [
            (measured[self.row.ours][metric.name], measured[key][metric.name])
            for measured in self.rounds
            if key in measured and self.row.ours in measured
        ]
        return [_times_as_good(metric, ours, theirs) for ours, theirs in pairs]

    def ratio(self, key: str, metric: Metric) -> float | None:
        ratios = self.ratios(key, metric)
        return statistics.median(ratios) if ratios else None

    def lacking(self) -> list[str]:
        """Name the missing figures: those of all contestants, when no contestant was measured."""
        if not any(self.rounds):
            return ["any contestant"]
        return [
            f"{key}: {metric.unit}"
            for measured in self.rounds
            for key in measured
            for metric in self.row.metrics
            if not math.isfinite(measured[key][metric.name])
        ]

    def verdicts(self) -> list[Verdict]:
        return [self._verdict(target) for target in self.row.targets]

    def _verdict(self, target: Target) -> Verdict:
        metric = next(metric for metric in self.row.metrics if metric.name == target.metric)
        ratios = {key: ratio for key in target.against if (ratio := self.ratio(key, metric)) is not None}
        hardest = min(ratios, key=lambda key: ratios[key], default=None)
        return Verdict(metric, target, hardest, ratios[hardest] if hardest else None)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "title": self.row.title,
            "work": self.row.work(self.sizes),
            "ours": self.row.ours,
            "rounds": self.rounds,
            "medians": {
                contestant.key: {
                    metric.name: self.median(contestant.key, metric.name) for metric in self.row.metrics
                }
                for contestant in self.row.contestants
                if contestant.key not in self.left_out
            },
            "left_out": self.left_out,
            "load_average": self.load,
            "targets": [verdict.as_json() for verdict in self.verdicts()],
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one target.

    Attributes:
      hardest: The key of the best contestant of the target; None when none of them was measured.
      ratio: This broker's result as a multiple of that contestant's, the median over the rounds.
    """

    metric: Metric
    target: Target
    hardest: str | None
    ratio: float | None

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.ratio >= self.target.at_least

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric.name,
            "against": list(self.target.against),
            "hardest": self.hardest,
            "at_least": self.target.at_least,
            "ratio": self.ratio,
            "reached": self.reached,
        }


def _times_as_good(metric: Metric, ours: float, theirs: float) -> float:
    good, reference = (ours, theirs) if metric.better == "more" else (theirs, ours)
    return good / reference if reference else float("inf")
