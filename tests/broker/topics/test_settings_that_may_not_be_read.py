"""Without the right to read topics' settings Kafka's refusals decide, and nothing is kept for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dramatiq
import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from broker import EnqueueFailed, KafkaBroker
from dev.apache_kafka import ApacheKafkaServer
from tests.broker.conftest import SESSION_TIMEOUT_MS, StartWorker
from tests.broker.topics.foreign_topics import QUEUE
from tests.broker.topics.test_size_limits import LARGE, LIMIT, text

pytestmark = pytest.mark.real_kafka("rights")

JOIN_TIMEOUT_MS = 60_000
PREFIX = "shop-"
RIGHTS = (
    (ResourceType.TOPIC, ACLOperation.READ),
    (ResourceType.TOPIC, ACLOperation.WRITE),
    (ResourceType.TOPIC, ACLOperation.CREATE),
    (ResourceType.GROUP, ACLOperation.READ),
)


@pytest.fixture
def kafka(apache_kafka: Callable[..., ApacheKafkaServer]) -> ApacheKafkaServer:
    """A Kafka where ``worker`` may do everything with its topics but read their settings."""
    server = apache_kafka(
        listeners={"SASL": "SASL_PLAINTEXT"},
        properties={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
            'PlainLoginModule required user_worker="open-sesame";',
        },
    )
    admin = KafkaAdminClient(bootstrap_servers=server.address)
    admin.create_acls(
        [
            ACL(
                "User:worker",
                "*",
                operation,
                ACLPermissionType.ALLOW,
                ResourcePattern(kind, PREFIX, ACLResourcePatternType.PREFIXED),
            )
            for kind, operation in RIGHTS
        ]
    )
    configs = {"max.message.bytes": str(LIMIT)}
    layout = {"num_partitions": 2, "replication_factor": 1}
    admin.create_topics(
        {
            f"{PREFIX}{QUEUE}": {**layout, "configs": configs},
            f"{PREFIX}compacted": {**layout, "configs": {"cleanup.policy": "compact"}},
        },
        wait_for_metadata=True,
    )
    admin.close()
    return server


@pytest.fixture
def broker(kafka: ApacheKafkaServer, tmp_path: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(
        kafka.address_of("SASL"),
        namespace=PREFIX,
        group_id=f"{PREFIX}workers",
        session_timeout_ms=SESSION_TIMEOUT_MS,
        delay_index_dir=str(tmp_path),
        client_options={
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "worker",
            "sasl_plain_password": "open-sesame",
        },
    )
    yield broker
    broker.close()


def test_what_kafka_refuses_for_good_is_refused_or_dead_lettered_and_one_line_says_that_nobody_checked(
    broker: KafkaBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    @dramatiq.actor(broker=broker, queue_name=QUEUE, max_retries=3, min_backoff=1, max_backoff=1)
    def task(content: str) -> None:
        runs.append(content)
        if len(content) > 1:
            raise RuntimeError(text(5_000))

    @dramatiq.actor(broker=broker, queue_name="compacted")
    def never() -> None: ...

    retried, delayed = text(LARGE), text(LIMIT)
    with pytest.raises(EnqueueFailed, match=r"and the topic .* takes its max.message.bytes"):
        task.send(delayed)
    with pytest.raises(EnqueueFailed, match=r"Compacted topic .*a queue's topic needs cleanup.policy=delete"):
        never.send()
    task.send("x")
    task.send(retried)
    task.send_with_options(args=(delayed,), delay=1)
    start_worker(broker, queues={QUEUE})
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)

    dead_letters = list(broker.dead_letters(QUEUE))
    assert {dead_letter.message.args[0] for dead_letter in dead_letters if dead_letter.message} == {
        retried,
        delayed,
    }
    assert {dead_letter.error_type for dead_letter in dead_letters} == {"MessageSizeTooLargeError"}
    assert sorted(runs, key=len) == ["x", retried]
    lines = [record.getMessage() for record in caplog.records if "DESCRIBE_CONFIGS" in record.getMessage()]
    assert len(lines) == 1
