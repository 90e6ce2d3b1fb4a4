"""dkb enqueue, cancel and purge."""

from __future__ import annotations

import json
from collections.abc import Callable

import dramatiq
import pytest

from broker import CancelUndecided, Outcome
from broker.kafka.errors import KafkaError, NotEnoughReplicasAfterAppendError, TopicAuthorizationFailedError
from broker.reports.report import RunningTask
from broker.testing import Kit, delayed, drain, pending
from broker.testing.memory.faults import Request
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report

__all__ = ["tell"]


def test_enqueue_sends_to_the_applications_actor_with_its_options(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="images", max_retries=7)
    def resize(path: str, *, width: int) -> None: ...

    ran = dkb("enqueue", "resize", '["a.png"]', "--kwargs", '{"width": 200}', "--key", "a")
    assert ran.code == 0
    (message,) = pending("images")
    assert ran.out == f"{message.message_id}\n"
    assert (message.args, message.kwargs) == (("a.png",), {"width": 200})
    assert message.options["partition_key"] == "a"
    assert drain() == 1
    document = dkb("enqueue", "resize", '{"path": "b.png", "width": 1}', "--delay", "15m", "--json").document
    assert (document["delay_s"], document["queue"]) == (900.0, "images")
    assert [message.message_id for message in delayed("images")] == [document["message_id"]]


def test_enqueue_without_the_application_needs_an_existing_queue(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("enqueue", "resize", "--queue", "images")
    assert (ran.code, "no queue 'images'" in ran.err) == (1, True)
    kit.broker.declare_queue("images")
    kit.broker.enqueue(dramatiq.Message("images", "other", (), {}, {}))
    ran = dkb("enqueue", "resize", '["a.png"]')
    assert ran.code == 1
    assert ran.err == (
        "dkb: There is no queue 'default': there are images. Name the queue of 'resize' with --queue.\n"
    )
    assert dkb("enqueue", "resize", '["a.png"]', "--queue", "images").code == 0
    assert {message.actor_name for message in pending("images")} == {"other", "resize"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resize", "a.png"), "ARGS is not JSON"),
        (("resize", '"a.png"'), "ARGS is neither a JSON list nor a JSON object"),
        (("resize", "[]", "--kwargs", "[]"), "--kwargs is no JSON object"),
        (("resize", '{"path": "a"}', "--kwargs", '{"path": "b"}'), "ARGS and --kwargs both have 'path'"),
        (("resise", "[]"), "The application has no actor 'resise': it has resize."),
        (("resize", "[]", "--delay", "soon"), "'soon' is no duration"),
        (("resize", "[]", "--delay", "99999999999h"), "'99999999999h' is too long"),
        (("resize", "[]", "--delay", "800000d"), "is longer than ten years"),
    ],
)
def test_enqueue_refuses_what_it_cannot_send_and_sends_nothing(
    kit: Kit, dkb: Dkb, arguments: tuple[str, ...], said: str
) -> None:
    @dramatiq.actor
    def resize() -> None: ...

    ran = dkb("enqueue", *arguments)
    assert (ran.code, said in ran.err) == (2, True)
    assert kit.cluster.topics == {}


def test_a_message_that_kafka_cannot_take_is_refused_and_not_undecided(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor
    def task(text: str) -> None: ...

    ran = dkb("enqueue", "task", json.dumps(["x" * 2_000_000]))
    assert (ran.code, ran.out) == (2, "")
    assert "The same message would fail again: send less data" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert pending() == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lambda: TopicAuthorizationFailedError({"shop-default"}), 4),
        (lambda: NotEnoughReplicasAfterAppendError("some have it"), 5),
    ],
)
def test_enqueue_tells_a_missing_right_from_an_acknowledgement_that_did_not_come(
    kit: Kit, dkb: Dkb, error: Callable[[], KafkaError], code: int
) -> None:
    @dramatiq.actor
    def task() -> None: ...

    kit.cluster.refuse(Request.PRODUCE, error, times=None)
    ran = dkb("enqueue", "task")
    assert (ran.code, ran.out) == (code, "")
    assert len(ran.err.splitlines()) == 1


def test_cancel_drops_a_delayed_message(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor
    def task() -> None: ...

    sent = task.send_with_options(delay=3_600_000)
    ran = dkb("cancel", sent.message_id, "--json")
    assert (ran.code, ran.document["outcome"]) == (0, "cancelled")
    assert delayed() == []


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [(Outcome.TOO_LATE, 1, "too late to cancel it"), (Outcome.UNKNOWN, 1, "not among the delayed messages")],
)
def test_a_message_that_cannot_be_cancelled_is_exit_code_1(
    kit: Kit, dkb: Dkb, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: int, said: str
) -> None:
    monkeypatch.setattr(kit.broker, "cancel", lambda message_id, **_: outcome)
    ran = dkb("cancel", "some")
    assert (ran.code, said in ran.out) == (code, True)


def test_an_undecided_cancel_is_exit_code_5(kit: Kit, dkb: Dkb, monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(message_id: str, **_: object) -> Outcome:
        raise CancelUndecided("no worker has decided")

    monkeypatch.setattr(kit.broker, "cancel", undecided)
    ran = dkb("cancel", "some")
    assert (ran.code, ran.err) == (5, "dkb: no worker has decided\n")


def test_retry_runs_a_waiting_retry_and_a_delayed_message_now(kit: Kit, dkb: Dkb) -> None:
    runs: list[str] = []

    @dramatiq.actor(queue_name="mail", max_retries=1, min_backoff=3_600_000, max_backoff=3_600_000)
    def task(what: str) -> None:
        runs.append(what)
        if what == "fails" and runs.count("fails") == 1:
            raise OSError

    failed = task.send("fails")
    drain(raise_errors=False)
    later = task.send_with_options(args=("later",), delay=3_600_000)
    kept = task.send_with_options(args=("kept",), delay=3_600_000)
    ran = dkb("retry", failed.message_id, later.message_id, "--json")
    assert (ran.code, [row["outcome"] for row in ran.document["messages"]]) == (0, ["forwarded"] * 2)
    drain()
    assert sorted(runs) == ["fails", "fails", "later"]
    assert [message.message_id for message in delayed("mail")] == [kept.message_id]
    ran = dkb("retry", later.message_id, kept.message_id, "unknown")
    assert ran.code == 1
    assert "was forwarded to its queue before" in ran.out
    assert "is not among the delayed messages" in ran.out
    assert dkb("dlq", "list").err == "No dead letter matches.\n"


def test_abort_lets_a_waiting_message_not_run_and_says_when_it_is_not_known_yet(kit: Kit, dkb: Dkb) -> None:
    runs: list[str] = []

    @dramatiq.actor(queue_name="mail")
    def task(what: str) -> None:
        runs.append(what)

    unwanted, wanted = task.send("unwanted"), task.send("wanted")
    ran = dkb("abort", unwanted.message_id, "--reason", "a mistake", "--wait", "0", "--json")
    assert (ran.code, [row["outcome"] for row in ran.document["messages"]]) == (5, ["recorded"])
    with kit.threads():
        ran = dkb("abort", unwanted.message_id, "--reason", "a mistake", "--wait", "30")
        kit.broker.join("mail", timeout=30_000)
    assert runs == ["wanted"]
    assert dkb("task", "show", wanted.message_id, "--json").document["status"] == "succeeded"
    assert dkb("task", "show", unwanted.message_id, "--json").document["status"] == "aborted"
    rows = dkb("tasks", "--status", "aborted", "--json").document["tasks"]
    assert [row["message_id"] for row in rows] == [unwanted.message_id]
    assert "an operator has aborted it" in dkb("task", "show", unwanted.message_id).out
    assert dkb("abort", "some").code == 2  # without a reason
    ran = dkb("abort", "some", "--reason", "a mistake", "--expires", "8000000d")
    assert (ran.code, ran.err) == (2, "dkb: '8000000d' ends after the year 9999\n")


def test_an_abort_of_a_message_that_has_ended_says_so_at_once(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task(what: str) -> None:
        if what == "bad":
            raise ValueError(what)

    good, bad, unwanted = task.send("good"), task.send("bad"), task.send("unwanted")
    kit.broker.abort(unwanted.message_id)
    with kit.threads():
        kit.broker.join("mail", timeout=30_000)
    ids = [message.message_id for message in (good, bad, unwanted)]
    ran = dkb("abort", *ids, "--reason", "a mistake", "--wait", "100000", "--json")
    outcomes = [row["outcome"] for row in ran.document["messages"]]
    assert (ran.code, outcomes) == (1, ["ended", "ended", "aborted"])
    ran = dkb("abort", good.message_id, "--reason", "a mistake", "--wait", "100000")
    assert (ran.code, "it had ended before: succeeded at " in ran.out) == (1, True)
    # A script that repeats an abort ends.
    assert dkb("abort", unwanted.message_id, "--reason", "again", "--wait", "100000").code == 0
    # A dead letter that was redriven waits on its queue.
    kit.broker.redrive("mail", dry_run=False, reason="it is well", message_id=bad.message_id)
    ran = dkb("abort", bad.message_id, "--reason", "a mistake", "--wait", "0", "--json")
    assert (ran.code, ran.document["messages"][0]["outcome"]) == (5, "recorded")


def test_a_retry_that_no_worker_has_heard_is_exit_code_5(
    kit: Kit, dkb: Dkb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit.broker, "run_now", lambda *ids, timeout_s: dict.fromkeys(ids))
    ran = dkb("retry", "some")
    assert (ran.code, "the request stands" in ran.out) == (5, True)


def test_purge_is_a_dry_run_and_then_asks_for_the_number(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()
    for _ in range(2):
        task.send()
    task.send_with_options(delay=60_000)
    ran = dkb("purge", "mail")
    assert (ran.code, ran.out) == (0, "Would drop 3 messages of 'mail' for good.\n")
    assert dkb("purge", "mail", "--apply", typed="2\n").code == 6
    assert len(pending("mail")) == 2
    ran = dkb("purge", "mail", "--apply", typed="3\n")
    assert (ran.code, ran.out) == (0, "Dropped the messages of 'mail'; it had 3.\n")
    assert pending("mail") == []
    assert delayed("mail") == []


def test_purge_of_nothing_keeps_the_log_and_another_one_says_that_it_does_not(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()
    ran = dkb("purge", "mail", "--apply")
    assert (ran.code, "its log is kept" in ran.out) == (0, True)
    assert dkb("replay", "mail", "--all", "--json").document["selected"] == 1
    task.send()
    assert "It would delete 1 completed record of its log, too" in dkb("purge", "mail").err
    assert dkb("purge", "mail", "--json").document["completed"] == 1
    dkb("purge", "mail", "--apply", "--yes")
    assert dkb("replay", "mail", "--all", "--json").document["selected"] == 0


def test_purge_counts_what_runs_and_says_that_it_loses_its_record(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    first = task.send()
    task.send()
    now_ms = kit.clock.wall_ms()
    running = RunningTask(first.message_id, "task", "mail", 1, since_ms=now_ms)
    tell(report(queues=("mail",), running=(running,), running_count=1, at_ms=now_ms))
    ran = dkb("purge", "mail")
    assert ran.out == "Would drop 2 messages of 'mail' for good, 1 of them running.\n"
    assert "1 running message would have no record any more" in ran.err
    assert dkb("purge", "mail", "--apply", typed="1\n").code == 6
    ran = dkb("purge", "mail", "--apply", "--json", "--yes")
    document = ran.document
    assert (document["waiting"], document["running"]) == (1, 1)
    assert "1 running message has no record any more: the task continues" in ran.err
