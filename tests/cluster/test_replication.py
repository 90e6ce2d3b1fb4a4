"""The copies of the topics that a broker creates, and what a worker says of those that have one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from kafka import KafkaAdminClient

from broker import KafkaBroker
from dev.apache_kafka import ApacheKafkaCluster

QUEUE = "mail"
JOIN_TIMEOUT_MS = 60_000
MIN_INSYNC = "min.insync.replicas"


@pytest.fixture
def broker(kafka_cluster: ApacheKafkaCluster, namespace: str) -> Iterator[KafkaBroker]:
    """A broker that leaves the replication to the cluster."""
    broker = KafkaBroker(kafka_cluster.address, namespace=namespace, partitions=2)
    broker.declare_queue(QUEUE)
    yield broker
    broker.close()


def copies_of(broker: KafkaBroker) -> dict[str, tuple[int | None, str | None]]:
    """The copies of each topic, and how many of them acknowledge a record."""
    return {
        topic.name.removeprefix(broker.parts.settings.namespace): (
            topic.replication,
            topic.settings.get(MIN_INSYNC),
        )
        for topic in broker.check_topics()
    }


def test_three_copies_that_were_asked_for_are_acknowledged_by_two_as_well(
    kafka_cluster: ApacheKafkaCluster, namespace: str
) -> None:
    broker = KafkaBroker(kafka_cluster.address, namespace=namespace, replication_factor=3)
    plan = broker.apply_topics(broker.plan_topics(QUEUE))
    assert plan.differences == ()
    assert set(copies_of(broker).values()) == {(3, "2")}
    broker.close()


def run_one(broker: KafkaBroker) -> None:
    """Let a worker run one message; its start looks all topics up."""

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def task() -> None: ...

    worker = Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()
    task.send()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    worker.stop()


def test_every_topic_has_three_copies_of_which_two_acknowledge_also_when_created_while_a_node_is_dead(
    kafka_cluster: ApacheKafkaCluster, broker: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    kafka_cluster.nodes[2].kill()
    run_one(broker)
    broker.pause(QUEUE, reason="to create the control topic")
    found = copies_of(broker)
    assert found.keys() >= {QUEUE, f"{QUEUE}_dlq", "delayed", "dramatiq_workers", "dramatiq_control"}
    assert set(found.values()) == {(3, "2")}
    assert warnings_of_copies(caplog) == []


def test_a_plan_has_the_replication_of_the_cluster_and_what_it_creates_is_as_planned(
    broker: KafkaBroker,
) -> None:
    plan = broker.plan_topics(QUEUE)
    assert {topic.replication_factor for topic in plan.topics} == {3}
    assert {topic.settings[MIN_INSYNC] for topic in plan.topics} == {"2"}
    assert "--replication-factor 3 --config" in plan.topic_commands()[0]
    assert broker.apply_topics(plan).differences == ()
    assert set(copies_of(broker).values()) == {(3, "2")}


def test_a_chosen_replication_is_respected_and_a_worker_on_single_copies_says_so_once(
    kafka_cluster: ApacheKafkaCluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = KafkaBroker(kafka_cluster.address, namespace=namespace, replication_factor=1)
    broker.declare_queue("other")
    run_one(broker)
    assert {copies for copies, _ in copies_of(broker).values()} == {1}
    broker.close()
    (line,) = warnings_of_copies(caplog)
    assert "one copy on a cluster of 3 nodes" in line
    assert f"'{namespace}" in line
    assert "kafka-reassign-partitions.sh" in line


def test_an_existing_topic_with_fewer_copies_than_planned_is_a_difference(
    kafka_cluster: ApacheKafkaCluster, broker: KafkaBroker, namespace: str
) -> None:
    topic = f"{namespace}{QUEUE}"
    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.address.split(","))
    layout: dict[str, Any] = {"num_partitions": 2, "replication_factor": 1}
    admin.create_topics({topic: layout}, wait_for_metadata=True)
    admin.close()
    found = {one.subject: one for one in broker.plan_topics(QUEUE).differences if one.topic == topic}
    assert (found["replication"].planned, found["replication"].found) == ("3", "1")
    assert f"--add-config {MIN_INSYNC}=2" in found[MIN_INSYNC].command


def warnings_of_copies(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "have one copy" in record.getMessage()
    ]
