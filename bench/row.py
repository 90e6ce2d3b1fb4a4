"""What a row of the table is: some work, who does it, what is measured, and what is aimed at."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bench.ground import Ground
from bench.sizes import Sizes
from bench.systems import BY_KEY

#: What a contestant was measured to do, by the names of metrics.
Measured = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a row.

    Attributes:
      better: Whether "more" or "less" of it is better.
    """

    name: str
    unit: str
    better: str = "more"
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """What this broker is to reach in one metric.

    Attributes:
      against: Keys of contestants; the best of them counts.
      at_least: How many times as good as that one it is to be. Always "times as good": for a metric of which
        less is better, twice as good is half as much.
    """

    metric: str
    against: tuple[str, ...]
    at_least: float


@dataclass(frozen=True, slots=True)
class Contestant:
    key: str
    title: str
    #: The server it cannot do without; empty for none.
    server: str = ""
    #: What it lacks on this machine and what to do about it; empty for nothing.
    missing: str = ""


def contestants(*keys: str) -> list[Contestant]:
    """The systems of these keys."""
    systems = [BY_KEY[key] for key in keys]
    return [Contestant(system.key, system.title, system.server, system.missing()) for system in systems]


class Row(ABC):
    """One row. Each kind is a file in `rows/`.

    Parameters:
      name: On the command line and in the JSON.
      ours: The key of the contestant that the others are compared with.
      most_rounds: More would say nothing new.
    """

    def __init__(
        self,
        name: str,
        title: str,
        contestants: list[Contestant],
        metrics: list[Metric],
        targets: Sequence[Target] = (),
        *,
        ours: str = "kafka",
        most_rounds: int = 1_000,
    ) -> None:
        self.name = name
        self.title = title
        self.contestants = contestants
        self.metrics = metrics
        self.targets = targets
        self.ours = ours
        self.most_rounds = most_rounds

    @abstractmethod
    def work(self, sizes: Sizes) -> str:
        """What is done, with its sizes, for people."""

    @abstractmethod
    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        """Let one contestant do the work once."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
