"""The reports of a worker: when it writes one, what is in it, and what happens where Kafka takes none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import dramatiq
import pytest
from dramatiq.middleware import SkipMessage

from broker import KafkaBroker, WorkerState, current_task
from broker.kafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, encode
from broker.reaper.death_note import DeathNote
from broker.reports.report import Kind, WorkerReport, decode
from broker.testing import Kit
from broker.testing.memory.faults import Request
from tests.waiting import wait_until

DEADLINE_S = 30.0


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit(KafkaBroker(namespace="shop-", app_version="7.1")).use() as kit:
        yield kit


def written(kit: Kit) -> list[WorkerReport | DeathNote]:
    topic = kit.cluster.topics.get("shop-dramatiq_workers")
    records = topic.logs[0].records if topic is not None else []
    return [decode(record.value) for record in records if record.value is not None]


def reported(kit: Kit, condition: Callable[[WorkerReport], bool]) -> WorkerReport:
    """The first report that meets a condition."""

    def found() -> WorkerReport | None:
        reports = [report for report in written(kit) if isinstance(report, WorkerReport)]
        return next(filter(condition, reports), None)

    return wait_until(found, deadline_s=DEADLINE_S, what="such a report")


def test_a_report_names_the_worker_its_versions_queues_threads_and_partitions(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail")
    def task() -> None: ...

    with kit.threads(worker_threads=3):
        report = reported(kit, lambda report: len(report.partitions.get("mail", ())) == 4)
        (member,) = kit.cluster.group("dramatiq.shop-mail").members
    identity = kit.broker.parts.identity
    assert (report.worker_id, report.host, report.pid) == (identity.worker_id, identity.host, identity.pid)
    assert report.worker_id.startswith(f"{report.host}:{report.pid}:")
    assert (report.queues, report.threads) == (("mail",), 3)
    assert report.versions["app"] == "7.1"
    assert report.versions.keys() == {"app", "broker", "python", "dramatiq", "kafka-python"}
    assert (report.running, report.running_count) == ((), 0)
    assert report.members["dramatiq.shop-mail"] == member
    assert report.cpu_s > 0


def test_a_report_shows_a_running_task_with_its_progress_attempt_and_limit(kit: Kit) -> None:
    go_on = threading.Event()

    @dramatiq.actor(broker=kit.broker, time_limit=90_000)
    def read_book() -> None:
        current_task.progress(0.4, "reading page 12")
        go_on.wait(DEADLINE_S)

    with kit.threads():
        sent = read_book.send()
        report = reported(kit, lambda report: report.running_count == 1)
        (task,) = report.running
        go_on.set()
        ended = reported(kit, lambda report: report.ended_ms > 0)
    assert (task.message_id, task.actor_name, task.queue_name) == (sent.message_id, "read_book", "default")
    assert (task.attempt, task.limit_ms) == (1, 90_000)
    assert task.progress is not None
    assert (task.progress.fraction, task.progress.text) == (0.4, "reading page 12")
    assert (report.actors["read_book"].started, report.actors["read_book"].queue_name) == (1, "default")
    assert report.next_s == 2.0
    assert ended.running == ()


def test_the_counters_say_how_the_runs_of_each_actor_ended(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, max_retries=1, min_backoff=1, max_backoff=1)
    def task(what: str) -> None:
        if what == "skip":
            raise SkipMessage("asked to")
        if what == "fail":
            raise OSError("asked to")

    with kit.threads():
        for what in ("work", "work", "skip", "fail"):
            task.send(what)
        kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
        report = reported(
            kit, lambda report: report.actors["task"].dead_lettered == 1 if report.actors else False
        )
    counters = report.actors["task"]
    assert (counters.succeeded, counters.skipped) == (2, 1)
    assert (counters.failed, counters.retried, counters.dead_lettered) == ({"OSError": 2}, 1, 1)
    assert counters.started == counters.run_time.count == counters.queue_time.count == 4


def test_a_report_has_the_commits_rebalances_and_forwards_of_the_worker(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=1, min_backoff=1, max_backoff=1)
    def task(what: str) -> None:
        if what == "fail":
            raise OSError("asked to")

    with kit.threads():
        task.send("work")
        task.send("fail")
        kit.broker.join("mail", timeout=int(DEADLINE_S * 1000))
        report = reported(
            kit, lambda report: bool(report.actors) and report.actors["task"].dead_lettered == 1
        )
    consumption = report.consumption["mail"]
    assert (consumption.assigned, consumption.revoked, consumption.lost) == (4, 0, 0)
    assert consumption.commit_time.count >= 1
    assert (consumption.failed_commits, consumption.redelivered) == (0, 0)
    assert report.forward_lateness.count == 1
    counters = report.actors["task"]
    assert (counters.queue_name, counters.dead_letter_errors) == ("mail", {"OSError": 1})


def test_records_that_an_earlier_owner_had_dispatched_are_counted_as_redelivered(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail")
    def task() -> None: ...

    for _ in range(20):
        task.send()
    # The commit of a worker that has ended before two of the three records were complete.
    partition = TopicPartition("shop-mail", 0)
    commit = OffsetAndMetadata(0, encode(CommitState(0, 2, (0, 2), clean=True)))
    kit.cluster.group("dramatiq.shop-mail").offsets[partition] = commit
    with kit.threads():
        kit.broker.join("mail", timeout=int(DEADLINE_S * 1000))
        report = reported(kit, lambda report: bool(report.actors) and report.actors["task"].succeeded == 19)
    assert report.consumption["mail"].redelivered == 2


def test_a_worker_that_ends_in_good_order_says_goodbye_with_its_last_counters(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker)
    def task() -> None: ...

    with kit.threads():
        task.send()
        kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
    last = written(kit)[-1]
    assert isinstance(last, WorkerReport)
    assert last.kind == Kind.GOODBYE
    assert last.actors["task"].succeeded == 1


def test_an_applied_command_is_reported_at_once(kit: Kit) -> None:
    kit.broker.declare_queue("mail")
    with kit.threads():
        reported(kit, lambda report: bool(report.partitions["mail"]))
        before = len(written(kit))
        kit.broker.parts.reporter.control.note("command-1", paused_queues=["mail"])
        report = reported(kit, lambda report: report.control.applied == ("command-1",))
        assert written(kit).index(report) == before
    assert report.control.paused_queues == ("mail",)


def test_a_boot_has_an_id_and_counters_of_its_own(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker)
    def task() -> None: ...

    for _ in range(2):
        with kit.threads():
            task.send()
            kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
    goodbyes = [
        report for report in written(kit) if isinstance(report, WorkerReport) and report.kind == Kind.GOODBYE
    ]
    assert len({report.worker_id for report in goodbyes}) == 2
    assert [report.actors["task"].succeeded for report in goodbyes] == [1, 1]


def test_a_broker_without_reports_has_no_thread_and_no_topic() -> None:
    with Kit(KafkaBroker(reports=False)).use() as kit:
        seen: list[str] = []

        @dramatiq.actor(broker=kit.broker)
        def task() -> None:
            seen.append(current_task.message_id)

        with kit.threads():
            sent = task.send()
            kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
            assert "dramatiq-kafka-reports" not in {thread.name for thread in threading.enumerate()}
        assert "dramatiq_workers" not in kit.cluster.topics
        assert seen == [sent.message_id]


def test_a_process_that_only_sends_has_no_thread_and_no_topic(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker)
    def task() -> None: ...

    task.send()
    assert set(kit.cluster.topics) == {"shop-default"}
    assert "dramatiq-kafka-reports" not in {thread.name for thread in threading.enumerate()}


def test_a_worker_that_may_not_report_works_and_says_so_once(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[None] = []

    def denied() -> TopicAuthorizationFailedError:
        tries.append(None)
        return TopicAuthorizationFailedError({"shop-dramatiq_workers"})

    @dramatiq.actor(broker=kit.broker)
    def task() -> None: ...

    kit.cluster.refuse(Request.PRODUCE, denied, topic="shop-dramatiq_workers", times=None)
    with caplog.at_level(logging.ERROR), kit.threads():
        task.send()
        kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
        wait_until(lambda: len(tries) >= 2, deadline_s=DEADLINE_S, what="another try")
        task.send()
        kit.broker.join("default", timeout=int(DEADLINE_S * 1000))
    lines = [record.getMessage() for record in caplog.records if "dramatiq_workers" in record.getMessage()]
    assert len(lines) == 1
    assert "WRITE on the topic 'shop-dramatiq_workers'" in lines[0]


def test_no_report_is_written_while_kafka_is_away_and_the_next_one_says_everything(kit: Kit) -> None:
    go_on = threading.Event()

    @dramatiq.actor(broker=kit.broker)
    def task() -> None:
        go_on.wait(DEADLINE_S)

    with kit.threads():
        task.send()
        reported(kit, lambda report: report.running_count == 1)
        with kit.cluster.away():
            go_on.set()
            runs = kit.broker.parts.runs
            wait_until(lambda: runs.ended_ms > 0, deadline_s=DEADLINE_S, what="the end of the task")
        report = reported(kit, lambda report: report.ended_ms > 0)
    assert report.actors["task"].succeeded == 1


def test_a_worker_that_is_cut_off_from_kafka_is_silent_until_it_is_not(kit: Kit) -> None:
    kit.broker.declare_queue("mail")
    with kit.threads(), Kit(KafkaBroker(namespace="shop-"), kit.cluster, kit.clock).use() as observer:

        def state() -> WorkerState:
            (worker,) = observer.broker.workers()
            return worker.state

        def is_cut_off() -> KafkaConnectionError:
            return KafkaConnectionError("cut off")

        reported(kit, lambda report: bool(report.partitions["mail"]))
        assert state() is WorkerState.IDLE
        kit.cluster.refuse(Request.PRODUCE, is_cut_off, topic="shop-dramatiq_workers", times=None)
        kit.broker.parts.reporter.report_soon()  # it has promised the next report within ten seconds
        wait_until(lambda: state() is WorkerState.SILENT, deadline_s=DEADLINE_S, what="its silence")
        kit.cluster.faults.clear()
        wait_until(lambda: state() is WorkerState.IDLE, deadline_s=60.0, what="its next report")
