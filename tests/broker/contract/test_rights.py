"""A Kafka that asks what each of its clients may do."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.errors import BrokerConnectionError
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from broker import CancelUndecided, EnqueueFailed, KafkaBroker, NotAuthorized
from broker.kafka.rights import logger as rights_logger
from broker.kafka.rights import name_for_tool
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.ports import free_port
from dev.stack import ROOT
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import StartWorker
from tests.broker.dead_letters.samples import QUEUE, add_dead_letter, on_queue
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka(reason="tell its clients apart")

DEADLINE_S = 90
JOIN_TIMEOUT_MS = 90_000
KAFKA_JARS = Path(os.environ.get("DEV_DIR", ROOT / ".dev"))
PASSWORD = "open-sesame"
USERS = [f"user{number}" for number in range(160)]
#: Kafka's names of operations, by those that kafka-acls.sh takes.
OPERATIONS = {name_for_tool(operation.name): operation.name for operation in ACLOperation}
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.CLUSTER}


@pytest.fixture(scope="module")
def kafka(server_home: Callable[[], Path]) -> Iterator[ApacheKafkaServer]:
    """Whoever comes without a name may do everything there, and whoever has one only what it was granted."""
    passwords = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
    server = ApacheKafkaServer(
        server_home(),
        libs=fetch_apache_kafka(KAFKA_JARS),
        port=free_port(),
        listeners={"SASL": "SASL_PLAINTEXT"},
        properties={
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
            f"PlainLoginModule required {passwords};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def users() -> Iterator[str]:
    return iter(USERS)


Right = tuple[str, str, str]


@dataclass
class Client:
    """One user of that Kafka, and the namespace that it has rights in.

    Attributes:
      owner: A broker on the same topics that may do everything.
      rights: What it needs to do everything there, as (operation, kind, name).
    """

    kafka: ApacheKafkaServer
    owner: KafkaBroker
    user: str
    namespace: str
    rights: list[Right]
    granted: set[Right] = field(default_factory=set)

    def settings(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.kafka.address_of("SASL"),
            "namespace": self.namespace,
            "client_options": {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": self.user,
                "sasl_plain_password": PASSWORD,
            },
        }

    def right(self, operation: str, kind: str, name: str) -> Right:
        """One of its rights, by the end of its resource's name."""
        (found,) = (r for r in self.rights if r[:2] == (operation, kind) and r[2].endswith(name))
        return found

    def grant(self, *rights: Right) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.kafka.address)
        admin.create_acls(
            [
                ACL(
                    principal=f"User:{self.user}",
                    host="*",
                    operation=ACLOperation[operation],
                    permission_type=ACLPermissionType.ALLOW,
                    resource_pattern=ResourcePattern(KINDS[kind], name),
                )
                for operation, kind, name in rights
            ]
        )
        wait_until(
            lambda: len(admin.describe_acls(self._every_right())[0]) >= len(self.granted | set(rights)),
            deadline_s=DEADLINE_S,
            what="Kafka to know the rights",
        )
        self.granted |= set(rights)
        admin.close()

    def revoke(self, *rights: Right) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.kafka.address)
        admin.delete_acls(
            [
                ACLFilter(
                    f"User:{self.user}",
                    "*",
                    ACLOperation[operation],
                    ACLPermissionType.ALLOW,
                    ResourcePatternFilter(KINDS[kind], name, ACLResourcePatternType.LITERAL),
                )
                for operation, kind, name in rights
            ]
        )
        admin.close()
        self.granted -= set(rights)

    def _every_right(self) -> ACLFilter:
        anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        return ACLFilter(f"User:{self.user}", None, ACLOperation.ANY, ACLPermissionType.ANY, anything)

    def grant_all_but(self, *missing: Right) -> None:
        self.grant(*(right for right in self.rights if right not in missing))


@pytest.fixture
def client(kafka: ApacheKafkaServer, users: Iterator[str], namespace: str) -> Iterator[Client]:
    """One without a right, where all topics of a queue are there, and those of some others."""
    topics = [f"{namespace}{name}" for name in (QUEUE, f"{QUEUE}_dlq", "delayed")]
    group = f"dramatiq.{namespace}{QUEUE}"
    groups = [group, f"{group}.flushed", f"{namespace}delayed.forwarders"]
    owner = KafkaBroker(kafka.address, namespace=namespace)
    owner.declare_queue(QUEUE)
    owner.parts.topics.ensure([*topics, f"{namespace}mail", f"{namespace}hidden"])
    rights = [(operation, "topic", topic) for topic in topics for operation in ("READ", "WRITE")]
    rights += [("READ", "group", group) for group in groups]
    rights += [("DELETE", "topic", topics[0])]
    yield Client(kafka, owner, next(users), namespace, rights)
    owner.close()


def message(queue: str = QUEUE, **options: object) -> Message[None]:
    return Message(queue, "task", (), {}, options)


@pytest.fixture
def make_broker(server_backend: KafkaBackend) -> Iterator[Callable[[Client], KafkaBroker]]:
    made: list[KafkaBroker] = []

    def make(client: Client) -> KafkaBroker:
        made.append(server_backend.broker(**client.settings()))
        made[-1].declare_queue(QUEUE)
        return made[-1]

    yield make
    for broker in made:
        broker.close()


MakeBroker = Callable[[Client], KafkaBroker]


def refused(broker: KafkaBroker, refused_message: Message[None]) -> str:
    """The text of the error that a send fails with, which is one about rights and nothing else."""
    with pytest.raises(EnqueueFailed) as failed:
        broker.enqueue(refused_message)
    assert isinstance(failed.value.failures[refused_message.message_id], NotAuthorized)
    text = str(failed.value)
    for misleading in ("reachable", "Request", "InitProducerId"):
        assert misleading not in text
    return text


@pytest.mark.parametrize("may_see", [True, False], ids=["may see the topic", "may not"])
def test_a_send_without_the_right_to_write_names_it_and_succeeds_once_it_is_granted(
    client: Client, make_broker: MakeBroker, may_see: bool
) -> None:
    topic = f"{client.namespace}{QUEUE}"
    if may_see:
        client.grant(("DESCRIBE", "topic", topic))
    broker = make_broker(client)

    text = refused(broker, message())
    assert f"WRITE on the topic '{topic}'" in text
    assert f"--allow-principal User:{client.user} --operation Write --topic {topic}" in text

    client.grant(("WRITE", "topic", topic))
    broker.enqueue(message())


def test_a_send_to_a_topic_that_is_not_there_names_the_right_to_create_it(
    client: Client, make_broker: MakeBroker
) -> None:
    topic = f"{client.namespace}new"
    client.grant(("WRITE", "topic", topic))
    broker = make_broker(client)

    text = refused(broker, message("new"))
    assert "does not exist" in text
    assert f"CREATE on the topic '{topic}'" in text

    client.grant(("CREATE", "topic", topic))
    broker.enqueue(message("new"))


def test_a_topic_that_may_not_be_written_to_holds_up_no_other_one(
    client: Client, make_broker: MakeBroker
) -> None:
    client.grant(
        ("WRITE", "topic", f"{client.namespace}{QUEUE}"),
        ("DESCRIBE", "topic", f"{client.namespace}mail"),  # Kafka refuses its records
    )
    broker = make_broker(client)
    good, bad = ([message(queue) for _ in range(20)] for queue in (QUEUE, "mail"))
    unseen = [message("hidden") for _ in range(20)]  # and nobody knows of this one's topic

    with pytest.raises(EnqueueFailed) as failed:
        broker.enqueue_many([each for some in zip(good, bad, unseen, strict=True) for each in some])

    assert failed.value.failures.keys() == {each.message_id for each in (*bad, *unseen)}
    texts = {each.queue_name: str(failed.value.failures[each.message_id]) for each in (*bad, *unseen)}
    assert f"WRITE on the topic '{client.namespace}mail'" in texts["mail"]
    assert f"WRITE on the topic '{client.namespace}hidden'" in texts["hidden"]
    # What was on its way with a denied one is sent once more, and may arrive twice.
    assert {each.message_id for each in on_queue(client.owner)} == {each.message_id for each in good}


ASKS: dict[str, tuple[Callable[[KafkaBroker], object], str, str, str]] = {
    "count, of the queue": (lambda broker: broker.count(QUEUE), "READ", "topic", QUEUE),
    "count, of the group": (lambda broker: broker.count(QUEUE), "READ", "group", QUEUE),
    "delayed": (lambda broker: broker.delayed(QUEUE), "READ", "topic", "delayed"),
    "cancel, the request": (
        lambda broker: broker.cancel("x", timeout_s=0.5),
        "WRITE",
        "topic",
        "delayed",
    ),
    "cancel, the decision": (
        lambda broker: broker.cancel("x", timeout_s=0.5),
        "READ",
        "topic",
        "delayed",
    ),
    "flush, of the queue": (lambda broker: broker.flush(QUEUE), "DELETE", "topic", QUEUE),
    "flush, of what is delayed": (lambda broker: broker.flush(QUEUE), "WRITE", "topic", "delayed"),
    "flush, the note": (lambda broker: broker.flush(QUEUE), "READ", "group", f"{QUEUE}.flushed"),
    "dead letters": (lambda broker: list(broker.dead_letters(QUEUE)), "READ", "topic", f"{QUEUE}_dlq"),
    "redrive, to the queue": (
        lambda broker: broker.redrive(QUEUE, dry_run=False, reason="a test"),
        "WRITE",
        "topic",
        QUEUE,
    ),
    "redrive, the note": (
        lambda broker: broker.redrive(QUEUE, dry_run=False, reason="a test"),
        "WRITE",
        "topic",
        f"{QUEUE}_dlq",
    ),
}


@pytest.mark.parametrize("ask", ASKS)
def test_a_question_without_a_right_names_it_and_is_answered_once_it_is_granted(
    client: Client, make_broker: MakeBroker, ask: str
) -> None:
    question, operation, kind, name = ASKS[ask]
    missing = client.right(operation, kind, name)
    client.owner.enqueue(message())
    client.owner.enqueue(message(), delay=3_600_000)
    add_dead_letter(client.owner, [message()])
    client.grant_all_but(missing)
    broker = make_broker(client)

    with pytest.raises(BrokerConnectionError) as raised:
        question(broker)
    text = f"{raised.value} {getattr(raised.value, 'failures', '')}"
    assert f"--{kind} {missing[2]}" in text
    assert "reachable" not in text
    assert "Request" not in text
    if not hasattr(raised.value, "failures"):
        assert isinstance(raised.value, NotAuthorized)

    client.grant(missing)
    with contextlib.suppress(CancelUndecided):  # no worker runs here
        question(broker)


@pytest.mark.parametrize(
    ("doing", "question"),
    [
        ("a count", lambda broker: broker.count(QUEUE)),
        ("the state of a queue", lambda broker: broker.queues(QUEUE)),
        ("a flush", lambda broker: broker.flush(QUEUE)),
        ("a worker of 'default'", lambda broker: broker.consume(QUEUE)),
    ],
)
def test_who_has_no_right_at_all_is_told_every_right_at_once(
    client: Client, make_broker: MakeBroker, doing: str, question: Callable[[KafkaBroker], object]
) -> None:
    client.owner.parts.topics.ensure([client.owner.parts.topics.lanes(QUEUE)])
    broker = make_broker(client)
    with pytest.raises(NotAuthorized, match=f"Everything that {doing} takes: ") as raised:
        question(broker)
    client.grant(*granted(str(raised.value).partition("takes: ")[2]))
    question(broker)


def granted(commands: str) -> list[Right]:
    """The rights that commands of kafka-acls.sh grant."""
    rights: list[Right] = []
    for command in commands.split(" && "):
        words = command.split()
        pairs = list(itertools.pairwise(words))
        operations = [OPERATIONS[value] for name, value in pairs if name == "--operation"]
        resources = [(name[2:], value) for name, value in pairs if name in ("--topic", "--group")]
        rights += [(operation, *resource) for operation in operations for resource in resources]
    return rights


WORKERS: dict[str, tuple[str, str, str]] = {
    "its group": ("READ", "group", QUEUE),
    "its queue": ("READ", "topic", QUEUE),
    "the forwarders' group": ("READ", "group", "delayed.forwarders"),
    "the delayed topic": ("READ", "topic", "delayed"),
}


@pytest.mark.parametrize("what", WORKERS)
def test_a_worker_without_a_right_says_so_once_and_works_once_it_is_granted(
    client: Client,
    make_broker: MakeBroker,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    missing = client.right(*WORKERS[what])
    client.grant_all_but(missing)
    broker = make_broker(client)
    ran: list[str] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task() -> None:
        ran.append("task")

    client.owner.enqueue(message(), delay=1 if "delayed" in missing[2] else None)
    caplog.set_level(logging.DEBUG, logger=rights_logger.name)
    start_worker(broker)
    said = f"--{missing[1]} {missing[2]}"
    wait_until(lambda: lines(caplog, said), deadline_s=DEADLINE_S, what="the worker to say what it lacks")
    wait_until(
        lambda: len(lines(caplog, said, logging.DEBUG)) > 3, deadline_s=DEADLINE_S, what="it to try again"
    )
    assert len(lines(caplog, said)) == 1

    client.grant(missing)
    wait_until(lambda: ran, deadline_s=DEADLINE_S, what="the message to run")


def test_a_retry_that_may_not_be_written_down_is_held_until_it_may(
    client: Client, make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    missing = client.right("WRITE", "topic", "delayed")
    client.grant_all_but(missing)
    broker = make_broker(client)
    ran: list[str] = []

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def task() -> None:
        ran.append("task")
        if len(ran) == 1:
            raise RuntimeError("asked to")

    client.owner.enqueue(message())
    start_worker(broker)
    said = f"--topic {missing[2]}"
    wait_until(lambda: lines(caplog, said), deadline_s=DEADLINE_S, what="the worker to say what it lacks")
    assert client.owner.count(QUEUE) == 1
    client.grant(missing)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert len(ran) == 2
    assert list(client.owner.dead_letters(QUEUE)) == []


def test_a_worker_without_rights_to_the_lanes_runs_what_needs_none(
    client: Client, make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    client.owner.parts.topics.ensure([client.owner.parts.topics.lanes(QUEUE)])
    client.grant_all_but()
    broker = make_broker(client)
    ran: list[str] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task() -> None:
        ran.append("task")

    client.owner.enqueue_many([message(), message(partition_key="a"), message(), message(partition_key="b")])
    start_worker(broker)
    wait_until(lambda: len(ran) == 4, deadline_s=DEADLINE_S, what="all of them to run")


def test_a_worker_that_may_see_the_lanes_and_not_read_them_names_the_topic_and_the_right(
    client: Client, make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = client.owner.parts.topics.lanes(QUEUE)
    client.owner.parts.topics.ensure([lanes])
    client.grant_all_but()
    client.grant(("WRITE", "topic", lanes))
    broker = make_broker(client)
    ran: list[str] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task(what: str) -> None:
        ran.append(what)

    keyed = message(partition_key="a").copy(args=("keyed",))
    client.owner.enqueue_many([keyed, *(message().copy(args=("plain",)) for _ in range(8))])
    start_worker(broker)
    said = f"It takes the right READ on the topic {lanes!r}"
    wait_until(lambda: lines(caplog, said), deadline_s=DEADLINE_S, what="the worker to say what it lacks")
    (line,) = lines(caplog, said)
    assert f"--operation Read --topic {lanes}" in line
    wait_until(lambda: len(ran) == 8, deadline_s=DEADLINE_S, what="those without a key to run")
    assert "keyed" not in ran

    client.grant(("READ", "topic", lanes))
    wait_until(lambda: ran[8:] == ["keyed"], deadline_s=DEADLINE_S, what="the other one to run")


def test_a_worker_that_loses_the_rights_to_its_lanes_topic_names_them_until_it_has_them_again(
    client: Client, make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with an ordered retry that waits in the lanes topic
    lanes = client.owner.parts.topics.lanes(QUEUE)
    client.owner.parts.topics.ensure([lanes])
    rights = [("READ", "topic", lanes), ("WRITE", "topic", lanes)]
    client.grant_all_but()
    client.grant(*rights)
    broker = make_broker(client)
    may_succeed = threading.Event()

    @dramatiq.actor(
        broker=broker, actor_name="ordered", key_order="ordered", min_backoff=500, max_backoff=500
    )
    def task() -> None:
        if not may_succeed.is_set():
            raise ConnectionError("it waits in its lane")

    start_worker(broker)
    task.send_with_options(partition_key="a")
    wait_until(
        lambda: client.owner.parts.lane_backlog.count(QUEUE) == 1, deadline_s=DEADLINE_S, what="it to wait"
    )

    # When the rights are taken away while it runs
    client.revoke(*rights)
    said = f"It takes the right READ on the topic {lanes!r}"
    wait_until(lambda: lines(caplog, said), deadline_s=DEADLINE_S, what="the worker to say what it lacks")
    assert lines(caplog, "was recreated", logging.WARNING) == []
    assert lines(caplog, "Kafka allows now", logging.WARNING) == []

    # Then it goes on when it has them again
    may_succeed.set()
    client.grant(*rights)
    client.owner.join(QUEUE, timeout=JOIN_TIMEOUT_MS)


def test_a_worker_that_may_not_see_lanes_in_which_something_waits_says_so_and_loses_nothing(
    client: Client, make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with all rights that has left an ordered retry behind
    lanes = client.owner.parts.topics.lanes(QUEUE)
    client.owner.parts.topics.ensure([lanes])
    began = threading.Event()

    @dramatiq.actor(
        broker=client.owner, actor_name="ordered", key_order="ordered", min_backoff=1_000, max_backoff=1_000
    )
    def fails() -> None:
        began.set()
        raise ConnectionError("it waits in its lane")

    worker = start_worker(client.owner)
    fails.send_with_options(partition_key="a")
    wait_until(began.is_set, deadline_s=DEADLINE_S, what="it to fail")
    wait_until(
        lambda: client.owner.parts.lane_backlog.count(QUEUE) == 1, deadline_s=DEADLINE_S, what="it to wait"
    )
    worker.stop()

    # When the next one may not see the lanes
    client.grant_all_but()
    broker = make_broker(client)
    ran: list[str] = []

    @dramatiq.actor(broker=broker, actor_name="ordered", key_order="ordered")
    def succeeds() -> None:
        ran.append("ordered")

    start_worker(broker)

    # Then it says so, and runs it once it may
    wait_until(lambda: lines(caplog, f"--topic {lanes}"), deadline_s=DEADLINE_S, what="the worker to say so")
    assert ran == []
    client.grant(("READ", "topic", lanes), ("WRITE", "topic", lanes))
    wait_until(lambda: ran, deadline_s=DEADLINE_S, what="it to run")


def lines(caplog: pytest.LogCaptureFixture, text: str, level: int = logging.ERROR) -> list[str]:
    """What this broker and Dramatiq have logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= level
        and record.name.startswith(("broker", "dramatiq"))
        and text in record.getMessage()
    ]


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("READ", QUEUE),
        ("READ", "delayed"),
        ("READ", f"{QUEUE}_lanes"),
        ("READ", f"{QUEUE}_dlq"),
        ("READ", "dramatiq_control"),
        ("WRITE", QUEUE),
        ("WRITE", "dramatiq_control"),
    ],
)
def test_a_replay_without_a_right_names_it_and_succeeds_once_it_is_granted(
    client: Client,
    make_broker: MakeBroker,
    start_worker: StartWorker,
    operation: str,
    name: str,
) -> None:
    owner = client.owner
    owner.parts.topics.ensure([owner.parts.topics.lanes(QUEUE)])
    owner.resume(QUEUE)  # an empty control topic can be read without the right
    dramatiq.actor(broker=owner, actor_name="task", queue_name=QUEUE)(lambda: None)
    owner.enqueue(message())
    start_worker(owner)
    owner.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    missing = (operation, "topic", f"{client.namespace}{name}")
    needs = [
        (need.operation, need.kind, str(need.name))
        for need in owner.parts.operations(QUEUE).replaying(dry_run=False)
    ]
    client.grant(*(need for need in needs if need != missing))
    broker = make_broker(client)

    with pytest.raises(NotAuthorized) as raised:
        broker.replay(QUEUE, dry_run=False, reason="a test")
    assert f"--operation {name_for_tool(operation)} --topic {missing[2]}" in str(raised.value)

    client.grant(missing)
    assert broker.replay(QUEUE, dry_run=False, reason="a test").sent == 1
