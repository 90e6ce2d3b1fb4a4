"""Kafka's compaction keeps the topic small, and a forwarder that comes later is not confused by its gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import PARTITIONS, Station
from tests.broker.kafka_python import whole_admin
from tests.waiting import wait_until

MINUTE_MS = 60_000
COUNT = 2_000


def _create_hasty_topic(station: Station) -> None:
    """The delayed topic with Kafka's compaction in seconds instead of hours, tombstones included."""
    configs = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "500",
        "delete.retention.ms": "500",
    }
    layout = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": configs}
    with whole_admin(station.clients) as admin:
        admin.create_topics({station.topics.delayed: layout}, wait_for_metadata=True)


@pytest.mark.real_kafka(reason="it does not compact")
def test_what_came_and_went_leaves_the_topic_and_what_waits_stays(
    make_station: MakeStation, tmp_path: Path
) -> None:
    station = make_station()
    _create_hasty_topic(station)
    waiting = station.delay(*[MINUTE_MS] * 20)
    station.start()
    gone = station.delay(*[0] * COUNT)
    station.wait_for(gone)
    station.wait_until_done_of(gone)

    def nearly_nothing_is_left() -> bool:
        station.wait_for(station.delay(0, 0, 0, 0))  # Kafka closes a segment when it writes the next record
        return len(station.in_delayed()) < COUNT // 10

    wait_until(nearly_nothing_is_left, deadline_s=120, what="the compaction")
    station.stop()
    before = len(station.in_queue())
    later = make_station(index_dir=tmp_path / "another machine")
    later.start()

    later.wait_for(later.delay(0, 0, 0, 0))
    assert len(later.in_queue()) == before + 4
    assert {one.message_id for one in later.delays.pending("mail").messages} == set(waiting)
