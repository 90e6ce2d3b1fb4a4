"""dkb status and dkb queues."""

from __future__ import annotations

import re

import dramatiq
import pytest

from broker.console.queue_rows import LedgerWatch, time_to_drain
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, encode
from broker.reaper.death_note import DeathNote
from broker.reports.report import RunningTask
from broker.testing import Kit, advance, drain
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report

__all__ = ["tell"]


def fail_once_delay_one_and_let_two_wait() -> None:
    @dramatiq.actor(max_retries=0, queue_name="mail")
    def task(what: str) -> None:
        raise RuntimeError(what)

    task.send("die")
    drain(raise_errors=False)
    task.send("wait")
    task.send_with_options(args=("later",), delay=3_600_000)
    advance(seconds=90)
    task.send("wait, too")


def test_status_shows_each_queue_of_the_namespace_with_its_numbers_and_ages(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    ran = dkb("status", "--json", "--sample", "0")
    assert (ran.code, ran.err) == (0, "")
    (row,) = ran.document["queues"]
    assert row["queue"] == "mail"
    assert [row[name] for name in ("waiting", "running", "delayed", "dead")] == [2, 0, 1, 1]
    assert (row["oldest_waiting_s"], row["ledger_difference"]) == (90.0, 0)
    assert (row["in_per_s"], row["out_per_s"], row["drain_s"]) == (None, None, None)


def test_rates_are_those_between_two_samples(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    (row,) = dkb("status", "--json", "--sample", "1").document["queues"]
    assert (row["in_per_s"], row["out_per_s"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("lag", "rate_in", "rate_out", "drained_s"),
    [(0, None, None, 0.0), (100, 10.0, 30.0, 5.0), (100, 30.0, 10.0, None), (1, None, None, None)],
)
def test_the_time_to_drain_is_the_lag_over_the_difference_of_the_rates(
    lag: int, rate_in: float | None, rate_out: float | None, drained_s: float | None
) -> None:
    assert time_to_drain(lag, rate_in, rate_out) == drained_s


def test_a_watch_says_when_the_difference_of_a_ledger_has_changed(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    ledgers = LedgerWatch()
    (before,) = kit.broker.queues("mail")
    assert ledgers.since_ms(before, 1_000) is None
    advance(days=8)
    (after,) = kit.broker.queues("mail")
    assert ledgers.since_ms(after, 2_000) == 2_000
    assert ledgers.since_ms(after, 3_000) == 2_000


def test_piped_output_is_columns_under_one_line_of_titles(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    ran = dkb("status", "--sample", "0")
    titles, row, *others = ran.out.splitlines()
    assert titles.split() == [
        "QUEUE", "WAITING", "RUNNING", "DELAYED", "DEAD", "OLDEST", "IN/S", "OUT/S", "DRAIN", "WORKERS",
        "LEDGER",
    ]  # fmt: skip
    assert row.split()[:6] == ["mail", "2", "0", "1", "1", "1m30s"]
    assert others[-1].startswith("Workers of the last hour:")


def test_a_queue_that_does_not_exist_is_refused_and_not_created(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    topics = set(kit.cluster.topics)
    ran = dkb("status", "male")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "dkb: There is no queue 'male': there are mail.\n"
    assert set(kit.cluster.topics) == topics


def test_an_empty_namespace_is_said_on_stderr_and_no_topic_is_created(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("status", "--sample", "0")
    assert ran.code == 0
    assert "no queue yet" in ran.err
    assert "--namespace" in ran.err
    assert kit.cluster.topics == {}
    assert dkb("status", "--sample", "0", "--json").document["queues"] == []


def test_queues_shows_each_partition(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["partition"], row["waiting"], row["written"], row["next_offset"]) == (0, 2, 3, 1)
    assert dkb("queues", "mail").out.splitlines()[0].split()[:3] == ["QUEUE", "PARTITION", "WAITING"]


def test_queues_names_the_owner_of_each_partition_and_tells_a_dead_one_from_a_living_one(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    fail_once_delay_one_and_let_two_wait()
    tell(report(worker_id="a:1:first", queues=("mail",), partitions={"mail": (0,)}))
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["owner"], row["owner_state"]) == ("a:1:first", "idle")
    assert "a:1:first" in dkb("queues").out
    tell(DeathNote("a:1:first", kit.clock.wall_ms(), signal=9))
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["owner"], row["owner_state"]) == ("a:1:first", "gone")
    assert "gone: a:1:first" in dkb("queues").out
    tell(report(worker_id="b:2:second", queues=("mail",), partitions={"mail": (0,)}))
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["owner"], row["owner_state"]) == ("b:2:second", "idle")
    assert "gone" not in dkb("queues").out


def test_records_that_were_deleted_before_they_ran_are_in_the_ledger(kit: Kit, dkb: Dkb) -> None:
    fail_once_delay_one_and_let_two_wait()
    advance(days=8)
    ran = dkb("status", "--sample", "0")
    assert "2 lost" in ran.out
    assert "mail: 2 records were deleted before they were known to be complete" in ran.out
    (row,) = dkb("status", "--sample", "0", "--json").document["queues"]
    assert (row["ledger_difference"], row["ledger_before_ms"]) == (2, None)
    # The oldest record that is left tells since when at the latest.
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    left_ms = kit.clock.wall_ms()
    advance(minutes=5)
    (row,) = dkb("status", "--sample", "0", "--json").document["queues"]
    assert (row["ledger_difference"], row["ledger_before_ms"]) == (2, left_ms)
    assert "They were enqueued before" in dkb("status", "--sample", "0").out


def test_a_purge_is_no_loss_in_any_view(kit: Kit, dkb: Dkb) -> None:
    # Given a queue without a worker, so that no commit has passed the purge
    kit.broker.declare_queue("mail")
    for _ in range(2):
        kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    assert dkb("purge", "mail", "--apply", "--yes", "--reason", "a test").code == 0
    ran = dkb("status", "--sample", "0")
    assert "lost" not in ran.out
    assert re.search(r"mail: a purge deleted 2 records by .* at .*Z: a test\.\n", ran.out)
    (row,) = dkb("status", "--sample", "0", "--json").document["queues"]
    assert (row["ledger_difference"], row["ledger_before_ms"], row["purged"]) == (0, None, 2)
    (partition,) = dkb("queues", "--json").document["partitions"]
    assert partition["purged"] == 2
    assert not [row for row in dkb("doctor", "--json").document["findings"] if row["check"] == "ledger"]
    # Retention after it is one.
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    advance(days=8)
    (row,) = dkb("status", "--sample", "0", "--json").document["queues"]
    assert (row["ledger_difference"], row["purged"]) == (1, 2)


def test_a_lost_tail_of_a_log_is_told_until_a_worker_has_taken_it_over(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    for _ in range(3):
        task.send()
    drain()
    kit.cluster.log(TopicPartition("shop-mail", 0)).truncate(1)
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["lost_tail"], row["written"]) == (2, 1)
    assert "mail: its logs have lost 2 records at their ends" in dkb("status", "--sample", "0").out
    found = dkb("doctor", "--json").document["findings"]
    assert [row["subject"] for row in found if row["check"] == "ledger"] == ["mail, partition 0"]
    task.send()
    drain()
    (row,) = dkb("queues", "--json").document["partitions"]
    assert (row["lost_tail"], row["written"]) == (0, 2)
    assert "at their ends" not in dkb("status", "--sample", "0").out


def test_a_message_whose_record_a_purge_has_deleted_runs_nevertheless(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    now_ms = kit.clock.wall_ms()
    task = RunningTask("m", "task", "mail", 1, since_ms=now_ms - 7_000)
    tell(report(queues=("mail",), running=(task,), running_count=1, at_ms=now_ms))
    kit.broker.flush("mail")
    (row,) = dkb("status", "--json", "--sample", "0").document["queues"]
    assert (row["waiting"], row["running"]) == (0, 1)
    for _ in range(3):
        kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    (row,) = dkb("status", "--json", "--sample", "0").document["queues"]
    assert (row["waiting"], row["running"]) == (3, 1)


def test_status_and_queues_agree_on_what_waits_and_runs(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    # Given six records, of which the worker has read four ahead, by its commit, and runs two
    kit.broker.declare_queue("mail")
    for _ in range(6):
        kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    state = CommitState(0, 3, (0, 1, 2, 3))
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(0, encode(state))
    now_ms = kit.clock.wall_ms()
    placed = RunningTask("m-1", "task", "mail", 1, since_ms=now_ms - 7_000, partition=0)
    # and one of an earlier version, whose report does not name the partition
    unplaced = RunningTask("m-2", "task", "mail", 1, since_ms=now_ms - 9_000)
    tell(report(queues=("mail",), running=(placed, unplaced), running_count=2, at_ms=now_ms))
    (row,) = dkb("status", "--json", "--sample", "0").document["queues"]
    (partition,) = dkb("queues", "--json").document["partitions"]
    for name in ("waiting", "running", "oldest_running_s"):
        assert partition[name] == row[name]
    assert (row["waiting"], row["running"], row["oldest_running_s"]) == (4, 2, 9.0)


def test_no_task_runs_when_the_worker_has_only_read_ahead(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    kit.broker.declare_queue("mail")
    for _ in range(2):
        kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    offsets = kit.cluster.group("dramatiq.shop-mail").offsets
    offsets[TopicPartition("shop-mail", 0)] = OffsetAndMetadata(0, encode(CommitState(0, 1, (0, 1))))
    advance(seconds=48)
    tell(report(queues=("mail",), at_ms=kit.clock.wall_ms()))
    (row,) = dkb("status", "--json", "--sample", "0").document["queues"]
    (partition,) = dkb("queues", "--json").document["partitions"]
    for found in (row, partition):
        assert (found["waiting"], found["running"], found["oldest_running_s"]) == (2, 0, None)
        assert found["oldest_waiting_s"] == 48.0


def test_a_message_that_runs_by_a_report_does_not_wait_although_no_commit_has_it(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    fail_once_delay_one_and_let_two_wait()
    now_ms = kit.clock.wall_ms()
    task = RunningTask("m", "task", "mail", 1, since_ms=now_ms - 7_000)
    tell(report(queues=("mail",), running=(task,), running_count=1, at_ms=now_ms))
    (row,) = dkb("status", "--json", "--sample", "0").document["queues"]
    assert (row["waiting"], row["running"], row["workers"]) == (1, 1, 1)
    assert row["oldest_running_s"] == 7.0
