"""dkb healthcheck, doctor and topics check."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest

from broker import RunningTask, TopicState
from broker.console import findings
from broker.delays.index_files import IndexFiles
from broker.kafka.errors import TopicAuthorizationFailedError
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, Suspicion, encode
from broker.reports.report import ControlState, WorkerReport
from broker.testing import Kit, advance, drain
from broker.testing.memory.faults import Request
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report

__all__ = ["tell"]


@pytest.fixture
def waiting(kit: Kit) -> None:
    """A message of the queue mail that waits for 90 seconds."""

    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()
    task.send()
    advance(seconds=90)


@pytest.mark.usefixtures("waiting")
def test_a_queue_with_messages_and_no_living_worker_is_unhealthy(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    ran = dkb("healthcheck", "--json")
    assert (ran.code, ran.document["healthy"]) == (1, False)
    assert "no worker of the queue is busy or idle" in dkb("healthcheck").out
    tell(report(host="h", queues=("mail",)))
    assert dkb("healthcheck").out == "healthy\n"
    ran = dkb("healthcheck", "--max-age", "1m")
    assert (ran.code, "its oldest message is 1m30s old, above 1m00s" in ran.out) == (1, True)
    assert dkb("healthcheck", "--max-age", "2m", "--max-dead", "0").code == 0


def blocked(kit: Kit, *, state: str, worker_id: str = "h:1:a") -> WorkerReport:
    """The report of a worker that is stuck or silent in a task of the queue mail."""
    now_ms = kit.clock.wall_ms()
    since_ms, limit_ms = now_ms - 38_000, 1_000 if state == "stuck" else None
    task = RunningTask("m-1", "slow", "mail", 1, since_ms=since_ms, limit_ms=limit_ms)
    return report(
        worker_id=worker_id, host="h", queues=("mail",), running=(task,), running_count=1,
        at_ms=now_ms, ended_ms=since_ms, next_s=2.0,
    )  # fmt: skip


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("state", ["stuck", "silent"])
@pytest.mark.parametrize("verb", ["healthcheck", "doctor"])
def test_a_message_that_a_stuck_or_silent_worker_runs_does_not_wait_and_the_worker_is_named(
    kit: Kit, dkb: Dkb, tell: Tell, state: str, verb: str
) -> None:
    tell(blocked(kit, state=state))
    if state == "silent":
        advance(seconds=30)
    ran = dkb(verb, "--json")
    assert ran.code == 1
    (row,) = [row for row in ran.document["findings"] if row["subject"] == "mail"]
    assert row["severity"] == "error"
    assert row["finding"].startswith("1 message is taken and not complete")
    assert f"h:1:a is {state} (" in row["finding"]
    assert any(row["subject"] == "h:1:a" for row in ran.document["findings"])


@pytest.mark.usefixtures("waiting")
def test_a_stuck_worker_of_a_queue_that_another_one_serves_is_a_warning(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    tell(blocked(kit, state="stuck"))
    tell(report(worker_id="h:2:b", queues=("mail",), at_ms=kit.clock.wall_ms()))
    ran = dkb("healthcheck", "--json")
    assert (ran.code, ran.document["healthy"]) == (0, True)
    (row,) = ran.document["findings"]
    assert (row["severity"], row["subject"]) == ("warning", "h:1:a")
    assert row["finding"].startswith("stuck: ")


@pytest.mark.usefixtures("waiting")
def test_a_message_that_waits_for_workers_that_are_gone_is_told_so(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    tell(report(host="h", queues=("mail",), kind="goodbye", at_ms=kit.clock.wall_ms()))
    (row,) = dkb("healthcheck", "--json").document["findings"]
    assert row["finding"].startswith("1 message waits, and no worker of the queue is busy or idle")
    assert "its workers of the last hour are gone" in row["finding"]


@pytest.mark.usefixtures("waiting")
def test_workers_of_another_group_are_named(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    worker = report(queues=("mail",), members={"shopw.shop-mail": "m-1"}, at_ms=kit.clock.wall_ms())
    tell(worker)
    for verb in ("doctor", "healthcheck"):
        ran = dkb(verb, "--json")
        assert ran.code == 1
        (row,) = [row for row in ran.document["findings"] if row["check"] == "group"]
        assert (row["severity"], row["subject"]) == ("error", "mail")
        assert "'shopw'" in row["finding"]
        assert "--group shopw" in row["remedy"]
    assert "Warning: mail: its workers have the group_id 'shopw'" in dkb("status", "--sample", "0").out
    verbs = (
        ["queues"], ["task", "show", "m-1"], ["tasks"], ["pause", "mail", "--reason", "r", "--wait", "0"],
        ["purge", "mail"], ["replay", "mail", "--all"], ["topics", "plan", "mail"],
    )  # fmt: skip
    for verb_line in verbs:
        assert "--group shopw" in dkb(*verb_line).err, verb_line
    tell(report(worker_id="b", queues=("mail",), members={"dramatiq.shop-mail": "m-2"}))
    assert "--group" not in dkb("queues").err


QUIET = ControlState(quiet=True)


@pytest.mark.usefixtures("waiting")
def test_a_queue_whose_workers_are_all_quiet_is_unhealthy(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    tell(report(host="h", queues=("mail",), control=QUIET, at_ms=kit.clock.wall_ms()))
    assert dkb("healthcheck").code == 1
    assert {("workers", "error", "mail"), ("workers", "warning", "host:1:aa")} <= found_by_doctor(dkb)
    status = dkb("status", "--sample", "0", "--json").document
    assert [(row["waiting"], row["workers"]) for row in status["queues"]] == [(1, 0)]
    assert "1 idle; 1 of them quiet" in dkb("status", "--sample", "0").out
    tell(report(host="h", worker_id="b", queues=("mail",), at_ms=kit.clock.wall_ms()))
    assert dkb("healthcheck").out == "healthy\n"
    assert ("workers", "error", "mail") not in found_by_doctor(dkb)


def test_a_quiet_worker_of_a_host_is_healthy_with_a_warning(dkb: Dkb, tell: Tell) -> None:
    tell(report(host="h", control=QUIET))
    ran = dkb("healthcheck", "--worker", "--host", "h", "--json")
    assert (ran.code, ran.document["healthy"]) == (0, True)
    (row,) = ran.document["findings"]
    assert (row["severity"], row["subject"]) == ("warning", "host:1:aa")
    assert "it takes no more work" in row["finding"]


def test_a_namespace_without_a_queue_is_unhealthy_and_a_finding_of_doctor(kit: Kit, dkb: Dkb) -> None:
    for verb in ("healthcheck", "doctor"):
        ran = dkb(verb, "--json")
        assert ran.code == 1
        (row,) = ran.document["findings"]
        assert (row["check"], row["severity"]) == ("queues", "error")
        assert row["finding"] == "the namespace has no queue"
    assert kit.cluster.topics == {}


def test_a_queue_whose_delayed_messages_nobody_forwards_is_unhealthy(kit: Kit, dkb: Dkb) -> None:
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}), delay=60_000)
    assert dkb("healthcheck").out == "healthy\n"
    kit.clock.advance(timedelta(seconds=90))  # as time passes without a worker
    assert dkb("healthcheck").out == "healthy\n"
    kit.clock.advance(timedelta(seconds=60))
    ran = dkb("healthcheck", "--json")
    assert (ran.code, ran.document["healthy"]) == (1, False)
    (row,) = ran.document["findings"]
    assert (row["check"], row["subject"]) == ("delays", "mail")
    assert row["finding"] == "a delayed message is due for 1m30s and was not forwarded"
    status = dkb("status", "--sample", "0")
    assert "mail: a delayed message is due for 1m30s and was not forwarded." in status.out


def test_the_worker_of_a_host_is_healthy_while_it_is_busy_or_idle(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    assert dkb("healthcheck", "--worker", "--host", "h").code == 1
    tell(report(host="h", next_s=2.0))
    assert dkb("healthcheck", "--worker", "--host", "h").code == 0
    assert dkb("healthcheck", "--worker", "--host", "i").code == 1
    advance(seconds=30)
    ran = dkb("healthcheck", "--worker", "--host", "h")
    assert (ran.code, "silent: no report for 30 s" in ran.out) == (1, True)


def one_thread_is_lost(kit: Kit, tell: Tell) -> None:
    """A worker whose one thread is blocked, and whose others end runs."""
    now_ms = kit.clock.wall_ms()
    late = RunningTask("m-1", "slow", "mail", 1, since_ms=now_ms - 38_000, limit_ms=1_000)
    tell(report(host="h", running=(late,), running_count=1, ended_ms=now_ms, at_ms=now_ms, queues=("mail",)))


def test_a_thread_in_a_task_past_its_limit_is_a_warning_of_the_healthcheck(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    one_thread_is_lost(kit, tell)
    ran = dkb("healthcheck", "--worker", "--host", "h", "--json")
    assert (ran.code, ran.document["healthy"]) == (0, True)
    (row,) = ran.document["findings"]
    assert (row["check"], row["severity"]) == ("overdue", "warning")
    assert "1 of its 8 threads cannot take tasks: slow m-1 is past its limit of 1.0s" in row["finding"]
    text = dkb("healthcheck", "--worker", "--host", "h").out
    assert "slow m-1" in text
    assert text.endswith("healthy\n")


def test_a_thread_in_a_task_past_its_limit_is_a_warning_of_doctor(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    one_thread_is_lost(kit, tell)
    assert ("overdue", "warning", "host:1:aa") in found_by_doctor(dkb)


def found_by_doctor(dkb: Dkb) -> set[tuple[str, str, str]]:
    rows = dkb("doctor", "--json").document["findings"]
    return {(row["check"], row["severity"], row["subject"]) for row in rows}


@pytest.mark.usefixtures("waiting")
def test_doctor_finds_what_is_wrong_with_workers_queues_and_delays(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    assert ("workers", "error", "mail") in found_by_doctor(dkb)
    now_ms = kit.clock.wall_ms()
    tell(report(worker_id="h:1:a", queues=("mail",), at_ms=now_ms, versions={"broker": "1"}))
    tell(report(worker_id="h:2:b", queues=("mail",), at_ms=now_ms - 60_000, versions={"broker": "2"}))
    found = found_by_doctor(dkb)
    assert ("workers", "error", "mail") not in found
    assert {("clocks", "warning", "h:2:b"), ("versions", "warning", "version of broker")} <= found
    state = CommitState(1, 1, (1,), suspicions={1: Suspicion(2, running=True)})
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(1, encode(state))
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}), delay=1_000)
    advance(hours=2)
    found = found_by_doctor(dkb)
    assert {
        ("crashes", "warning", "mail, partition 0"),
        ("stuck", "warning", "mail, partition 0"),
        ("delays", "error", "mail"),
    } <= found
    advance(days=6)
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(1, encode(CommitState(1, 0, ())))
    assert ("retention", "error", "mail") in found_by_doctor(dkb)


def test_doctor_finds_index_files_of_this_machine_that_cannot_be_used(
    kit: Kit, dkb: Dkb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "index files of this machine" not in dkb("doctor", "--json").document["checked"]
    file = tmp_path / "cluster" / "shop-delayed" / "3.sqlite3"
    file.mkdir(parents=True)
    files = IndexFiles(tmp_path)
    monkeypatch.setattr(kit.broker, "check_index_files", lambda: files.check("shop-delayed"))
    ran = dkb("doctor", "--json")
    assert ran.code == 1
    assert "index files of this machine" in ran.document["checked"]
    (row,) = [row for row in ran.document["findings"] if row["check"] == "index files"]
    assert (row["severity"], row["subject"]) == ("error", str(file))
    assert "cannot be read: Is a directory: workers of this machine forward no delayed" in row["finding"]


def test_doctor_finds_codecs_that_this_machine_cannot_read(kit: Kit, dkb: Dkb) -> None:
    settings = {"a": {"compression.type": "zstd"}, "b": {"compression.type": "producer"}}
    topics = [TopicState(name, "queue", 1, 1, (), (), found, ()) for name, found in settings.items()]
    (found,) = findings.of_codecs(topics, lambda module: module != "zstandard")
    assert (found["subject"], found["severity"]) == ("a", "warning")
    assert "dramatiq-kafka-broker[zstd]" in found["remedy"]
    assert list(findings.of_codecs(topics, lambda module: True)) == []


@pytest.mark.usefixtures("waiting")
def test_doctor_finds_a_partition_whose_commit_can_soon_list_no_more(kit: Kit, dkb: Dkb) -> None:
    kit.broker.enqueue_many([dramatiq.Message("mail", "task", (), {}, {}) for _ in range(1_100)])
    state = CommitState(1, 1_100, tuple(range(1, 1_100)))
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(1, encode(state))
    (row,) = [row for row in dkb("doctor", "--json").document["findings"] if row["check"] == "stuck"]
    assert (row["subject"], "1,099 records are unfinished" in row["finding"]) == ("mail, partition 0", True)


@pytest.mark.usefixtures("waiting")
def test_doctor_names_a_missing_right_and_checks_the_rest(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    tell(report(queues=("mail",), at_ms=kit.clock.wall_ms()))
    kit.cluster.refuse(
        Request.FETCH, lambda: TopicAuthorizationFailedError({"shop-dramatiq_workers"}),
        topic="shop-dramatiq_workers", times=None,
    )  # fmt: skip
    ran = dkb("doctor")
    assert ran.code == 1
    assert "READ on the topic 'shop-dramatiq_workers'" in ran.out
    assert "queue mail" in ran.out


@pytest.mark.usefixtures("waiting")
def test_topics_check_names_a_policy_that_loses_messages_and_its_remedy(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("topics", "check", "--json")
    assert ran.code == 0
    roles = {row["topic"]: row["role"] for row in ran.document["topics"]}
    assert (roles["shop-mail"], roles["shop-mail_dlq"], roles["shop-delayed"]) == (
        "queue", "dead letters", "delayed",
    )  # fmt: skip
    kit.cluster.topics["shop-mail"].settings["cleanup.policy"] = "compact"
    ran = dkb("topics", "check")
    assert ran.code == 1
    assert "cleanup.policy=compact" in ran.out
    assert "kafka-configs.sh" in ran.out
    assert dkb("doctor").code == 1


def test_doctor_says_what_a_kafka_without_commit_metadata_cannot_answer(kit: Kit, dkb: Dkb) -> None:
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(0, encode(CommitState(0, 0, (0,))))
    found = dkb("doctor", "--json").document["findings"]
    assert [row for row in found if row["check"] == "commits"] == []
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(0, "")
    ran = dkb("doctor", "--json")
    (row,) = [row for row in ran.document["findings"] if row["check"] == "commits"]
    assert (row["severity"], row["subject"]) == ("warning", "mail")
    assert "holes and suspects of crashes are not known" in row["finding"]
