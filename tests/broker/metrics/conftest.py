"""The exporter on a Kafka in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import KafkaBroker
from broker.kafka.types import TopicPartition
from broker.metrics.exporter import Exporter
from broker.reaper.death_note import DeathNote
from broker.reports.report import WorkerReport, encode_report
from broker.testing import Kit

Tell = Callable[[WorkerReport | DeathNote], None]
#: The value of the series with these labels; None without such a series.
Value = Callable[..., float | None]


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit(KafkaBroker(namespace="shop-", partitions=2)).use() as kit:
        yield kit


@pytest.fixture
def tell(kit: Kit) -> Tell:
    """Writes a record of a worker."""
    kit.cluster.create_topic("shop-dramatiq_workers", settings={"cleanup.policy": "compact,delete"})

    def tell(content: WorkerReport | DeathNote) -> None:
        value = content.encode() if isinstance(content, DeathNote) else encode_report(content)
        kit.cluster.append(TopicPartition("shop-dramatiq_workers", 0), content.worker_id.encode(), value)

    return tell


@pytest.fixture
def exporter(kit: Kit) -> Exporter:
    return Exporter(kit.broker)


@pytest.fixture
def value(exporter: Exporter) -> Value:
    def find(name: str, **labels: str) -> float | None:
        return series(exporter.text()).get((name, frozenset(labels.items())))

    return find


def series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The time series of an exposition, as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
