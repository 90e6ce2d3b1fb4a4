"""Dead letters that no worker wrote, and the messages in a queue's topic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dramatiq import Message

from broker import KafkaBroker
from broker.dead_letters import dead_letter_record
from broker.dead_letters.topic_log import DeadLetterTopic
from broker.deliveries.delivery import Origin

QUEUE = "default"


def message(actor: str = "task", **options: Any) -> Message[Any]:
    """A message as it is after two retries."""
    spent = {"retries": 2, "traceback": "...", "last_error": "...", "idle_for_s": 3.5, "requeue_timestamp": 5}
    return Message(QUEUE, actor, (1,), {"by": "name"}, {**spent, **options})


def add_dead_letter(
    broker: KafkaBroker,
    messages: Iterable[Message[Any]],
    error: Exception | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Put dead letters of ``messages`` into Kafka."""
    error = ValueError("bad input") if error is None else error
    records = [
        dead_letter_record(
            broker.parts.topics,
            queue_name=QUEUE,
            origin=Origin(broker.parts.topics.queue(QUEUE), 0, number),
            raw=message.encode(),
            error=error,
            headers=list(headers),
        )
        for number, message in enumerate(messages)
    ]
    assert broker.parts.publisher.publish(records) == {}


def on_queue(broker: KafkaBroker) -> list[Message[Any]]:
    """Every message that the queue's topic holds."""
    return [message for message, _ in records_on_queue(broker)]


def records_on_queue(broker: KafkaBroker) -> list[tuple[Message[Any], list[tuple[str, bytes]]]]:
    topic = broker.parts.topics.queue(QUEUE)
    broker.parts.topics.ensure([topic])
    with DeadLetterTopic(broker.parts.clients, topic) as log:
        return [
            (Message.decode(record.value or b""), list(record.headers)) for record in log.records_since({})
        ]
