"""Many delays wait, become due, and survive the death of every worker and of Kafka meanwhile."""

from __future__ import annotations

import time

from bench.delays.crew import Crew
from bench.delays.ground import Ground, say
from dev.waiting import wait_until

WORKERS = 2
#: The time in which all of them become due: faster than they can be forwarded.
WINDOW_MS = 30_000
#: The share of them that is forwarded when all processes are killed.
KILLED_AT = 0.3
COMPACTION_DEADLINE_S = 600.0
SETTLED_S = 3.0
#: The remaining share of the topic at which it counts as compacted.
COMPACTED_TO = 0.05


class Survival:
    """One namespace with ``count`` delays, from the first send to the compaction.

    Parameters:
      wait_s: The time until the first is due. All earlier measurements must fit into it.
    """

    def __init__(self, ground: Ground, count: int, wait_s: float) -> None:
        self._ground = ground
        self._count = count
        self._start_ms = int((time.time() + wait_s) * 1000)

    def measure(self) -> None:
        with Crew(self._ground) as crew:
            crew.wait_until_ready()
            say("memory of a worker with nothing to do, MB", crew.peak_mb)
        self._fill()
        self._index()
        early_s = self._start_ms / 1000 - time.time()
        say("left until the first was due (negative: the figures above suffered), s", early_s)
        time.sleep(max(0.0, early_s))
        self._forward_through_a_crash()
        self._account()
        self._compact()

    def _due_ms(self, number: int) -> int:
        return self._start_ms + number * WINDOW_MS // self._count

    def _fill(self) -> None:
        begun_s = time.monotonic()
        self._ground.send(self._count, self._due_ms)
        say("sent a second", self._count / (time.monotonic() - begun_s))
        say("topic with all of them waiting, MB", self._ground.topic_mb())

    def _index(self) -> None:
        self._time_start("with nothing of it on disk: until all is served, s")
        say("index of all of them on disk, MB", self._ground.index_mb())
        self._time_start("killed and started again, s")

    def _time_start(self, what: str) -> None:
        begun_s = time.monotonic()
        with Crew(self._ground, WORKERS) as crew:
            crew.wait_until_ready()
            say(f"{WORKERS} workers, {what}", time.monotonic() - begun_s)
            say("memory of a worker at most, MB", crew.peak_mb)

    def _forward_through_a_crash(self) -> None:
        already = self._ground.arrived()
        with Crew(self._ground, WORKERS):
            self._ground.wait_for(already + int(KILLED_AT * self._count))
        self._ground.server.kill()
        say("forwarded when all workers and Kafka were killed", self._ground_restarted() - already)
        with Crew(self._ground, WORKERS) as crew:
            begun_s, before = time.monotonic(), self._ground.arrived()
            self._ground.wait_for(already + self._count)
            rate = (self._ground.arrived() - before) / (time.monotonic() - begun_s)
            say("forwarded a second after that, takeover included", rate)
            self._wait_for_the_tombstones()
            say("memory of a worker at most, MB", crew.peak_mb)

    def _ground_restarted(self) -> int:
        self._ground.server.start()
        return self._ground.arrived()

    def _wait_for_the_tombstones(self) -> None:
        """Wait until no more records about delays are written. The compaction shows whether all ended."""
        before_mb = -1.0
        while (size_mb := self._ground.topic_mb()) != before_mb:
            before_mb = size_mb
            time.sleep(SETTLED_S)

    def _account(self) -> None:
        times = bytearray(self._count)
        early = 0
        for number, record in self._ground.in_queue():
            times[number] += 1
            early += record.timestamp < self._due_ms(number)
        say("lost", times.count(0))
        say("forwarded more than once", self._count - times.count(0) - times.count(1))
        say("forwarded before their time", early)

    def _compact(self) -> None:
        before_mb = self._ground.topic_mb()
        say("topic when all had come and gone, before compaction, MB", before_mb)
        self._ground.compact_hastily()
        begun_s = time.monotonic()
        wait_until(
            lambda: self._compacted_mb() < COMPACTED_TO * before_mb,
            deadline_s=COMPACTION_DEADLINE_S,
            what="the compaction",
        )
        say("topic after compaction, tombstones included, MB", self._ground.topic_mb())
        say("compaction took, s", time.monotonic() - begun_s)

    def _compacted_mb(self) -> float:
        self._ground.roll()
        time.sleep(1.0)
        return self._ground.topic_mb()
