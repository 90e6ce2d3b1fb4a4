"""broker.workers(): what is read from the topic of reports, whoever has written there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker import KafkaBroker, WorkerReport, WorkerState
from broker.kafka.types import TopicPartition
from broker.reaper.death_note import DeathNote
from broker.reports.payload import pack, unpack
from broker.reports.report import encode_report
from broker.testing import Kit
from tests.broker.reports.samples import report

TOPIC = TopicPartition("dramatiq_workers", 0)


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit(KafkaBroker()).use() as kit:
        kit.cluster.create_topic("dramatiq_workers", settings={"cleanup.policy": "compact,delete"})
        yield kit


def write(kit: Kit, content: WorkerReport | DeathNote) -> None:
    if isinstance(content, DeathNote):
        kit.cluster.append(TOPIC, content.key, content.encode())
    else:
        kit.cluster.append(TOPIC, content.worker_id.encode(), encode_report(content))


def test_without_a_worker_there_is_none_and_no_topic_is_created() -> None:
    with Kit(KafkaBroker()).use() as kit:
        assert kit.broker.workers() == []
        assert kit.cluster.topics == {}


def test_the_last_report_of_each_worker_counts(kit: Kit) -> None:
    for worker_id, threads in (("b:1:x", 1), ("a:1:x", 2), ("b:1:x", 3)):
        write(kit, report(worker_id=worker_id, threads=threads))
    found = kit.broker.workers()
    assert [(worker.worker_id, worker.report.threads) for worker in found if worker.report] == [
        ("a:1:x", 2),
        ("b:1:x", 3),
    ]
    assert {worker.state for worker in found} == {WorkerState.IDLE}


def test_a_death_note_keeps_the_last_report_in_sight(kit: Kit) -> None:
    last = report(running_count=1)
    write(kit, report())
    write(kit, last)
    write(kit, DeathNote(last.worker_id, 0, signal=9))
    for _ in range(2):
        (worker,) = kit.broker.workers()
        assert (worker.state, worker.signal, worker.report) == (WorkerState.GONE, 9, last)
        kit.cluster.clean_up()


def test_a_worker_that_reports_after_a_death_note_is_alive(kit: Kit) -> None:
    write(kit, report())
    write(kit, DeathNote(report().worker_id, 0, signal=9))
    write(kit, report())
    (worker,) = kit.broker.workers()
    assert (worker.state, worker.signal) == (WorkerState.IDLE, None)


def test_workers_of_long_ago_are_left_out(kit: Kit) -> None:
    write(kit, report(worker_id="old:1:x"))
    kit.clock.advance(timedelta(seconds=1000))
    write(kit, report(worker_id="new:1:x"))
    assert [worker.worker_id for worker in kit.broker.workers(within_s=900)] == ["new:1:x"]
    assert [worker.worker_id for worker in kit.broker.workers()] == ["new:1:x", "old:1:x"]


def test_silence_is_counted_by_kafkas_clock(kit: Kit) -> None:
    write(kit, report(next_s=2.0, at_ms=10**12))
    kit.clock.advance(timedelta(seconds=30))
    (worker,) = kit.broker.workers()
    assert (worker.state, worker.silent_s) == (WorkerState.SILENT, 30.0)
    kit.clock.advance(timedelta(seconds=40))
    (worker,) = kit.broker.workers()
    assert worker.state is WorkerState.GONE  # it is in no group


def test_records_of_other_versions_and_of_others_are_skipped_with_one_line(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    write(kit, report())
    newer = pack({**unpack(encode_report(report(worker_id="newer:1:x"))), "v": 2})
    for key, value in ((b"newer:1:x", newer), (b"noise", b"noise"), (None, b"noise"), (b"gone", None)):
        log = kit.cluster.log(TOPIC)
        log.append(key, value, (), kit.clock.wall_ms())
    with caplog.at_level(logging.WARNING):
        assert [worker.worker_id for worker in kit.broker.workers()] == ["host:1:aa"]
        kit.broker.workers()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert any("a report of version 2; this broker reads version 1" in line for line in lines)
