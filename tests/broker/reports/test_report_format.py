"""The records of the topic of reports: what is written comes back, and foreign records are refused."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.reaper.death_note import DeathNote
from broker.reports.counters import OTHERS, ActorCounters
from broker.reports.payload import MAX_BYTES, pack, unpack
from broker.reports.report import (
    MAX_ACTORS,
    MAX_RUNNING,
    RunningTask,
    UnknownVersion,
    UnreadableReport,
    WorkerReport,
    decode,
    encode_report,
)
from tests.broker.reports.samples import death_notes, report, reports


@given(reports)
def test_a_report_is_read_as_it_was_written(written: WorkerReport) -> None:
    assert decode(encode_report(written)) == written


@given(death_notes)
def test_a_death_note_is_read_as_it_was_written(written: DeathNote) -> None:
    assert decode(written.encode()) == written


@given(st.binary(max_size=200) | reports.map(lambda found: encode_report(found)[:-3]))
def test_a_foreign_or_damaged_value_is_refused(value: bytes) -> None:
    with pytest.raises(UnreadableReport):
        decode(value)


def test_an_unknown_version_is_refused_by_name() -> None:
    body = unpack(encode_report(report()))
    with pytest.raises(UnknownVersion, match="version 2; this broker reads version 1"):
        decode(pack({**body, "v": 2}))


def test_unknown_fields_are_ignored_and_missing_ones_have_defaults() -> None:
    body = unpack(encode_report(report()))
    assert decode(pack({**body, "colour": "blue", "control": {"applied": ["a"], "mood": 1}})) != report()
    least = {name: body[name] for name in ("v", "kind", "worker", "at_ms", "next_s")}
    read = decode(json.dumps(least).encode())
    assert read == WorkerReport("host:1:aa", "", 0, 1_000_000, 0, 10.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("at_ms", None), ("next_s", "soon"), ("running", [{}]), ("actors", {"a": []}), ("members", [])],
)
def test_a_report_with_a_field_of_another_type_is_refused(field: str, value: object) -> None:
    body = unpack(encode_report(report()))
    with pytest.raises(UnreadableReport):
        decode(pack({**body, field: value}))


def test_a_report_has_a_bounded_size_whatever_runs() -> None:
    tasks = tuple(RunningTask(f"m{number}", "actor", "queue", 1, 0) for number in range(MAX_RUNNING + 50))
    actors = {f"actor-{number}": ActorCounters(started=number) for number in range(MAX_ACTORS + 50)}
    read = decode(encode_report(report(running=tasks, running_count=len(tasks), actors=actors)))
    assert isinstance(read, WorkerReport)
    assert (len(read.running), read.running_count) == (MAX_RUNNING, MAX_RUNNING + 50)
    assert len(read.actors) == MAX_ACTORS + 1
    assert read.actors[OTHERS].started == sum(range(50))
    assert f"actor-{MAX_ACTORS + 49}" in read.actors


def test_a_value_that_would_fill_the_memory_is_refused() -> None:
    bomb = zlib.compress(b'"' + b" " * (MAX_BYTES + 1) + b'"')
    assert len(bomb) < 1_000_000
    with pytest.raises(UnreadableReport, match="more than"):
        decode(bomb)


#: A report as the version 0.1.0 of the broker wrote it, without the fields that came later.
FIRST_REPORT = {
    "v": 1, "kind": "report", "worker": "host:7:0a1b2c3d", "host": "host", "pid": 7,
    "at_ms": 1_795_000_000_000, "booted_ms": 1_794_999_000_000, "next_s": 2.0,
    "versions": {"broker": "0.1.0"}, "queues": ["mail"], "threads": 8,
    "running": [{
        "message_id": "m-1", "actor": "send_mail", "queue": "mail", "attempt": 2,
        "since_ms": 1_794_999_999_000, "limit_ms": 600_000,
        "progress": {"fraction": 0.5, "text": "half", "at_ms": 1_794_999_999_500},
    }],
    "running_count": 1, "ended_ms": 1_794_999_998_000,
    "actors": {"send_mail": {
        "started": 5, "succeeded": 2, "failed": {"OSError": 2}, "retried": 1, "dead_lettered": 1,
        "skipped": 0, "interrupted": 0,
        "run_time": {"first_bucket": -8, "counts": [1, 3], "sum_s": 0.25},
        "queue_time": {"first_bucket": -4, "counts": [4], "sum_s": 1.0},
    }},
    "rss_bytes": 50_000_000, "cpu_s": 1.25, "partitions": {"mail": [0, 1]},
    "members": {"g.mail": "member-1"}, "history": {"recorded": 3, "unrecorded": 1, "dropped": 0},
    "control": {"applied": ["c-1"], "pauses_unknown": False, "paused_queues": ["images"], "quiet": False},
}  # fmt: skip


def test_a_report_of_the_first_version_is_read_and_its_missing_counters_are_0() -> None:
    read = decode(pack(FIRST_REPORT))
    assert isinstance(read, WorkerReport)
    counters = read.actors["send_mail"]
    assert (counters.started, counters.failed, counters.run_time.counts) == (5, {"OSError": 2}, (1, 3))
    assert (counters.dead_letter_errors, counters.queue_name) == ({}, "")
    assert (read.consumption, read.forward_lateness.count) == ({}, 0)
    # A reader of that version finds all of its fields, with their types, in a report of this one.
    written = unpack(encode_report(read))
    grown = ("actors", "running")
    assert {name: written[name] for name in FIRST_REPORT if name not in grown} == {
        name: value for name, value in FIRST_REPORT.items() if name not in grown
    }
    assert FIRST_REPORT["running"][0].items() <= written["running"][0].items()  # type: ignore[index]
    assert FIRST_REPORT["actors"]["send_mail"].items() <= written["actors"]["send_mail"].items()  # type: ignore[index]
