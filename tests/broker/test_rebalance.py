"""Joining a group with kafka-python."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka.structs import MemberState, OffsetAndMetadata

from broker.kafka.clients import Clients
from broker.kafka.protocol import RebalanceListener
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topics import Topics
from dev.stack import Stack
from tests.broker.kafka_python import whole_admin, whole_consumer
from tests.waiting import wait_until

#: The embedded broker answers a JoinGroup only after half of it.
SESSION_TIMEOUT_MS = 6_000


def test_a_consumer_that_is_hardly_ever_in_poll_joins_at_its_first_attempt(
    stack: Stack, namespace: str
) -> None:
    clients = Clients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    topics.ensure([topics.queue("mail")])
    settings: dict[str, Any] = {
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": 1_000,
    }
    with whole_consumer(clients, group_id=f"{namespace}group", **settings) as kafka:
        kafka.subscribe([topics.queue("mail")])
        # A leader that does not know the partitions yet assigns none, and then joins once more.
        wait_until(
            lambda: kafka.partitions_for_topic(topics.queue("mail")), deadline_s=30, what="the partitions"
        )

        def poll() -> bool:
            kafka.poll(timeout_ms=0)  # the outcome comes in between two of these
            return bool(kafka.assignment())

        wait_until(poll, deadline_s=30, what="an assignment")
        first = 0 if stack.name == "embedded" else 1
        assert kafka.group_metadata().generation_id == first


@pytest.mark.real_kafka("it adds no partitions to a topic")
def test_a_leader_that_rejoins_for_new_partitions_between_two_polls_stays_in_its_group(
    stack: Stack, namespace: str
) -> None:
    clients = Clients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    topic = topics.queue("mail")
    topics.ensure([topic])
    settings: dict[str, Any] = {
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": 1_000,
        "metadata_max_age_ms": 200,
    }
    with whole_consumer(clients, group_id=f"{namespace}group", **settings) as kafka:
        kafka.subscribe([topic])

        def owns(count: int) -> bool:
            kafka.poll(timeout_ms=0)
            return len(kafka.assignment()) == count

        wait_until(lambda: owns(1), deadline_s=30, what="an assignment")
        with whole_admin(clients) as admin:
            admin.create_partitions({topic: 3})
        wait_until(lambda: owns(3), deadline_s=30, what="the new partitions")
        assert kafka.group_metadata().state is MemberState.STABLE
        kafka.commit({partition: OffsetAndMetadata(0, "", -1) for partition in kafka.assignment()})


def test_a_poll_ends_when_partitions_are_assigned(stack: Stack, namespace: str) -> None:
    clients = Clients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    topic = topics.queue("mail")
    topics.ensure([topic])
    listener = RebalanceListener(
        on_assigned=lambda partitions: None,
        on_revoked=lambda partitions: None,
        on_lost=lambda partitions: None,
    )
    with whole_consumer(
        clients, group_id=f"{namespace}group", session_timeout_ms=SESSION_TIMEOUT_MS
    ) as kafka:
        kafka.subscribe([topic], listener=listener)
        polling = threading.Thread(target=lambda: kafka.poll(timeout_ms=3_600_000), daemon=True)
        polling.start()
        polling.join(30)
        ended = not polling.is_alive()
        kafka.interrupt()
        polling.join(30)
        assert ended
        assert kafka.assignment()
