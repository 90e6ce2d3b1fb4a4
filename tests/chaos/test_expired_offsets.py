"""Groups whose committed offsets Kafka has dropped, and groups that never had any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from tests.broker.topics.foreign_topics import configure
from tests.chaos.arena import Arena

DAY_MS = 24 * 3600 * 1000
#: Kafka keeps the offsets of a group without members for seven days.
EXPIRED_MS = 8 * DAY_MS
NO_OFFSET = "no offset is committed"
NO_COMMITTED = "has no committed offset"


def send_aged(play: Arena, numbers: Iterable[int], age_ms: int) -> set[int]:
    """Send messages that were sent a while ago, as far as Kafka knows."""
    numbers = set(numbers)
    producer = KafkaProducer(bootstrap_servers=play.bootstrap_servers)
    try:
        sent = [
            producer.send(
                play.topic(),
                play.message("work", number).encode(),
                partition=0,
                timestamp_ms=int(time.time() * 1000) - age_ms,
            )
            for number in sorted(numbers)
        ]
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close()
    play.sent |= numbers
    return numbers


def test_a_replay_after_the_offsets_have_expired_is_an_error_with_its_extent(
    arena: Callable[..., Arena],
) -> None:
    # Given a queue whose work is done, by a group that had no workers for so long that its offsets expired
    play = arena(partitions=1, retention_ms=30 * DAY_MS)
    play.broker.parts.topics.ensure([play.topic()])
    # The producer's times, so that records can be as old as they need to be.
    configure(play.broker, play.topic(), {"message.timestamp.type": "CreateTime"})
    old = send_aged(play, range(20), EXPIRED_MS)
    worker = play.start_worker()
    play.wait_until_left(0)
    worker.stop(timeout_s=30)
    with play.admin() as admin:
        admin.delete_groups([play.broker.parts.group_of(play.queues[0])])

    # When one more message is sent, and a worker starts
    new = play.send("work", [20])
    assert play.waiting() == 21, "all that will run counts as left"
    worker = play.start_worker()
    play.wait_until_done(new)

    # Then it says what runs again, and why
    entries = play.balance("expired offsets", repeats_at_most=20)
    assert all(entries.started[number] == 2 for number in old)
    (line,) = worker.log_lines(NO_OFFSET)
    assert "[ERROR]" in line
    assert "all 21 record(s) run" in line
    assert "20 of them are older than the 10080 minutes" in line
    assert "offsets.retention.minutes" in line
    assert "retention.ms" in line


def test_a_replay_after_the_offsets_were_deleted_is_a_warning_with_its_extent(
    arena: Callable[..., Arena],
) -> None:
    # Given a queue whose work is done, and a group whose offsets an operator has deleted
    play = arena(partitions=1)
    worker = play.start_worker()
    play.wait_until_done(play.send("work", range(20)))
    play.wait_until_left(0)
    worker.stop(timeout_s=30)
    with play.admin() as admin:
        admin.delete_groups([play.broker.parts.group_of(play.queues[0])])

    # When one more message is sent, and a worker starts
    new = play.send("work", [20])
    worker = play.start_worker()
    play.wait_until_done(new)

    # Then it says how many run, once
    play.wait_until_left(0)
    (line,) = worker.log_lines(NO_COMMITTED)
    assert "[WARNING]" in line
    assert "the first of the 21 record(s)" in line
    assert "its offsets were deleted" in line
    assert worker.log_lines(NO_OFFSET) == []


def test_a_new_group_is_no_error_while_its_records_cannot_have_run(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=1, retention_ms=30 * DAY_MS)
    play.broker.parts.topics.ensure([play.topic()])
    # The producer's times, so that records can be as old as they need to be.
    configure(play.broker, play.topic(), {"message.timestamp.type": "CreateTime"})
    sent = send_aged(play, range(5), DAY_MS) | play.send("work", range(5, 10))

    worker = play.start_worker()

    play.wait_until_done(sent)
    assert worker.log_lines(NO_OFFSET) == []
    (line,) = worker.log_lines(NO_COMMITTED)
    assert "That is right for a new group" in line


def test_a_queues_records_do_not_outlive_their_retention_by_more_than_a_day(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=1)
    topic = play.topic()

    play.broker.parts.topics.ensure([topic])

    wanted = ConfigResource(ConfigResourceType.TOPIC, topic)
    with play.admin() as admin:
        settings = admin.describe_configs([wanted], config_filter="all")["topic"][topic]
    assert int(settings["segment.ms"]["value"]) <= DAY_MS
