"""The index is a cache: whatever happens to it, what waits is forwarded once, and what was is not again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from sys import executable

import pytest
from dramatiq.message import Message
from kafka.structs import TopicPartition

from broker.delays.forwarding import Forwarding
from broker.delays.index import DelayIndex, Progress
from broker.delays.index_files import Identity, IndexFiles, default_directory
from broker.delays.owned_partition import OwnedPartition
from broker.delays.owned_partitions import OwnedPartitions
from broker.delays.record_format import Delay, Outcome, tombstone
from broker.process.sqlite_cache import CacheDamaged, CacheInUse, CacheUnusable
from broker.produce.record import partition_of
from dev.child import Child
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import PARTITIONS, QUEUE, SESSION_TIMEOUT_MS, Station, message, now_ms
from tests.broker.kafka_python import whole_admin, whole_consumer
from tests.waiting import wait_until

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
HERE = Identity("cluster", "delayed", "first", 0)


def filled(path: Path | None, count: int = 2_000) -> DelayIndex:
    index = DelayIndex(path)
    index.reset(str(HERE), 0)
    index.apply([_delay(number) for number in range(count)], count, now_ms=0)
    return index


def _delay(number: int) -> Delay:
    return Delay(f"m{number}:{number:016x}", QUEUE, number, b"x" * 200)


# One index


def test_an_index_that_was_closed_goes_on_where_it_was(tmp_path: Path) -> None:
    files = IndexFiles(tmp_path)
    index = files.open(HERE, now_ms=0, keep_ms=DAY_MS)
    index.apply([_delay(1)], 7, now_ms=0)
    index.close()

    again = files.open(HERE, now_ms=MINUTE_MS, keep_ms=DAY_MS)

    assert (again.next_offset, again.count(QUEUE)) == (7, 1)
    again.close()


@pytest.mark.parametrize(
    "other",
    [
        Identity("cluster", "delayed", "recreated", 0),
        Identity("other", "delayed", "first", 0),
        Identity("cluster", "delayed", "first", 1),
    ],
    ids=["a topic recreated", "another cluster", "another partition"],
)
def test_an_index_that_belongs_to_something_else_is_emptied(tmp_path: Path, other: Identity) -> None:
    files = IndexFiles(tmp_path)
    index = files.open(HERE, now_ms=0, keep_ms=DAY_MS)
    index.apply([_delay(1)], 7, now_ms=0)
    index.close()
    place = tmp_path / other.cluster_id / other.topic / f"{other.partition}.sqlite3"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tmp_path / "cluster" / "delayed" / "0.sqlite3", place)

    opened = files.open(other, now_ms=0, keep_ms=DAY_MS)

    assert (opened.next_offset, opened.count(QUEUE)) == (0, 0)
    opened.close()


@pytest.mark.parametrize("now_ms", [DAY_MS, -1], ids=["older than the tombstones", "from the future"])
def test_an_index_that_may_have_missed_a_tombstone_is_emptied(tmp_path: Path, now_ms: int) -> None:
    files = IndexFiles(tmp_path)
    index = files.open(HERE, now_ms=0, keep_ms=DAY_MS)
    index.apply([_delay(1)], 7, now_ms=0)
    index.close()

    opened = files.open(HERE, now_ms=now_ms, keep_ms=DAY_MS)

    assert opened.next_offset == 0
    opened.close()


def _overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "its header is overwritten": lambda path: _overwrite(path, 0, 100),
    "its middle is overwritten": lambda path: _overwrite(path, path.stat().st_size // 2, 40_000),
    "it is no database": lambda path: path.write_bytes(b"what?" * 1000),
    "it is cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 3]),
    "it is empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_noticed_or_emptied_and_never_believed(tmp_path: Path, damage: str) -> None:
    files = IndexFiles(tmp_path)
    path = tmp_path / "cluster" / "delayed" / "0.sqlite3"
    path.parent.mkdir(parents=True)
    filled(path).close()

    DAMAGES[damage](path)

    try:
        index = files.open(HERE, now_ms=0, keep_ms=DAY_MS)
        rows = index.due(DAY_MS, limit=10_000, limit_bytes=10**9)
        index.note(Progress(forwarded=rows))
        index.apply([], 5_000, now_ms=0)
    except CacheDamaged:
        return
    assert index.next_offset == 5_000
    assert not rows, "a damaged index gave rows away"
    index.close()


def test_a_value_that_was_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    filled(path).close()
    path.write_bytes(path.read_bytes().replace(b"xxxxxxxx", b"xxxyxxxx"))

    index = DelayIndex(path)

    with pytest.raises(CacheDamaged, match="checksum"):
        index.due(DAY_MS, limit=10_000, limit_bytes=10**9)
    index.close()


def test_a_page_of_due_delays_is_bounded_in_rows_and_in_bytes() -> None:
    index = filled(None)

    assert len(index.due(DAY_MS, limit=10, limit_bytes=10**9)) == 10
    assert len(index.due(DAY_MS, limit=1_000, limit_bytes=1_000)) == 5
    assert len(index.due(DAY_MS, limit=1_000, limit_bytes=1)) == 1
    index.close()


def test_two_processes_never_share_a_file(tmp_path: Path) -> None:
    files = IndexFiles(tmp_path)
    mine = files.open(HERE, now_ms=0, keep_ms=DAY_MS)
    mine.apply([_delay(1)], 7, now_ms=0)

    theirs = files.open(HERE, now_ms=0, keep_ms=DAY_MS)

    assert (theirs.path, theirs.next_offset) == (None, 0)
    with pytest.raises(CacheInUse):
        DelayIndex(mine.path)
    mine.close()
    theirs.close()


def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")

    with pytest.raises(CacheUnusable, match=r"file/cluster.*delay_index_dir"):
        IndexFiles(tmp_path / "file").open(HERE, now_ms=0, keep_ms=DAY_MS)


def test_the_default_directory_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_directory() == tmp_path / "dramatiq-kafka-delays"


def test_without_a_home_the_index_is_kept_with_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert default_directory().name.startswith("dramatiq-kafka-delays-")


# A forwarder that has to rebuild


def _lose(station: Station) -> None:
    for path in station.index_files():
        path.unlink()


def _write_rubbish(station: Station) -> None:
    for path in station.index_files():
        _overwrite(path, 0, path.stat().st_size)


def _swap(station: Station) -> None:
    first, second = station.index_files()
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


@pytest.mark.parametrize(
    "harm", [_lose, _write_rubbish, _swap], ids=["deleted", "rubbish", "another partition's"]
)
def test_a_forwarder_rebuilds_its_index_and_repeats_nothing(
    station: Station, harm: Callable[[Station], None]
) -> None:
    station.start()
    early = station.delay(*range(0, 400, 10))
    late = station.delay(*range(60_000, 60_040))
    station.wait_for(early)
    station.wait_until_done_of(early)
    station.stop()
    assert len(station.index_files()) == 2

    harm(station)
    station.start()
    soon = station.delay(*range(0, 400, 10))

    station.wait_for(soon)
    assert sorted(station.ids_in_queue()) == sorted(early + soon)
    assert station.delays.count(QUEUE) == len(late)


def test_an_index_is_replaced_when_its_topic_was_recreated(make_station: MakeStation) -> None:
    station = make_station()
    station.start()
    gone = station.delay(*[60_000] * 40)
    wait_until(lambda: len(station.index_files()) == 2, deadline_s=60, what="the indexes")
    station.stop()

    with whole_admin(station.clients) as admin:
        admin.delete_topics([station.topics.delayed])
    again = make_station()
    wait_until(lambda: again.topics.delayed not in _topics(again), deadline_s=60, what="the topic to be gone")
    again.start()
    ids = again.delay(*range(20))

    assert sorted(again.wait_for(ids)) == sorted(ids)
    assert not set(gone) & set(again.ids_in_queue())
    assert again.delays.count(QUEUE) == 0


@pytest.mark.real_kafka(reason="a group does not outlive its topic")
def test_a_topic_that_is_made_anew_under_a_running_forwarder_is_noticed(
    make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delays.owned_partitions.LOOK_UP_INTERVAL_S", 1.0)
    running, other = make_station(), make_station()
    running.start()
    running.wait_for(running.delay(*range(40)))

    with whole_admin(running.clients) as admin:
        admin.delete_topics([running.topics.delayed])
    wait_until(lambda: other.topics.delayed not in _topics(other), deadline_s=60, what="the topic to be gone")
    ids = other.delay(*range(400))

    assert set(other.wait_for(ids)) >= set(ids)


def test_what_has_its_tombstone_further_on_is_not_forwarded_while_the_index_is_rebuilt(
    station: Station,
) -> None:
    over = [message() for _ in range(20)]
    records = [station.delays.record(m, 0) for m in over]
    station.publish(*records)
    station.delay(*[60_000] * 8_000)
    for number in range(2):
        station.publish(
            *(
                tombstone(
                    station.topics.delayed,
                    r.key.decode().removeprefix("delay:"),
                    Outcome.FORWARDED,
                    partition=number,
                )
                for r in station.in_delayed()
                if r.partition == number and r.key in {record.key for record in records}
            )
        )
    station.start()

    (last,) = station.delay(0)

    assert station.wait_for([last]) == [last]


def test_a_short_partition_is_served_before_a_long_one_has_been_read(
    station: Station, tmp_path: Path
) -> None:
    short, long = 0, 1
    messages = [message() for _ in range(4_000)]
    of = {number: [m for m in messages if placed(m) == number] for number in (short, long)}
    station.publish(*(station.delays.record(m, 60_000) for m in [*of[long], *of[short][:10]]))
    settings = {"session_timeout_ms": SESSION_TIMEOUT_MS}
    partitions = OwnedPartitions(
        station.clients, station.topics, station.publisher, IndexFiles(tmp_path), settings
    )

    def ready() -> list[int]:
        partitions.poll(100, now_ms())
        return [owned.partition.partition for owned in partitions.ready]

    try:
        assert wait_until(ready, deadline_s=60, what="a partition that is ready") == [short]
        wait_until(lambda: len(ready()) == 2, deadline_s=60, what="the other one")
    finally:
        partitions.close(2_000)


def placed(one: Message[None]) -> int:
    return partition_of(one.message_id.encode(), PARTITIONS)


def _topics(station: Station) -> set[str]:
    with whole_consumer(station.clients) as kafka:
        topics: set[str] = kafka.topics()
    return topics


# A disk with no room


def test_what_could_not_be_noted_is_not_forwarded(station: Station) -> None:
    """Or a full disk would have the same page forwarded at every attempt."""
    index = filled(None, 3)
    owned = OwnedPartition(TopicPartition(station.topics.delayed, 0), index, end=3)
    forwarding = Forwarding(station.topics, station.publisher)
    index._db.execute("PRAGMA query_only = 1")

    with pytest.raises(CacheUnusable, match="safe in Kafka"):
        forwarding.step([owned], DAY_MS)
    assert station.in_queue() == []

    index._db.execute("PRAGMA query_only = 0")
    assert forwarding.step([owned], DAY_MS) is None
    assert len(station.in_queue()) == 3
    index.close()


def test_a_full_disk_is_reported_once_and_forwarding_continues_when_there_is_room(
    station: Station, tmp_path: Path
) -> None:
    """To SQLite a limit on the size of files is a full disk; the process lifts it when it is told to."""
    log = tmp_path / "forwarder.log"
    ids = station.delay(*[0] * 3_000)
    process = Child(
        "forwarder on a full disk",
        [
            *(executable, "-m", "tests.broker.delays.cramped_process"),
            *(station.bootstrap_servers, station.namespace, str(station.index_dir), "200000"),
        ],
        log=log,
    )
    process.start()
    try:
        wait_until(
            lambda: log.read_text().count("the index is at") > 2 * PARTITIONS,
            deadline_s=60,
            what="two attempts to fail and the third to open the indexes",
        )
        assert "cannot be written" in log.read_text()
        assert "delay_index_dir" in log.read_text()
        process.check()

        os.kill(process.pid, signal.SIGUSR1)

        assert sorted(station.wait_for(ids)) == sorted(ids)
        assert log.read_text().count("cannot be written") == 1
    finally:
        process.kill()
