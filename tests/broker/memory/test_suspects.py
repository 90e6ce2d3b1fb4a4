"""Messages that may have killed a worker, one after the other."""

from __future__ import annotations

import dramatiq

from broker import KafkaBroker
from broker.testing import Kit


def test_a_suspect_waits_for_no_commit_interval_behind_another_one() -> None:
    broker = KafkaBroker(partitions=1, commit_interval_ms=3_600_000)
    runs: list[int] = []
    work = dramatiq.actor(broker=broker, actor_name="work")(runs.append)

    with Kit(broker).use() as worker:
        # Given two messages that were both about to run when their worker died for the second time
        work.send(1)
        work.send(2)
        with worker.crash_worker():
            worker.drain()
            worker.drain()

        # When the first has run alone, and is in no commit yet
        # Then the second runs alone as well, although no time passes
        runs.clear()
        worker.drain()
        assert runs == [1, 2]
