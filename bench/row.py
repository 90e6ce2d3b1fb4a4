"""A row of the table: its work, its contestants, its metrics and its targets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bench.ground import Ground
from bench.sizes import Sizes
from bench.systems import BY_KEY

#: The measurement of a contestant, by the names of metrics.
Measured = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a row.

    Attributes:
      better: "more" or "less".
    """

    name: str
    unit: str
    better: str = "more"
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """The target of this broker in one metric.

    Attributes:
      against: Keys of contestants; the best of them counts.
      at_least: The required multiple of that contestant's result. It is always "times as good": for a metric
        of which less is better, twice as good is half as much.
    """

    metric: str
    against: tuple[str, ...]
    at_least: float


@dataclass(frozen=True, slots=True)
class Contestant:
    key: str
    title: str
    #: The server that it needs; empty without one.
    server: str = ""
    #: Its missing requirements on this machine, with the remedy; empty when there are none.
    missing: str = ""


def contestants(*keys: str) -> list[Contestant]:
    """The systems of these keys."""
    systems = [BY_KEY[key] for key in keys]
    return [Contestant(system.key, system.title, system.server, system.missing()) for system in systems]


class Row(ABC):
    """One row. Each kind is a file in `rows/`.

    Parameters:
      name: Its name on the command line and in the JSON.
      ours: The key of the contestant that the others are compared with.
      most_rounds: The number of rounds after which further ones show nothing new.
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
        """A description of the work with its sizes."""

    @abstractmethod
    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        """Let one contestant do the work once, and measure it."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
