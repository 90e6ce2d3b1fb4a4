"""broker.queue_names(), find() and check_topics(): questions of operators, answered from Kafka alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import QueueNotFound
from dramatiq.message import Message

from broker import InvalidQueueName, KafkaBroker, ParameterRefused, RecordState, UnknownWorker
from broker.kafka.topic_names import TopicNames
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, encode
from broker.reports.report import encode_report
from broker.testing import Kit, advance, drain
from broker.testing.kit import current
from tests.broker.reports.samples import report


@pytest.fixture
def kit(kafka_broker: KafkaBroker) -> Kit:
    return current()


@pytest.fixture
def application_broker(monkeypatch: pytest.MonkeyPatch) -> KafkaBroker:
    broker = KafkaBroker(partitions=1)
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


def test_without_a_namespace_a_queue_is_declared_or_has_dead_letters_or_lanes() -> None:
    names = TopicNames("")
    topics = ["a", "a_dlq", "b", "b_lanes", "orders", "delayed", "dramatiq_workers", "__consumer_offsets"]
    assert names.queues_among(topics) == ["a", "b"]
    assert names.queues_among(topics, declared={"orders", "missing"}) == ["a", "b", "orders"]


def test_in_a_namespace_each_topic_but_the_brokers_own_is_a_queue() -> None:
    topics = [
        "shop-a",
        "shop-a_dlq",
        "shop-b",
        "shop-delayed",
        "shop-dramatiq_history",
        "other",
        "mall-c_dlq",
    ]
    assert TopicNames("shop-").queues_among(topics) == ["a", "b"]


def test_the_names_of_queues_are_read_and_nothing_is_created(kit: Kit) -> None:
    assert kit.broker.queue_names() == []
    assert kit.broker.check_topics() == []
    assert kit.cluster.topics == {}
    kit.broker.declare_queue("mail")
    assert kit.broker.queue_names() == []
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    assert kit.broker.queue_names() == ["mail"]


def test_find_tells_waiting_taken_and_completed_records_apart(kit: Kit) -> None:
    sent: list[Message[Any]] = [dramatiq.Message("mail", "task", (n,), {}, {}) for n in range(5)]
    kit.broker.declare_queue("mail")
    kit.broker.enqueue_many(sent)
    offsets = kit.cluster.group("dramatiq.mail").offsets
    state = CommitState(1, 3, (1, 3))
    offsets[TopicPartition("mail", 0)] = OffsetAndMetadata(1, encode(state))
    found = kit.broker.find("mail")
    assert [(r.offset, r.state) for r in found.records] == [
        (1, RecordState.INCOMPLETE),
        (3, RecordState.INCOMPLETE),
        (4, RecordState.WAITING),
    ]
    assert (found.scanned, found.total, found.is_complete) == (4, 4, True)
    everything = kit.broker.find("mail", completed=True)
    assert [r.message.message_id for r in everything.records] == [message.message_id for message in sent]
    (one,) = kit.broker.find("mail", message_id=sent[3].message_id).records
    assert (one.topic, one.partition, one.offset, one.queue_name) == ("mail", 0, 3, "mail")
    (one,) = kit.broker.find("mail", where=lambda message: message.args == (4,)).records
    assert one.message.message_id == sent[4].message_id
    assert kit.broker.find("mail", message_id=sent[0].message_id).records == ()


def test_find_reads_the_records_of_a_time_alone(kit: Kit) -> None:
    kit.broker.declare_queue("mail")
    times = []
    for n in range(4):
        kit.broker.enqueue(dramatiq.Message("mail", "task", (n,), {}, {}))
        times.append(datetime.fromtimestamp(kit.clock.wall_ms() / 1000, UTC))
        advance(seconds=60)
    found = kit.broker.find("mail", since=times[1], until=times[2])
    assert [record.message.args for record in found.records] == [(1,), (2,)]
    assert (found.scanned, found.total) == (2, 2)
    assert [r.message.args for r in kit.broker.find("mail", since=times[3]).records] == [(3,)]
    assert [r.message.args for r in kit.broker.find("mail", until=times[0]).records] == [(0,)]
    assert kit.broker.find("mail", since=times[3] + timedelta(seconds=1)).records == ()
    with pytest.raises(ParameterRefused, match="since"):
        kit.broker.find("mail", since=times[0].replace(tzinfo=None))


def test_find_stops_at_its_limits_and_says_so_and_reports_its_progress(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.admin.message_search.PROGRESS_RECORDS", 1)
    kit.broker.declare_queue("mail")
    for _ in range(3):
        kit.broker.enqueue_many([dramatiq.Message("mail", "task", (), {}, {}) for _ in range(500)])
    seen: list[tuple[int, int]] = []
    found = kit.broker.find("mail", limit=1, on_progress=lambda done, total: seen.append((done, total)))
    assert len(found.records) == 1
    found = kit.broker.find("mail", scan_limit=1)
    assert found.is_complete is (found.scanned == found.total)
    assert seen
    assert all(total == 1500 for _, total in seen)


def test_find_reads_no_queue_that_cannot_be_one_and_finds_nothing_in_a_missing_one(kit: Kit) -> None:
    with pytest.raises(InvalidQueueName):
        kit.broker.find("dramatiq_workers")
    assert kit.broker.find("missing").total == 0
    assert kit.cluster.topics == {}


def test_check_topics_has_the_settings_and_the_findings_of_each_topic(kit: Kit) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()
    kit.cluster.topics["mail"].settings["cleanup.policy"] = "compact"
    kit.cluster.topics["mail_dlq"].settings["retention.ms"] = "60000"
    topics = {topic.name: topic for topic in kit.broker.check_topics()}
    assert {"mail", "mail_dlq", "delayed"} <= topics.keys()
    (certain,) = topics["mail"].findings
    assert (certain.setting, certain.is_certain, certain.remedy) == ("cleanup.policy", True, "delete")
    assert "--entity-name mail --add-config cleanup.policy=delete" in certain.command
    (doubtful,) = topics["mail_dlq"].findings
    assert (doubtful.setting, doubtful.is_certain) == ("retention.ms", False)
    assert topics["delayed"].role == "delayed"


@pytest.mark.parametrize("verb", ["quiet", "stop"])
def test_a_command_to_a_worker_that_nobody_knows_is_refused_and_not_recorded(kit: Kit, verb: str) -> None:
    kit.cluster.create_topic("dramatiq_workers")
    partition = TopicPartition("dramatiq_workers", 0)
    kit.cluster.append(partition, b"web-1:7:x", encode_report(report(worker_id="web-1:7:x")))
    give = getattr(kit.broker, verb)
    for mistyped in ("nonsense", "", "web-1:7"):
        with pytest.raises(UnknownWorker, match=f"No worker '{mistyped}' has reported.*: web-1:7:x"):
            give(mistyped, reason="a test")
    assert kit.broker.parts.commands.standing() == {}
    give("web-1:7:x", reason="a test")
    give("to-come", reason="a test", allow_unseen=True)
    standing = kit.broker.parts.commands.standing().values()
    assert [(command.kind.value, command.target) for command in standing] == [
        (verb, "web-1:7:x"),
        (verb, "to-come"),
    ]


def test_arrivals_are_counted_by_interval_without_reading_a_record(kit: Kit) -> None:
    kit.broker.declare_queue("mail")
    since = datetime.fromtimestamp(kit.clock.wall_ms() / 1000, UTC)
    for count in (2, 0, 5):
        kit.broker.enqueue_many([dramatiq.Message("mail", "task", (), {}, {}) for _ in range(count)])
        kit.advance(seconds=60)
    found = kit.broker.arrivals("mail", since=since, interval_s=60.0)
    assert (found.counts, found.count, found.elapsed_s) == ((2, 0, 5), 7, 180.0)
    assert (found.per_s, found.peak_per_s) == (7 / 180, 5 / 60)
    later = kit.broker.arrivals("mail", since=since + timedelta(seconds=150), interval_s=60.0)
    assert (later.counts, later.per_s, later.peak_per_s) == ((0,), 0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"since": datetime(2020, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"since": datetime(2020, 1, 1, tzinfo=UTC), "interval_s": 1.0}, "more than 1,440 intervals"),
        ({"since": datetime(2099, 1, 1, tzinfo=UTC)}, "have to be a past period"),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC), "interval_s": 0.0}, "have to be a past period"),
    ],
)
def test_a_period_that_makes_no_sense_is_refused(kit: Kit, arguments: dict[str, Any], said: str) -> None:
    kit.broker.declare_queue("mail")
    with pytest.raises(ValueError, match=said):
        kit.broker.arrivals("mail", **arguments)
    with pytest.raises(QueueNotFound, match="No queue 'male' is known"):
        kit.broker.arrivals("male", since=datetime(2020, 1, 1, tzinfo=UTC))
