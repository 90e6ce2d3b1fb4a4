"""Sends many messages in bulk, durably."""

from __future__ import annotations

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants
from bench.sizes import Sizes
from bench.systems import BY_KEY


class _Bulk(Row):
    def __init__(self) -> None:
        super().__init__(
            "bulk",
            "enqueue_many",
            contestants("kafka", "dramatiq-rabbitmq-unconfirmed", "dramatiq-redis", "taskiq-kafka"),
            [Metric("messages_per_s", "messages/s")],
            [Target("messages_per_s", ("dramatiq-rabbitmq-unconfirmed",), at_least=1.5)],
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.bulk:,} messages with the fastest call there is for many, until the last is answered"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        with ground.place(system) as place:
            sent = ground.send(system, place, sizes.bulk)
        return {"messages_per_s": sizes.bulk / sent.seconds}


BULK = _Bulk()
