"""One node of three that is dead, frozen, or was never there: nobody who asks the others notices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from dramatiq import Message
from dramatiq.errors import BrokerConnectionError
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from broker import KafkaBroker
from dev.apache_kafka import ApacheKafkaCluster, ApacheKafkaServer
from dev.ports import HOST, free_port
from tests.cluster.test_the_cluster import NOBODY, leader_of
from tests.waiting import wait_until

JOIN_TIMEOUT_MS = 90_000
DEADLINE_S = 90
PARTITIONS = 3
SENDERS = 6

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


def test_no_send_fails_at_default_settings_while_a_leader_and_then_the_controller_dies_under_load(
    kafka_cluster: ApacheKafkaCluster, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    broker.enqueue(message())
    topic = broker.parts.topics.queue("work")
    load = Load(broker)

    with load:
        load.wait_for_more()
        replace(kafka_cluster, lambda servers: leader_of(servers, topic))
        load.wait_for_more()
        kafka_cluster.start()
        replace(kafka_cluster, controller_of)
        load.wait_for_more()

    assert load.failures == []
    assert load.sent <= ids_in(kafka_cluster, topic)


def replace(cluster: ApacheKafkaCluster, find: Callable[[str], int]) -> None:
    """Kill the node that ``find`` names, and wait until it names another one."""
    first = find(cluster.address)
    others = ",".join(server.address for node, server in cluster.nodes.items() if node != first)
    cluster.nodes[first].kill()
    wait_until(lambda: find(others) not in (first, NOBODY), deadline_s=DEADLINE_S, what="another node")


class Load:
    """Threads that send, and one that counts, until it is left."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(self._send,)) for _ in range(SENDERS)]
        self._threads.append(threading.Thread(target=self._run, args=(self._count,)))
        #: The ids of the messages that Kafka has acknowledged.
        self.sent: set[str] = set()
        self.failures: list[str] = []

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Wait until every thread has sent some messages since now, or something failed."""
        enough = len(self.sent) + 50 * SENDERS
        wait_until(lambda: len(self.sent) > enough or self.failures, deadline_s=DEADLINE_S, what="more sends")

    def _run(self, what: Callable[[], None]) -> None:
        while not self._stop.wait(0.02):
            try:
                what()
            except BrokerConnectionError as e:
                self.failures.append(str(e))

    def _send(self) -> None:
        self.sent.add(self._broker.enqueue(message()).message_id)

    def _count(self) -> None:
        self._broker.count("work")


def controller_of(servers: str) -> int:
    """The number of the node that is the cluster's controller; NOBODY while that cannot be told."""
    admin = KafkaAdminClient(bootstrap_servers=servers.split(","))
    try:
        (topic,) = admin.describe_metadata_quorum()["topics"]
        return int(topic["partitions"][0]["leader_id"])
    except KafkaError:
        return NOBODY
    finally:
        admin.close()


def ids_in(cluster: ApacheKafkaCluster, topic: str) -> set[str]:
    consumer = KafkaConsumer(bootstrap_servers=cluster.address.split(","))
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    found: set[str] = set()
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for records in consumer.poll(timeout_ms=500).values():
            found.update(Message.decode(record.value).message_id for record in records)
    consumer.close()
    return found
