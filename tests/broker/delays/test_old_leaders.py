"""A leader that stood still shows the delayed topic as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.apache_kafka import ApacheKafkaServer
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import PARTITIONS
from tests.broker.old_leader import OldLeader

pytestmark = pytest.mark.real_kafka("its answers are not Kafka's, and they are changed on the way")

EVERYTHING = 1_000_000


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
    (record,) = first.in_delayed()
    first.start()
    first.wait_for([once])
    first.wait_until_done()
    first.stop()
    ends = dict.fromkeys(range(PARTITIONS), EVERYTHING)
    old_leader.show_only({**ends, record.partition: record.offset + 1})

    # When a forwarder on another machine takes the partitions over, and has forwarded from another one
    second = make_station(tmp_path / "second", old_leader.address)
    second.start()
    second.wait_for([second.delay_in(1 - record.partition)])
    old_leader.show_all()

    # Then the message is not forwarded again
    second.wait_for([second.delay_in(record.partition)])
    assert second.ids_in_queue().count(once) == 1
