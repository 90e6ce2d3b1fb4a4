"""The parameters of the operators' methods: one of another type is refused with a sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import inf, nan
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker, ParameterRefused
from broker.testing.kit import current

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def task() -> None: ...


#: The call, and the beginning of the text of its error.
CALLS: dict[str, tuple[Callable[[Any], object], str]] = {
    "history, message id": (
        lambda b: b.history(message_id=3),
        "message_id=3 is of the type int: pass a text",
    ),
    "history, actor": (
        lambda b: b.history(actor=dramatiq.actor(broker=b)(task)),
        "actor=Actor(<function task",
    ),
    "history, error": (lambda b: b.history(error_type=ValueError), "error_type=<class 'ValueError'> is of"),
    "history, since": (
        lambda b: b.history(since="yesterday"),
        "since='yesterday' is of the type str: pass a",
    ),
    "history, zone": (lambda b: b.history(since=datetime(2026, 1, 1)), "since=datetime"),  # noqa: DTZ001
    "history, limit": (lambda b: b.history(limit=1.5), "limit=1.5 is of the type float: pass a whole number"),
    "history, scan limit": (lambda b: b.history(scan_limit=True), "scan_limit=True is of the type bool"),
    "workers": (
        lambda b: b.workers(within_s="x"),
        "within_s='x' is of the type str: pass a number of seconds",
    ),
    "workers, negative": (lambda b: b.workers(within_s=-1), "within_s=-1: a number of seconds is at least 0"),
    "workers, no number": (lambda b: b.workers(within_s=nan), "within_s=nan: a number of seconds"),
    "queues": (lambda b: b.queues(None), "queue_name=None is of the type NoneType: pass a text"),
    "queue names": (lambda b: b.queue_names(3), "queue_name=3"),
    "count": (lambda b: b.count(["mail"]), "queue_name=['mail'] is of the type list"),
    "delayed": (lambda b: b.delayed("mail", limit="all"), "limit='all'"),
    "delayed, negative": (lambda b: b.delayed("mail", limit=-1), "limit=-1: it is at least 0"),
    "lanes": (lambda b: b.lanes("mail", limit=None), "limit=None"),
    "cancel": (lambda b: b.cancel(3), "message_id=3"),
    "cancel, timeout": (lambda b: b.cancel("m1", timeout_s=-1), "timeout_s=-1"),
    "run now": (lambda b: b.run_now("m1", None), "message_id=None"),
    "run now, timeout": (lambda b: b.run_now("m1", timeout_s="1"), "timeout_s='1'"),
    "cancel outcome": (lambda b: b.cancel_outcome(None), "message_id=None"),
    "dead letters": (lambda b: b.dead_letters(3), "queue_name=3"),
    "dead letters, error": (lambda b: b.dead_letters("mail", error_type=ValueError), "error_type=<class"),
    "dead letters, since": (lambda b: b.dead_letters("mail", since="1h"), "since='1h'"),
    "redrive": (lambda b: b.redrive("mail", dry_run=False, reason=3), "reason=3 is of the type int"),
    "redrive, by": (lambda b: b.redrive("mail", by=3), "by=3"),
    "redrive, rate": (
        lambda b: b.redrive("mail", rate_per_s="10"),
        "rate_per_s='10': pass a positive number",
    ),
    "discard": (lambda b: b.discard(None), "queue_name=None"),
    "import": (lambda b: b.import_dead_letters("mail", [], dry_run=False, reason=3), "reason=3"),
    "replay": (lambda b: b.replay("mail", actor=3), "actor=3 is of the type int: pass the name of the actor"),
    "replay, since": (lambda b: b.replay("mail", since=1.0), "since=1.0"),
    "replay, limit": (lambda b: b.replay("mail", limit="3"), "limit='3'"),
    "replay, rate": (lambda b: b.replay("mail", rate_per_s=inf), "rate_per_s=inf"),
    "replay, reason": (lambda b: b.replay("mail", dry_run=False, reason=3), "reason=3"),
    "arrivals": (lambda b: b.arrivals("mail", since=None), "since=None"),
    "arrivals, interval": (lambda b: b.arrivals("mail", since=NOW, interval_s="x"), "interval_s='x'"),
    "find": (lambda b: b.find(None), "queue_name=None"),
    "find, message": (lambda b: b.find("mail", message_id=3), "message_id=3"),
    "find, limit": (lambda b: b.find("mail", limit=0), "limit=0: it is at least 1"),
    "pause": (lambda b: b.pause("mail", reason=" "), "a pause needs reason="),
    "pause, reason": (lambda b: b.pause("mail", reason=3), "reason=3 is of the type int"),
    "pause, by": (lambda b: b.pause("mail", reason="a test", by=3), "by=3"),
    "pause, timeout": (lambda b: b.pause("mail", reason="a test", timeout_s=-1), "timeout_s=-1: a number"),
    "resume": (lambda b: b.resume("mail", reason=None), "reason=None"),
    "abort, reason": (lambda b: b.abort("m1", reason=3), "reason=3"),
    "stop, reason": (lambda b: b.stop("w1", reason=3, allow_unseen=True), "reason=3"),
    "schedules, reason": (lambda b: b.schedules.pause("daily", reason=3), "reason=3"),
    "abort": (lambda b: b.abort(None, reason="a test"), "message_id=None"),
    "abort, end": (lambda b: b.abort("m1", expires_at="tomorrow"), "expires_at='tomorrow'"),
    "abort, timeout": (lambda b: b.abort("m1", timeout_s=-0.5), "timeout_s=-0.5"),
    "quiet": (lambda b: b.quiet(3), "worker_id=3"),
    "stop": (lambda b: b.stop(None, allow_unseen=True), "worker_id=None"),
    "plan": (lambda b: b.plan_topics(3), "queue_name=3"),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_a_parameter_of_another_type_is_refused_with_a_sentence_that_names_it(
    kafka_broker: KafkaBroker, call: str
) -> None:
    kafka_broker.declare_queue("mail")
    give, text = CALLS[call]
    with pytest.raises(ParameterRefused) as refused:
        give(kafka_broker)
    assert str(refused.value).startswith(text)
    assert "dramatiq_control" not in current().cluster.topics
