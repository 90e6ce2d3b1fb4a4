"""The exporter: what a scrape shows of queues and workers, and of a Kafka that does not answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest

from broker import Every, RunningTask
from broker.kafka.errors import TopicAuthorizationFailedError
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.metrics.collector import StateCollector
from broker.metrics.exporter import Exporter
from broker.metrics.families import FAMILIES
from broker.metrics.state import State
from broker.offsets.commit_metadata import CommitState, Suspicion, encode
from broker.reports.counters import ActorCounters
from broker.reports.histogram import Histogram
from broker.reports.report import ControlState
from broker.testing import Kit, advance, drain
from broker.testing.memory.faults import Request
from tests.broker.metrics.conftest import Tell, Value, series
from tests.broker.reports.samples import report

ACTOR = {"queue_name": "mail", "actor_name": "task"}


class MailServerAway(Exception):
    """The mail server does not answer."""


@pytest.fixture
def task(kit: Kit) -> dramatiq.Actor[[str], None]:
    @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=1, min_backoff=60_000)
    def task(what: str) -> None:
        if what == "fail":
            raise MailServerAway("asked to")

    return task


def test_a_scrape_shows_the_queue_from_its_log_and_its_commits(
    exporter: Exporter, value: Value, task: dramatiq.Actor[[str], None]
) -> None:
    for what in ("work", "fail"):
        task.send(what)
    drain(raise_errors=False)
    for _ in range(3):
        task.send("work")
    advance(seconds=30)
    exporter.refresh()
    assert value("dramatiq_kafka_waiting_messages", queue_name="mail") == 3
    assert value("dramatiq_delayed_messages_inprogress", queue_name="mail") == 1
    assert value("dramatiq_kafka_oldest_waiting_seconds", queue_name="mail") == 30
    assert value("dramatiq_kafka_written_records_total", queue_name="mail") == 5
    assert value("dramatiq_kafka_ledger_difference", queue_name="mail") == 0
    assert value("dramatiq_kafka_dead_letters", queue_name="mail", error_type="") == 0
    labels = {"consumergroup": "dramatiq.shop-mail", "topic": "shop-mail"}
    assert sum(value("kafka_consumergroup_lag", **labels, partition=p) or 0 for p in "01") == 3
    assert max(value("kafka_consumergroup_lag_seconds", **labels, partition=p) or 0 for p in "01") == 30
    advance(minutes=5)
    drain(raise_errors=False)
    exporter.refresh()
    assert value("dramatiq_kafka_dead_letters", queue_name="mail", error_type="MailServerAway") == 1
    assert value("dramatiq_kafka_waiting_messages", queue_name="mail") == 0


def test_the_lag_of_a_consumer_group_counts_as_kafkas_tools_do(
    exporter: Exporter, value: Value, kit: Kit, task: dramatiq.Actor[[str], None]
) -> None:
    kit.broker.enqueue_many([task.message("work").copy() for _ in range(20)])
    partition = TopicPartition("shop-mail", 0)
    end = len(kit.cluster.topics["shop-mail"].logs[0].records)
    state = CommitState(1, 3, (1,), suspicions={1: Suspicion(2, running=True)})
    kit.cluster.group("dramatiq.shop-mail").offsets[partition] = OffsetAndMetadata(1, encode(state))
    exporter.refresh()
    labels = {"consumergroup": "dramatiq.shop-mail", "topic": "shop-mail", "partition": "0"}
    assert value("kafka_consumergroup_lag", **labels) == end - 1
    assert value("kafka_consumergroup_current_offset", **labels) == 1
    assert value("dramatiq_kafka_incomplete_messages", queue_name="mail") == 1
    assert value("dramatiq_kafka_suspect_records", queue_name="mail") == 1


def test_a_scrape_shows_the_workers_from_their_reports(exporter: Exporter, value: Value, tell: Tell) -> None:
    exporter.refresh()
    counters = ActorCounters(
        started=5,
        succeeded=3,
        failed={"OSError": 1},
        retried=1,
        run_time=Histogram(0, (4,), 5.0),
        queue_time=Histogram(-2, (4,), 2.0),
        queue_name="mail",
    )
    advance(seconds=10)
    tell(
        report(
            queues=("mail",),
            booted_ms=10**15,
            at_ms=10**15,
            actors={"task": counters},
            running_count=1,
            rss_bytes=1000,
        )
    )
    exporter.refresh()
    assert value("dramatiq_kafka_workers", state="busy") == 1
    assert value("dramatiq_kafka_queue_workers", queue_name="mail") == 1
    assert value("dramatiq_messages_total", **ACTOR) == 4
    assert value("dramatiq_message_errors_total", **ACTOR) == 1
    assert value("dramatiq_message_retries_total", **ACTOR) == 1
    assert value("dramatiq_messages_inprogress", **ACTOR) == 1
    assert value("dramatiq_message_duration_milliseconds_count", **ACTOR) == 4
    assert value("dramatiq_message_duration_milliseconds_sum", **ACTOR) == 5000
    assert value("dramatiq_message_duration_milliseconds_bucket", **ACTOR, le="1000.0") == 0
    assert value("dramatiq_message_duration_milliseconds_bucket", **ACTOR, le="2000.0") == 4
    assert value("dramatiq_kafka_run_errors_total", queue_name="mail", error_type="OSError") == 1
    assert value("dramatiq_kafka_worker_memory_bytes") == 1000


def test_a_quiet_worker_does_not_serve_its_queues(exporter: Exporter, value: Value, tell: Tell) -> None:
    tell(report(queues=("mail",), control=ControlState(quiet=True)))
    exporter.refresh()
    assert value("dramatiq_kafka_queue_workers", queue_name="mail") == 0
    assert value("dramatiq_kafka_queue_quiet_workers", queue_name="mail") == 1
    tell(report(worker_id="b", queues=("mail",)))
    exporter.refresh()
    assert value("dramatiq_kafka_queue_workers", queue_name="mail") == 1


def test_tasks_past_their_limits_are_counted_by_queue(
    exporter: Exporter, value: Value, tell: Tell, kit: Kit
) -> None:
    now_ms = kit.clock.wall_ms()
    late = RunningTask("m-1", "slow", "mail", 1, since_ms=now_ms - 38_000, limit_ms=1_000)
    fine = RunningTask("m-2", "slow", "images", 1, since_ms=now_ms - 38_000, limit_ms=60_000)
    queues = ("images", "mail")
    tell(report(queues=queues, running=(late, fine), running_count=2, ended_ms=now_ms, at_ms=now_ms))
    tell(report(worker_id="b", kind="goodbye", queues=queues, running=(late,), at_ms=now_ms))
    exporter.refresh()
    assert value("dramatiq_kafka_overdue_tasks", queue_name="mail") == 1
    assert value("dramatiq_kafka_overdue_tasks", queue_name="images") == 0


def test_an_unreachable_kafka_is_a_metric_and_the_last_state_stays_with_its_age(
    exporter: Exporter,
    value: Value,
    kit: Kit,
    task: dramatiq.Actor[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    task.send("work")
    exporter.refresh()
    assert exporter.is_up
    assert value("dramatiq_kafka_up", source="queues") == 1
    with kit.kafka_away(), caplog.at_level(logging.WARNING, "broker.metrics"):
        for _ in range(2):
            exporter.refresh()
        age_s = value("dramatiq_kafka_state_age_seconds", source="queues")
        assert age_s is not None
        assert age_s > 0
        for source in ("queues", "reports"):
            assert value("dramatiq_kafka_up", source=source) == 0
            assert value("dramatiq_kafka_read_failures_total", source=source) == 2
        assert value("dramatiq_kafka_waiting_messages", queue_name="mail") == 1
    said = [r.message.partition(":")[0] for r in caplog.records if "cannot be read" in r.message]
    assert len(said) == len(set(said)) >= 2  # once for each source
    exporter.refresh()
    assert value("dramatiq_kafka_up", source="queues") == 1
    assert value("dramatiq_kafka_state_age_seconds", source="queues") == 0


def test_a_missing_right_to_the_reports_leaves_the_queues(
    exporter: Exporter, value: Value, kit: Kit, tell: Tell, task: dramatiq.Actor[[str], None]
) -> None:
    tell(report())
    task.send("work")
    kit.cluster.refuse(
        Request.FETCH,
        lambda: TopicAuthorizationFailedError({"shop-dramatiq_workers"}),
        topic="shop-dramatiq_workers",
        times=None,
    )
    exporter.refresh()
    assert value("dramatiq_kafka_up", source="reports") == 0
    assert value("dramatiq_kafka_up", source="queues") == 1
    assert value("dramatiq_kafka_waiting_messages", queue_name="mail") == 1


def test_a_scrape_reads_nothing_from_kafka(
    exporter: Exporter, kit: Kit, task: dramatiq.Actor[[str], None]
) -> None:
    task.send("work")
    exporter.refresh()
    with kit.kafka_away():
        before = kit.clock.monotonic_s()
        assert "dramatiq_kafka_waiting_messages" in exporter.text()
        assert kit.clock.monotonic_s() == before  # a request would have waited for its timeout


def test_schedules_are_counted_and_an_overdue_one_has_its_time(
    exporter: Exporter, value: Value, kit: Kit, task: dramatiq.Actor[[str], None]
) -> None:
    kit.broker.schedules.put("hourly", task, Every(hours=1), args=("work",))
    kit.broker.schedules.put("daily", task, Every(days=1), args=("work",))
    kit.broker.schedules.pause("daily", reason="a test")
    exporter.refresh()
    assert value("dramatiq_kafka_schedules", state="active") == 1
    assert value("dramatiq_kafka_schedules", state="paused") == 1
    assert value("dramatiq_kafka_schedule_overdue_seconds") == 0
    assert value("dramatiq_kafka_schedule_missed_occurrences") == 0


def test_the_most_overdue_schedule_counts(kit: Kit, task: dramatiq.Actor[[str], None]) -> None:
    state = State(kit.broker)
    made = kit.broker.schedules.put("hourly", task, Every(hours=1), args=("work",))
    now = datetime.fromtimestamp(kit.clock.wall_ms() / 1000, UTC)
    late, later = (replace(made, next_run=now - timedelta(minutes=m), missed=m) for m in (10, 20))
    state.schedules = [late, later, replace(made, next_run=None, is_paused=True)]
    collector = StateCollector(state)
    collector.refresh()
    found = {
        sample.name: sample.value for metric in collector.collect() for sample in metric.samples
        if "schedule_" in sample.name
    }  # fmt: skip
    assert found["dramatiq_kafka_schedule_overdue_seconds"] == pytest.approx(1200, abs=1)
    assert found["dramatiq_kafka_schedule_missed_occurrences"] == 30


def test_every_family_is_exported_and_no_other(
    exporter: Exporter, tell: Tell, task: dramatiq.Actor[[str], None], kit: Kit
) -> None:
    exporter.refresh()
    task.send("work")
    drain()
    counters = ActorCounters(failed={"OSError": 1}, dead_letter_errors={"OSError": 1}, queue_name="mail")
    tell(report(queues=("mail",), booted_ms=10**15, actors={"task": counters}))
    exporter.refresh()
    exported = {name for name, _ in series(exporter.text()) if not name.startswith("process_")}
    assert exported == {name for family in FAMILIES.values() for name in family.series}


def test_no_label_is_an_id_and_their_number_does_not_grow_with_messages(
    exporter: Exporter, tell: Tell, task: dramatiq.Actor[[str], None], kit: Kit
) -> None:
    exporter.refresh()

    def labels_after(messages: int) -> int:
        kit.broker.enqueue_many([task.message("work").copy() for _ in range(messages)])
        drain()
        for number in range(messages):
            tell(report(worker_id=f"h:{number}:{messages}", pid=number, queues=("mail",)))
        exporter.refresh()
        found = series(exporter.text())
        names = {label for _, labels in found for label, _ in labels}
        assert names <= {label for family in FAMILIES.values() for label in family.labels} | {"le"}
        return len(found)

    assert labels_after(1) == labels_after(50)
