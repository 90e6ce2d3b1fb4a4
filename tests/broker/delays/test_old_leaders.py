"""A leader that stood still shows the delayed topic as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.consumer.fetcher import ConsumerRecord

from dev.apache_kafka import ApacheKafkaServer
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import PARTITIONS
from tests.broker.old_leader import OldLeader
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("its answers are not Kafka's, and they are changed on the way")

#: More answers than one reading takes: whoever has them has not believed the first.
ANSWERS = 10


@pytest.fixture
def old_leader(apache_kafka: Callable[..., ApacheKafkaServer], namespace: str) -> Iterator[OldLeader]:
    leader = OldLeader(f"{namespace}delayed")
    apache_kafka(
        properties={"advertised.listeners": f"PLAINTEXT://{leader.address}"}, port=leader.server_port
    )
    yield leader
    leader.close()


def test_a_delay_is_not_forwarded_again_by_a_successor_that_is_not_shown_that_it_is_over(
    old_leader: OldLeader, make_station: MakeStation, tmp_path: Path
) -> None:
    # Given a message that was forwarded, and whose tombstone is hidden
    first = make_station(tmp_path / "first", old_leader.address)
    (once,) = first.delay(0)
    before = ends_of(first.in_delayed())
    first.start()
    first.wait_for([once])
    first.wait_until_done()
    first.stop()
    old_leader.show_only(before)

    # When a forwarder on another machine takes its partition over
    second = make_station(tmp_path / "second", old_leader.address)
    second.start()
    wait_until(
        lambda: old_leader.hidden >= ANSWERS or len(second.in_queue()) > 1,
        deadline_s=60,
        what="the successor to read on, or to ask again",
    )
    old_leader.show_all()

    # Then it runs once
    (last,) = second.delay(0)
    assert sorted(second.wait_for([last])) == sorted([once, last])


def ends_of(records: list[ConsumerRecord]) -> dict[int, int]:
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for record in records:
        ends[record.partition] = max(ends[record.partition], record.offset + 1)
    return ends
