"""The time of one assignment by kafka-python's cooperative-sticky assignor: ``python -m bench.assignor``.

The leader of a group computes it at each rebalance, on the thread that also polls Kafka. Nothing runs
beside it: no Kafka, no worker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from broker.kafka.rebalance import ForgetfulCooperativeStickyAssignor

TOPIC = "queue"
PARTITIONS = (100, 500, 1_000)
MEMBERS = (1, 2, 24)


def members_of(owned: Mapping[str, Sequence[int]]) -> list[SimpleNamespace]:
    """Members as the group's leader sees them, each with the partitions that it owns."""
    subtopic = ConsumerProtocolSubscription.TopicPartition
    return [
        SimpleNamespace(
            member_id=name,
            metadata=ConsumerProtocolSubscription(
                version=ForgetfulCooperativeStickyAssignor.version,
                topics=[TOPIC],
                user_data=b"",
                owned_partitions=[subtopic(topic=TOPIC, partitions=list(partitions))] if partitions else [],
                generation_id=1,
            ),
        )
        for name, partitions in owned.items()
    ]


def assignment_s(partitions: int, owned: Mapping[str, Sequence[int]]) -> float:
    """The seconds of one assignment."""
    cluster = SimpleNamespace(
        partitions_for_topic=lambda topic: set(range(partitions)), topics=lambda: {TOPIC}
    )
    members = members_of(owned)
    began_s = time.perf_counter()
    ForgetfulCooperativeStickyAssignor().assign(cluster, members)
    return time.perf_counter() - began_s


def main() -> None:
    print("| partitions | members | first assignment | one more member | unchanged |")
    print("|---|---|---|---|---|")
    for partitions in PARTITIONS:
        for count in MEMBERS:
            names = [f"member-{number:02}" for number in range(count)]
            shares = {name: range(number, partitions, count) for number, name in enumerate(names)}
            times_s = [
                assignment_s(partitions, dict.fromkeys(names, ())),
                assignment_s(partitions, {**shares, "new": ()}),
                assignment_s(partitions, shares),
            ]
            figures = " | ".join(f"{1000 * each:,.0f} ms" for each in times_s)
            print(f"| {partitions:,} | {count} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
