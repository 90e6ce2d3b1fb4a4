"""A worker whose lanes topic loses its tail, in the states that a real cluster shows only by chance."""

from __future__ import annotations

import dramatiq
import pytest

from broker import KafkaBroker
from broker.kafka.types import TopicPartition
from broker.testing import Kit

QUEUE = "work"
BACKOFF_MS = 500


class Station:
    """Workers on one cluster. ``runs`` lists the numbers in the order of their runs."""

    def __init__(self) -> None:
        self.is_open = False
        self.runs: list[int] = []

    def declare(self, broker: KafkaBroker) -> dramatiq.Actor[[int], None]:
        @dramatiq.actor(
            broker=broker, queue_name=QUEUE, key_order="ordered",
            max_retries=1_000, min_backoff=BACKOFF_MS, max_backoff=BACKOFF_MS,
        )  # fmt: skip
        def task(number: int) -> None:
            if not self.is_open:
                raise ConnectionError("the service is away")
            self.runs.append(number)

        return task


@pytest.mark.parametrize("counts_first", [False, True])
@pytest.mark.parametrize("read_s", [0, 5])
def test_an_idle_worker_writes_lost_tombstones_again_whether_or_not_it_had_read_them(
    worker: Kit, other_process: Kit, read_s: int, counts_first: bool
) -> None:
    """Parameters:
    read_s: The time for which the worker checks the lanes topic between its last tombstone and the loss.
    counts_first: Whether a count of the same process is the first to notice the loss.
    """
    # Given messages that waited in the lanes topic and are done
    station = Station()
    task = station.declare(worker.broker)
    for number in range(5):
        task.send_with_options(args=(number,), partition_key="a key")
    worker.drain(raise_errors=False)
    station.is_open = True
    worker.advance(seconds=1)
    worker.drain()
    assert station.runs == list(range(5))
    work_for(worker, read_s)

    # When the lanes topic loses their tombstones
    tombstone, lanes = first_tombstone(worker)
    worker.cluster.elect(lanes, lose_from=tombstone)
    if counts_first:
        worker.broker.count(QUEUE)
    work_for(worker, 15)

    # Then the worker writes them again, and the next worker has nothing to run
    assert worker.broker.count(QUEUE) == 0
    worker.worker.stop()
    station.declare(other_process.broker)
    other_process.drain()
    assert station.runs == list(range(5))


def work_for(kit: Kit, duration_s: float) -> None:
    for _ in range(int(duration_s * 10)):
        kit.advance(seconds=0.1)
        kit.worker.step()


def first_tombstone(kit: Kit) -> tuple[int, TopicPartition]:
    """The offset of the first tombstone in the lanes topic, and its partition."""
    for number in range(len(kit.cluster.topic(f"{QUEUE}_lanes").partitions)):
        partition = TopicPartition(f"{QUEUE}_lanes", number)
        for record in kit.cluster.log(partition).records:
            if record.value is None:
                return record.offset, partition
    raise AssertionError("no message of the lanes topic is done")
