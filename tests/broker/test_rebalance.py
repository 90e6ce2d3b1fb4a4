"""Joining a group with kafka-python."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from broker.clients import Clients
from broker.rebalance import is_joining, keep_outcomes_of_joins
from broker.topics import TopicLayout, Topics
from dev.stack import Stack
from tests.broker.partitions import raise_partitions
from tests.waiting import wait_until

#: The embedded broker answers a JoinGroup only after half of it.
SESSION_TIMEOUT_MS = 6_000
POLL_GAP_S = 0.05


def test_a_consumer_that_is_hardly_ever_in_poll_joins_at_its_first_attempt(
    stack: Stack, namespace: str
) -> None:
    clients = Clients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    topics.ensure([topics.queue("mail")])
    settings = {"session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 1_000}
    with closing(clients.consumer(group_id=f"{namespace}group", **settings)) as kafka:
        keep_outcomes_of_joins(kafka)
        kafka.subscribe([topics.queue("mail")])

        def poll() -> bool:
            time.sleep(POLL_GAP_S)  # the outcome comes in here
            kafka.poll(timeout_ms=0)
            return bool(kafka.assignment())

        wait_until(poll, deadline_s=30, what="an assignment")
        first = 0 if stack.name == "embedded" else 1
        assert kafka.group_metadata().generation_id == first


@pytest.mark.real_kafka("it cannot add partitions")
def test_a_consumer_gets_added_partitions_when_the_join_for_them_ends_between_two_polls(
    stack: Stack, namespace: str
) -> None:
    # Given a consumer that has what there is
    clients = Clients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    topic = topics.queue("mail")
    topics.ensure([topic])
    settings = {"session_timeout_ms": SESSION_TIMEOUT_MS, "heartbeat_interval_ms": 1_000}
    with closing(clients.consumer(group_id=f"{namespace}group", **settings)) as kafka:
        keep_outcomes_of_joins(kafka)
        kafka.subscribe([topic])

        def assigned() -> int:
            kafka.poll(timeout_ms=100)
            return len(kafka.assignment())

        wait_until(lambda: assigned() == 1, deadline_s=30, what="the first partition")

        # When partitions are added, and it joins and does not poll until that is over
        raise_partitions(stack.bootstrap_servers, topic, 3)
        before = kafka.group_metadata().generation_id
        coordinator: Any = kafka._coordinator

        def has_joined() -> bool:
            if not is_joining(kafka):
                kafka.poll(timeout_ms=0)
            return bool(coordinator._generation.generation_id > before)

        wait_until(has_joined, deadline_s=30, what="a join")
        wait_until(lambda: coordinator._join_task.is_done, deadline_s=30, what="the end of the join")

        # Then it has them
        wait_until(lambda: assigned() == 3, deadline_s=30, what="the added partitions")
