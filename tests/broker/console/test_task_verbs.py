"""dkb task show and dkb tasks."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import dramatiq
import pytest

from broker import (
    Cancellation,
    CancelUndecided,
    EventKind,
    FoundRecord,
    HistoryEvent,
    Outcome,
    RecordState,
    current_task,
)
from broker.console.documents import RunningRow
from broker.console.task_life import Traces, event_rows
from broker.console.task_search import argument_condition
from broker.delays.record_format import delay_record
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, encode
from broker.reaper.death_note import DeathNote
from broker.testing import Kit, drain
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report
from tests.waiting import wait_until

__all__ = ["tell"]

DEADLINE_S = 30.0
JOIN_MS = int(DEADLINE_S * 1000)


def shown(dkb: Dkb, message_id: str, *options: str) -> dict[str, Any]:
    return dkb("task", "show", message_id, "--json", *options).document


def test_task_show_tells_a_whole_life_up_to_the_redrive_of_the_dead_letter(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(max_retries=1, min_backoff=100, max_backoff=100)
    def pay(order: int) -> None:
        raise OSError("the bank is closed")

    with kit.threads():
        sent = pay.send(7)
        kit.broker.join("default", timeout=JOIN_MS)
    document = shown(dkb, sent.message_id)
    assert (document["status"], document["actor"], document["queue"]) == ("dead", "pay", "default")
    assert document["message"]["args"] == [7]
    events = [row["event"] for row in document["events"]]
    assert events[0] == "enqueued"
    assert [name for name in events if name in ("retried", "dead_lettered")] == ["retried", "dead_lettered"]
    (dead,) = document["dead_letters"]
    assert "Traceback" in dead["traceback"]
    retried = next(row for row in document["events"] if row["event"] == "retried")
    assert (retried["attempt"], retried["error_type"], retried["error"]) == (
        1, "OSError", "the bank is closed",
    )  # fmt: skip
    text = dkb("task", "show", sent.message_id).out
    assert "Called as pay(7)." in text
    assert "OSError: the bank is closed" in text

    kit.broker.redrive("default", dry_run=False, reason="it is open", by="ops", message_id=sent.message_id)
    document = shown(dkb, sent.message_id, "--log")
    assert document["status"] == "waiting"
    redriven = [row for row in document["events"] if row["event"] == "redrive done"]
    assert [(row["by"], row["reason"]) for row in redriven] == [("ops", "it is open")]
    records = [row["record"] for row in document["events"] if row["event"].startswith("record")]
    assert len([record for record in records if record.startswith("shop-default-0@")]) == 3


def test_task_show_finds_messages_that_wait_are_delayed_or_run(kit: Kit, dkb: Dkb) -> None:
    go_on = threading.Event()

    @dramatiq.actor
    def long() -> None:
        current_task.progress(0.25, "a quarter")
        go_on.wait(DEADLINE_S)

    waiting, delayed = long.send(), long.send_with_options(delay=3_600_000)
    document = shown(dkb, waiting.message_id)
    assert (document["status"], document["missing"]) == ("waiting", ["no worker has written a history"])
    document = shown(dkb, delayed.message_id)
    assert document["status"] == "delayed"
    assert document["events"][-1]["due_ms"] is not None
    with kit.threads():
        wait_until(
            lambda: shown(dkb, waiting.message_id)["running"],
            deadline_s=DEADLINE_S,
            what="a report of the run",
        )
        document = shown(dkb, waiting.message_id)
        assert document["status"] == "running"
        go_on.set()
        wait_until(
            lambda: shown(dkb, waiting.message_id)["status"] == "succeeded",
            deadline_s=DEADLINE_S,
            what="the event",
        )


def test_a_message_whose_worker_was_killed_says_so_until_another_one_has_its_partition(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    # Given a record that a worker has taken, by its last commit
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    sent = [task.send() for _ in range(2)][1]
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(1, encode(CommitState(1, 1, (1,))))
    fields: dict[str, Any] = {"queues": ("mail",), "partitions": {"mail": (0,)}}
    tell(report(worker_id="a:1:x", **fields))
    assert shown(dkb, sent.message_id)["status"] == "taken"
    # When the worker is killed, then the message runs again
    tell(DeathNote("a:1:x", kit.clock.wall_ms(), signal=9))
    assert shown(dkb, sent.message_id)["status"] == "interrupted"
    assert "as by the death of its worker" in dkb("task", "show", sent.message_id).out
    # And when another worker has the partition, then it has taken the message
    tell(report(worker_id="b:2:x", **fields))
    assert shown(dkb, sent.message_id)["status"] == "taken"


def test_a_run_that_began_on_a_worker_that_is_gone_was_interrupted() -> None:
    message: dramatiq.Message[Any] = dramatiq.Message("mail", "task", (), {}, {})
    record = FoundRecord(RecordState.INCOMPLETE, "mail", "shop-mail", 0, 1, 1_000, message)
    started = HistoryEvent(EventKind.STARTED, "m", "task", "mail", at_ms=2_000, worker_id="a:1:x", attempt=1)
    traces = Traces("m", history=[started], records=[record])
    assert traces.status() == "taken"
    traces.ends["a:1:x"] = (3_000, "SIGKILL ended it 1 s ago")
    assert traces.status() == "interrupted"


def test_a_run_whose_end_is_known_is_over_though_the_last_report_of_its_worker_has_it() -> None:
    event = HistoryEvent(EventKind.STARTED, "m", "task", "mail", 1, 2_000, "a:1:x")
    run = cast(RunningRow, {"worker": "a:1:x", "since_ms": 2_000, "attempt": 1})
    assert Traces("m", running=[run], history=[event]).status() == "running"
    ended = replace(event, kind=EventKind.ABORTED, at_ms=4_000)
    assert Traces("m", running=[run], history=[event, ended]).status() == "aborted"
    again = run | {"since_ms": 5_000, "attempt": 2}
    assert Traces("m", running=[again], history=[event, ended]).status() == "running"


def test_an_attempt_that_has_ended_shows_when_it_came_to_its_queue_and_began() -> None:
    # Given the end of a completed message, which was delayed before: its records are not looked for
    end = HistoryEvent(
        EventKind.SUCCEEDED,
        "m",
        "task",
        "mail",
        at_ms=9_000,
        worker_id="a:1:x",
        attempt=1,
        run_s=2.0,
        queue_s=1.5,
    )
    traces = Traces("m", history=[end])
    events = [(row["at_ms"], row["event"], row["attempt"], row["worker"]) for row in event_rows(traces)]
    assert events == [
        (5_500, "queued", 1, None),
        (7_000, "started", 1, "a:1:x"),
        (9_000, "succeeded", 1, "a:1:x"),
    ]
    # What the history and the log have is told once.
    message: dramatiq.Message[Any] = dramatiq.Message("mail", "task", (), {}, {}, message_timestamp=1_000)
    traces.history.insert(0, replace(end, kind=EventKind.STARTED, at_ms=7_000, run_s=None, queue_s=None))
    traces.records.append(FoundRecord(RecordState.COMPLETED, "mail", "shop-mail", 0, 1, 5_500, message))
    events = [(row["at_ms"], row["event"], row["attempt"], row["worker"]) for row in event_rows(traces)]
    assert events == [
        (1_000, "enqueued", None, None),
        (5_500, "record (completed)", None, None),
        (7_000, "started", 1, "a:1:x"),
        (9_000, "succeeded", 1, "a:1:x"),
    ]


def test_a_completed_message_without_a_history_is_found_in_the_log(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor
    def task() -> None: ...

    sent = task.send()
    assert drain() == 1
    document = shown(dkb, sent.message_id)
    assert document["status"] == "completed"
    assert [row["event"] for row in document["events"]] == ["enqueued", "record (completed)"]


def test_task_show_says_who_cancelled_a_message_when_and_why(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    sent = task.send_with_options(delay=3_600_000)
    ran = dkb("cancel", sent.message_id, "--reason", "it was a\nmistake", "--by", "ann")
    assert ran.code == 0
    document = shown(dkb, sent.message_id)
    assert (document["status"], document["queue"]) == ("cancelled", "mail")
    event = document["events"][-1]
    assert (event["event"], event["by"], event["reason"]) == ("cancelled", "ann", "it was a\nmistake")
    assert event["at_ms"] == pytest.approx(kit.clock.wall_ms(), abs=60_000)
    text = dkb("task", "show", sent.message_id).out
    assert "its delay was cancelled: it does not run" in text
    assert "by ann: it was a\\nmistake" in text


def test_task_show_says_who_wants_to_cancel_a_message_before_a_worker_has_decided(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    sent = task.send_with_options(delay=3_600_000)
    with pytest.raises(CancelUndecided):
        type(kit.broker).cancel(kit.broker, sent.message_id, by="ann", timeout_s=0.01)
    document = shown(dkb, sent.message_id)
    assert (document["status"], document["queue"]) == ("cancelling", "mail")
    event = document["events"][-1]
    assert (event["event"], event["by"], event["reason"]) == ("cancel requested", "ann", None)


def test_a_message_that_ran_after_it_was_cancelled_is_not_called_cancelled() -> None:
    def at(ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC)

    cancelled = Cancellation(Outcome.CANCELLED, "ann", "", at(1_000), at(2_000), "mail")
    late = Cancellation(Outcome.TOO_LATE, "bob", "", at(3_000), at(3_000), "mail")
    event = HistoryEvent(EventKind.RETRIED, "m", "task", "mail", 1, 1_500, "a:1:x")
    assert Traces("m", cancellations=[cancelled], history=[event]).status() == "cancelled"
    ended = replace(event, kind=EventKind.SUCCEEDED, at_ms=4_000)
    traces = Traces("m", cancellations=[cancelled, late], history=[event, ended])
    assert traces.status() == "succeeded"
    assert [row["event"] for row in event_rows(traces)] == [
        "retried", "cancelled", "cancel came too late", "succeeded",
    ]  # fmt: skip


def test_an_unknown_message_is_exit_code_1_with_the_reason(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("task", "show", "nobody")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "dkb: Nothing is known of nobody: no worker has written a history.\n"


def test_tasks_finds_the_last_state_of_each_message_by_its_conditions(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(max_retries=0)
    def task(what: str) -> None:
        if what != "work":
            raise {"value": ValueError, "key": KeyError}[what](what)

    @dramatiq.actor
    def other(*, order_id: int) -> None: ...

    with kit.threads():
        sent = [task.send(what) for what in ("work", "value", "key")]
        kit.broker.join("default", timeout=JOIN_MS)
    waiting = other.send(order_id=42)
    delayed = other.send_with_options(kwargs={"order_id": 43}, delay=3_600_000)

    def found(*conditions: str) -> set[tuple[str, str]]:
        rows = dkb("tasks", "--json", *conditions).document["tasks"]
        return {(row["message_id"], row["status"]) for row in rows}

    work, value, key = (message.message_id for message in sent)
    assert found() == {(work, "succeeded"), (value, "dead"), (key, "dead")}
    assert found("--error", "KeyError") == {(key, "dead")}
    assert found("--status", "succeeded") == {(work, "succeeded")}
    assert found("--actor", "other") == set()
    present = found("--status", "waiting", "--status", "delayed")
    assert present == {(waiting.message_id, "waiting"), (delayed.message_id, "delayed")}
    assert found("--arg", "order_id=42") == {(waiting.message_id, "waiting")}
    assert found("--arg", "value") == {(value, "dead")}
    assert found("--since", "2099-01-01") == set()
    wrong = dkb("tasks", "--status", "lost")
    assert (wrong.code, "'lost' is no status" in wrong.err) == (2, True)
    assert "KeyError: 'key'" in dkb("tasks", "--error", "KeyError").out


def test_a_delayed_message_that_cannot_be_decoded_is_shown(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor
    def task() -> None: ...

    readable = task.send_with_options(delay=3_600_000)
    topic = kit.broker.parts.topics.delayed
    message: dramatiq.Message[None] = dramatiq.Message("default", "task", (), {}, {}, message_id="pickled")
    record = delay_record(topic, message, 3_600_000)
    kit.broker.parts.publisher.publish([replace(record, value=b"\x80\x04pickled")])
    rows = dkb("tasks", "--status", "delayed", "--json").document["tasks"]
    assert {(row["message_id"], row["actor"], row["error"]) for row in rows} == {
        (readable.message_id, "task", None),
        ("pickled", "", "this message cannot be decoded"),
    }
    assert "this message cannot be decoded" in dkb("tasks", "--status", "delayed").out
    document = shown(dkb, "pickled")
    assert (document["status"], document["actor"], document["queue"]) == ("delayed", None, "default")
    assert document["events"][-1]["error"] == "this message cannot be decoded"
    # A condition on its content cannot hold for it.
    (row,) = dkb("tasks", "--status", "delayed", "--actor", "task", "--json").document["tasks"]
    assert row["message_id"] == readable.message_id


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("42", True), ("order_id=42", True), ('"42"', False), ("x", True), ("name=x", True), ("name=42", False)],
)
def test_an_argument_is_compared_as_json_and_as_text(text: str, is_found: bool) -> None:
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name="q", actor_name="a", args=(), kwargs={"order_id": 42, "name": "x"}, options={}
    )
    assert argument_condition(text)(message) is is_found
