"""A clock that is wrong for a while, on a machine that forwards."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from sys import executable
from typing import cast

import pytest
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.structs import TopicPartition

from broker.delays.forwarding import FAILED_BACKOFF_S, REFUSED_BACKOFF_S, Forwarding
from broker.delays.index import DelayIndex, Progress
from broker.delays.index_files import Identity, IndexFiles
from broker.delays.index_schema import Row
from broker.delays.owned_partition import OwnedPartition
from broker.delays.record_format import Delay
from broker.kafka.topics import Topics
from broker.produce.publisher import Publisher
from broker.produce.record import Record
from dev.child import Child
from tests.broker.delays.station import QUEUE, SESSION_TIMEOUT_MS, Station, now_ms
from tests.broker.kafka_python import whole_admin

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_800_000_000_000
HERE = Identity("cluster", "delayed", "first", 0)
ClockProcess = Callable[[Station, Path], Child]


class Refusing:
    """A publisher that has an error for every record, until it is told otherwise."""

    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure
        self.published: list[Record] = []

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        if self.failure is not None:
            return dict.fromkeys(range(len(records)), self.failure)
        self.published += records
        return {}


class ThereTopics:
    def ensure(self, topics: list[str], *, right: str = "") -> None:
        """They are all there."""

    def queue(self, name: str) -> str:
        return f"queue-{name}"


@pytest.mark.parametrize("jump_ms", [2 * HOUR_MS, -2 * HOUR_MS], ids=["ahead", "behind"])
@pytest.mark.parametrize(
    ("failure", "rest_s"),
    [
        (KafkaTimeoutError("no answer"), FAILED_BACKOFF_S),
        (TopicAuthorizationFailedError(), REFUSED_BACKOFF_S),
    ],
    ids=["failed", "refused"],
)
def test_a_pause_after_a_failure_is_as_long_as_ever_when_the_clock_is_set_meanwhile(
    failure: BaseException, rest_s: float, jump_ms: int
) -> None:
    clock_s, publisher = [1_000.0], Refusing(failure)
    forwarding = Forwarding(cast(Topics, ThereTopics()), cast(Publisher, publisher), clock=lambda: clock_s[0])
    owned = _owned(DelayIndex(), [_delay(1, NOW_MS - DAY_MS), _delay(2, NOW_MS - DAY_MS)])
    forwarding.step([owned], NOW_MS + jump_ms)
    publisher.failure = None

    forwarding.step([owned], NOW_MS)
    before = len(publisher.published)
    clock_s[0] += rest_s
    forwarding.step([owned], NOW_MS)

    assert (before, [r.value for r in publisher.published if r.topic == f"queue-{QUEUE}"]) == (
        0,
        [b"1", b"2"],
    )
    owned.index.close()


def test_what_rests_keeps_nothing_else_from_its_turn_and_comes_back_itself() -> None:
    index = DelayIndex()
    owned = _owned(index, [_delay(number, number) for number in range(1_000)])
    first = index.due(NOW_MS, limit=400, limit_bytes=DAY_MS, now_s=0.0)
    index.note(_postponed(first, until_s=1.0))

    during = index.due(NOW_MS, limit=400, limit_bytes=DAY_MS, now_s=0.5)
    after = index.due(NOW_MS, limit=400, limit_bytes=DAY_MS, now_s=1.0)

    assert [row.delay.due_ms for row in during] == list(range(400, 800))
    assert [row.delay.due_ms for row in after] == [*range(200), *range(400, 600)]
    owned.index.close()


def test_a_process_that_starts_anew_knows_of_no_pause(tmp_path: Path) -> None:
    files = IndexFiles(tmp_path)
    index = files.open(HERE, now_ms=NOW_MS, keep_ms=DAY_MS)
    index.apply([_delay(1, 0)], 1, now_ms=NOW_MS)
    index.note(_postponed(index.due(NOW_MS, limit=1, limit_bytes=1), until_s=1_000_000.0))
    assert index.due(NOW_MS, limit=1, limit_bytes=1, now_s=0.0) == []
    index.close()

    again = files.open(HERE, now_ms=NOW_MS, keep_ms=DAY_MS)

    assert len(again.due(NOW_MS, limit=1, limit_bytes=1, now_s=0.0)) == 1
    again.close()


def test_an_index_of_the_version_before_holds_nothing_back_that_it_had_put_off(tmp_path: Path) -> None:
    path = tmp_path / HERE.cluster_id / HERE.topic / "0.sqlite3"
    path.parent.mkdir(parents=True)
    _write_version_1(path, due_ms=NOW_MS, try_ms=NOW_MS + 2 * HOUR_MS)

    index = IndexFiles(tmp_path).open(HERE, now_ms=NOW_MS, keep_ms=DAY_MS)

    assert index.next_offset == 7
    assert [row.delay.due_ms for row in index.due(NOW_MS, limit=10, limit_bytes=10)] == [NOW_MS]
    assert index.seconds_until_due(NOW_MS, 0.0) == 0.0
    index.apply([_delay(2, NOW_MS)], 8, now_ms=NOW_MS)
    assert index.count(QUEUE) == 2
    index.close()


@pytest.fixture
def forwarder_with_a_clock() -> Iterator[ClockProcess]:
    """Starts forwarders whose clocks are ahead by the seconds in a file."""
    with ExitStack() as children:

        def start(station: Station, ahead_s: Path) -> Child:
            child = Child(
                "forwarder whose clock is wrong",
                [
                    *(executable, "-m", "tests.broker.delays.shifted_clock", str(ahead_s)),
                    *("tests.broker.delays.forwarder_process", station.bootstrap_servers),
                    *(station.namespace, str(station.index_dir), str(SESSION_TIMEOUT_MS), "never", "0"),
                ],
                log=ahead_s.with_suffix(".log"),
            )
            children.callback(child.kill)
            child.start()
            return child

        yield start


@pytest.mark.real_kafka("a limit on a record's timestamp")
@pytest.mark.parametrize("stamped_by", ["CreateTime", "LogAppendTime"])
def test_a_clock_that_was_ahead_for_a_while_holds_nothing_back(
    station: Station, forwarder_with_a_clock: ClockProcess, tmp_path: Path, stamped_by: str
) -> None:
    if stamped_by == "CreateTime":
        _create_topics_that_keep_timestamps(station)
    ahead_s = tmp_path / "ahead-s"
    ahead_s.write_text("7200")
    forwarder_with_a_clock(station, ahead_s)
    meanwhile = station.delay(3_000, 20_000)
    station.wait_for(meanwhile)

    ahead_s.write_text("0")
    later = station.delay(500, 1_000)

    assert sorted(station.wait_for(later)) == sorted([*meanwhile, *later])
    station.wait_until_done()
    # No record says that it is of the time that the wrong clock showed.
    in_an_hour_ms = now_ms() + HOUR_MS
    assert [r.timestamp for r in station.in_queue() if r.timestamp > in_an_hour_ms] == []


def _create_topics_that_keep_timestamps(station: Station) -> None:
    """As the version before created them, or an operator."""
    names = [station.topics.queue(QUEUE), station.topics.delayed]
    with whole_admin(station.clients) as admin:
        for name in names:
            compacted = {"cleanup.policy": "compact"} if name == station.topics.delayed else {}
            spec = {"num_partitions": 2, "replication_factor": 1, "configs": compacted}
            admin.create_topics({name: spec}, wait_for_metadata=True)


def _delay(number: int, due_ms: int) -> Delay:
    return Delay(f"m{number}:{number:016x}", QUEUE, due_ms, b"%d" % number)


def _owned(index: DelayIndex, delays: list[Delay]) -> OwnedPartition:
    index.reset(str(HERE), NOW_MS)
    index.apply(delays, len(delays), now_ms=NOW_MS)
    return OwnedPartition(TopicPartition("delayed", 0), index, end=len(delays), ready=True)


def _postponed(rows: list[Row], until_s: float) -> Progress:
    return Progress(postponed=[(row, until_s) for row in rows])


def _write_version_1(path: Path, *, due_ms: int, try_ms: int) -> None:
    """An index with one delay, put off until ``try_ms``."""
    delay_id, value = f"m:{1:016x}", b"1"
    checksum = zlib.crc32(value, zlib.crc32(f"{delay_id} {QUEUE} {due_ms}".encode()))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
            CREATE TABLE delays (
                row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,
                state INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0,
                due_ms INTEGER NOT NULL, try_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
                key BLOB, headers TEXT, value BLOB NOT NULL, checksum INTEGER NOT NULL
            );
            CREATE INDEX to_forward ON delays (try_ms) WHERE state = 0;
            CREATE INDEX by_queue ON delays (queue, due_ms) WHERE state = 0;
            CREATE INDEX to_settle ON delays (state) WHERE state <> 0 AND settled = 0;
            CREATE TABLE forwarded (row INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE);
            CREATE TABLE cancels (
                id TEXT PRIMARY KEY, outcome TEXT NOT NULL, decided_ms INTEGER NOT NULL, told INTEGER NOT NULL
            );
            CREATE INDEX to_tell ON cancels (id) WHERE told = 0;
            CREATE INDEX by_age ON cancels (decided_ms) WHERE told = 1;
            PRAGMA user_version = 1;
            """
        )
        meta = [("identity", str(HERE)), ("next_offset", 7), ("complete_ms", NOW_MS)]
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        db.execute(
            "INSERT INTO delays (id, queue, due_ms, try_ms, value, checksum) VALUES (?, ?, ?, ?, ?, ?)",
            (delay_id, QUEUE, due_ms, try_ms, value, checksum),
        )
        db.commit()
