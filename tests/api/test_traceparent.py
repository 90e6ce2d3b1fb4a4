"""The header traceparent of a request, which the messages of its submissions continue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from kafka import KafkaConsumer, TopicPartition
from sqlalchemy import Engine

from dev.stack import Stack
from tests.db.rows import load_sample_ads
from tests.service import Api
from tests.waiting import wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
VALID = f"00-{TRACE}-b7ad6b7169203331-01"
INVALID = ("00-nonsense-01", f"00-{'0' * 32}-b7ad6b7169203331-01", f"{VALID}-x")
DEADLINE_S = 60.0


@pytest.fixture
def client(
    stack: Stack, server_home: Callable[[], Path], namespace: str, database: Engine
) -> Iterator[httpx.Client]:
    """A client of an API with a namespace of its own."""
    load_sample_ads(database, 3)
    api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace})
    api.start()
    with api.client() as client:
        yield client
    api.child.stop()


def traces_in(servers: str, topic: str, count: int) -> list[bytes | None]:
    """The headers of the first records of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", group_id=None)
    found: list[bytes | None] = []
    try:

        def partitions() -> set[int] | None:
            return consumer.partitions_for_topic(topic) or None

        numbers = wait_until(partitions, deadline_s=DEADLINE_S, what="the topic")
        consumer.assign([TopicPartition(topic, number) for number in numbers])
        consumer.seek_to_beginning()

        def enough() -> bool:
            for records in consumer.poll(timeout_ms=200).values():
                found.extend(dict(record.headers).get("traceparent") for record in records)
            return len(found) >= count

        wait_until(enough, deadline_s=DEADLINE_S, what="the messages")
    finally:
        consumer.close()
    return found


def test_the_messages_of_a_request_continue_its_trace_and_an_invalid_header_is_ignored(
    client: httpx.Client, stack: Stack, namespace: str
) -> None:
    for given in (VALID, *INVALID):
        answer = client.post("/async_predict?item_id=1", headers={"traceparent": given})
        assert answer.status_code == 200
    bulk = client.post("/async_predict/bulk", json={"item_ids": [2, 3]}, headers={"traceparent": VALID})
    assert bulk.status_code == 200, bulk.text
    found = traces_in(stack.bootstrap_servers, f"{namespace}moderation", 3 + len(INVALID))
    assert sorted(found, key=str) == [None] * len(INVALID) + [VALID.encode()] * 3
