"""Dramatiq's documented features, each on workers that the `dramatiq` command line has started."""

from __future__ import annotations

import time

import pytest
from dramatiq import group, pipeline
from dramatiq.results import ResultFailure

from tests.broker.features.application import DEADLINE_S, Application
from tests.waiting import wait_until

TIMEOUT_MS = DEADLINE_S * 1000


def dead_letter_error(application: Application, message_id: str) -> str | None:
    for dead_letter in application.broker.dead_letters("default", message_id=message_id):
        return dead_letter.error_type
    return None


def wait_for_dead_letter(application: Application, message_id: str) -> str:
    return wait_until(
        lambda: dead_letter_error(application, message_id), deadline_s=DEADLINE_S, what="the dead letter"
    )


def test_the_processes_of_one_command_line_share_a_queue(running: Application) -> None:
    def both_have_run_some() -> bool:
        running.broker.enqueue_many([running.message("remember", "shared") for _ in range(8)])
        return len({entry["pid"] for entry in running.journal.entries("remembered", text="shared")}) == 2

    wait_until(both_have_run_some, deadline_s=DEADLINE_S, what="both processes to run some of it")


def test_a_worker_serves_all_queues_of_its_application(running: Application) -> None:
    running.send("remember_elsewhere", "in another queue", queue_name="other")
    running.wait_for("remembered elsewhere", text="in another queue")


def test_a_delayed_message_runs_when_it_is_due(running: Application) -> None:
    running.send("remember", "delayed", delay=300)
    running.wait_for("remembered", text="delayed")


def test_a_task_over_its_time_limit_is_interrupted(running: Application) -> None:
    sent = running.send("run_for_too_long")
    running.wait_for("time limit exceeded", message_id=sent.message_id)
    assert wait_for_dead_letter(running, sent.message_id) == "TimeLimitExceeded"


def test_a_message_over_its_age_limit_does_not_run(running: Application) -> None:
    old = running.message("remember", "too old", max_age=60_000)
    old = old.copy(message_timestamp=int(time.time() * 1000) - 61_000)
    running.broker.enqueue(old)
    assert wait_for_dead_letter(running, old.message_id) == "SkipMessage"
    assert running.journal.entries("remembered", text="too old") == []


def test_a_success_is_called_back_with_its_result(running: Application) -> None:
    sent = running.send("add", 1, 2, on_success="succeeded", on_failure="failed")
    (entry,) = running.wait_for("succeeded", of=sent.message_id)
    assert entry["result"] == 3


def test_a_failure_is_called_back_with_its_error(running: Application) -> None:
    sent = running.send("refuse", "because", on_success="succeeded", on_failure="failed")
    (entry,) = running.wait_for("failed", of=sent.message_id)
    assert entry["error"] == {"type": "ValueError", "message": "because"}


def test_exhausted_retries_are_called_back(running: Application) -> None:
    sent = running.send("refuse", "always", max_retries=1, min_backoff=1, on_retry_exhausted="exhausted")
    running.wait_for("exhausted", of=sent.message_id)
    assert wait_for_dead_letter(running, sent.message_id) == "ValueError"


def test_a_result_can_be_waited_for(running: Application) -> None:
    sent = running.send("add", 20, 22)
    backend = running.broker.get_results_backend()
    assert sent.get_result(backend=backend, block=True, timeout=TIMEOUT_MS) == 42


def test_a_failure_is_a_result(running: Application) -> None:
    sent = running.send("refuse", "no result")
    with pytest.raises(ResultFailure, match="no result"):
        sent.get_result(backend=running.broker.get_results_backend(), block=True, timeout=TIMEOUT_MS)


def test_a_pipeline_hands_each_result_to_the_next_step(running: Application) -> None:
    steps = pipeline(
        [running.message("add", 1, 2), running.message("add", 10), running.message("add", 100, delay=200)],
        broker=running.broker,
    ).run()
    assert steps.get_result(block=True, timeout=TIMEOUT_MS) == 113
    assert list(steps.get_results()) == [3, 13, 113]


def test_a_pipeline_step_can_ignore_the_result_before_it(running: Application) -> None:
    steps = pipeline(
        [running.message("add", 1, 2), running.message("add", 5, 6, pipe_ignore=True)], broker=running.broker
    ).run()
    assert steps.get_result(block=True, timeout=TIMEOUT_MS) == 11


def test_a_pipeline_ends_at_a_step_that_fails(running: Application) -> None:
    steps = pipeline(
        [running.message("refuse", "stop here"), running.message("remember", "after a failed step")],
        broker=running.broker,
    ).run()
    assert wait_for_dead_letter(running, steps.messages[0].message_id) == "ValueError"
    running.broker.join("default", timeout=TIMEOUT_MS)
    assert running.journal.entries("remembered", text="after a failed step") == []


def test_a_groups_completion_callback_runs_once_after_all_of_it(running: Application) -> None:
    together = group(
        [
            *(running.message("add", number, number) for number in range(20)),
            pipeline([running.message("add", 1, 1), running.message("add", 1)], broker=running.broker),
        ],
        broker=running.broker,
    )
    together.add_completion_callback(running.message("group_done", "sums"))
    together.run()
    running.wait_for("group done", name="sums")
    assert sum(together.get_results()) == sum(2 * number for number in range(20)) + 3
    running.broker.join("default", timeout=TIMEOUT_MS)
    assert len(running.journal.entries("group done", name="sums")) == 1


def test_an_async_actor_runs_on_the_event_loop(running: Application) -> None:
    for number in range(3):
        running.send("remember_later", f"async {number}", 0.1)
    for number in range(3):
        running.wait_for("remembered asynchronously", text=f"async {number}")


def test_a_rate_limiter_lets_in_one_at_a_time_and_retries_the_others(running: Application) -> None:
    running.broker.enqueue_many([running.message("run_alone", "one at a time") for _ in range(8)])
    running.wait_for("alone: left", count=8, limit="one at a time")
    order = [
        (entry["event"], entry["message_id"])
        for entry in running.journal.entries_of("alone: entered", "alone: left")
    ]
    entered, left = order[0::2], order[1::2]
    assert {event for event, _ in entered} == {"alone: entered"}
    assert [message_id for _, message_id in entered] == [message_id for _, message_id in left]
