"""One node of three that is dead, frozen, or was never there: nobody who asks the others notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from dramatiq import Message

from broker import KafkaBroker
from dev.apache_kafka import ApacheKafkaCluster, ApacheKafkaServer
from dev.ports import HOST, free_port

JOIN_TIMEOUT_MS = 90_000
PARTITIONS = 3

MakeBroker = Callable[..., KafkaBroker]


@pytest.fixture
def make_broker(kafka_cluster: ApacheKafkaCluster, namespace: str) -> Iterator[MakeBroker]:
    """Makes brokers of one application, each with connections of its own."""
    with ExitStack() as brokers:

        def make(servers: str | None = None) -> KafkaBroker:
            broker = KafkaBroker(
                servers or kafka_cluster.address,
                namespace=namespace,
                partitions=PARTITIONS,
                replication_factor=3,
            )
            broker.declare_queue("work")
            brokers.callback(broker.close)
            return broker

        yield make


def message(number: int = 0, queue: str = "work") -> Message[None]:
    return Message(queue, "task", (number,), {}, {})


def use(broker: KafkaBroker) -> None:
    """Ask it everything for the first time; whatever fails raises."""
    broker.ping(timeout_s=10.0)
    broker.enqueue(message())
    broker.enqueue(message(), delay=3_600_000)
    assert broker.count("work") >= 2
    assert broker.delayed("work").count >= 1
    assert list(broker.dead_letters("work")) == []
    assert broker.redrive("work", dry_run=False, reason="a test").sent == 0
    assert broker.cancel_outcome("no such message") is None


@pytest.mark.parametrize("harm", [ApacheKafkaServer.kill, ApacheKafkaServer.pause], ids=["dead", "frozen"])
def test_first_sends_and_questions_succeed_while_one_node_of_three_is(
    kafka_cluster: ApacheKafkaCluster, make_broker: MakeBroker, harm: Callable[[ApacheKafkaServer], None]
) -> None:
    use(make_broker())

    harm(kafka_cluster.nodes[2])
    for number in range(6):
        broker = make_broker()
        use(broker)
        broker.declare_queue(f"new{number}")
        broker.enqueue(message(queue=f"new{number}"))
        assert broker.count(f"new{number}") == 1
    broker.flush("work")
    broker.join("work", timeout=JOIN_TIMEOUT_MS)


def test_servers_that_were_never_there_may_come_first_among_those_that_a_broker_is_given(
    kafka_cluster: ApacheKafkaCluster, make_broker: MakeBroker
) -> None:
    nowhere = f"no-such-host.invalid:9092,{HOST}:{free_port()},{HOST}:{free_port()}"
    for _ in range(3):
        use(make_broker(f"{nowhere},{kafka_cluster.nodes[3].address}"))
