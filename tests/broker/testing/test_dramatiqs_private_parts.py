"""What the kit relies on in Dramatiq beside its documented interface, with the place in version 2.2.1.

A test that fails here names the part that has changed, and the file of the kit that uses it.
"""

from __future__ import annotations

import inspect
import time
from queue import PriorityQueue
from typing import Any

import dramatiq
import dramatiq.common
import dramatiq.composition
import dramatiq.message
import dramatiq.middleware.age_limit
import dramatiq.middleware.retries
import dramatiq.middleware.time_limit
import dramatiq.rate_limits.backends.stub
import dramatiq.rate_limits.bucket
import dramatiq.rate_limits.window
import dramatiq.results.backend
import dramatiq.results.backends.stub
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import TimeLimit
from dramatiq.worker import Worker, WorkerThread

from broker.testing import advance, kafka_away
from broker.testing.kit import current

SYSTEMS_TIME: Any = time


def test_a_worker_thread_processes_a_message_on_the_callers_thread_and_hands_it_to_its_consumer() -> None:
    """dramatiq/worker.py:542, ``WorkerThread.process_message``; used by testing/inline_worker.py."""
    broker = StubBroker()
    work: PriorityQueue[Any] = PriorityQueue()
    seen: list[Any] = []

    class Consumer:
        def post_process_message(self, message: Any) -> None:
            seen.append(message)

    actor = dramatiq.actor(broker=broker, actor_name="work")(seen.append)
    thread = WorkerThread(broker=broker, consumers={}, work_queue=work, worker_timeout=0)
    thread.consumers["default"] = Consumer()  # type: ignore[assignment]
    message = dramatiq.MessageProxy(actor.message(1))
    work.unfinished_tasks += 1
    thread.process_message(message)
    assert seen == [1, message]
    assert work.unfinished_tasks == 0
    assert not thread.is_alive()


def test_a_worker_that_was_not_started_has_no_thread_and_is_no_middleware() -> None:
    """dramatiq/worker.py:78, ``Worker.__init__``; used by testing/inline_worker.py."""
    broker = StubBroker()
    before = list(broker.middleware)
    assert Worker(broker, worker_threads=1).workers == []
    assert broker.middleware == before


@pytest.mark.parametrize(
    "module",
    [
        dramatiq.message,  # message.py:84, message_timestamp
        dramatiq.composition,  # composition.py:168, the timeout of a pipeline's or group's result
        dramatiq.results.backend,  # results/backend.py:106, the timeout of a result
        dramatiq.results.backends.stub,  # results/backends/stub.py:44, the end of a result
        dramatiq.rate_limits.backends.stub,  # rate_limits/backends/stub.py:85
        dramatiq.rate_limits.window,  # rate_limits/window.py:54
        dramatiq.rate_limits.bucket,  # rate_limits/bucket.py:65
        dramatiq.middleware.retries,  # middleware/retries.py:112, requeue_timestamp
    ],
    ids=lambda module: module.__name__,
)
def test_the_module_asks_the_module_time(module: Any) -> None:
    """Replaced by testing/process_time.py while a kit is in use; here one is."""
    assert module.time is not SYSTEMS_TIME
    before_s = module.time.time()
    advance(hours=1)
    assert 3600 <= module.time.time() - before_s < 3700
    assert inspect.getsource(module).count("time.") > 0


def test_the_age_of_a_message_is_reckoned_by_current_millis() -> None:
    """dramatiq/middleware/age_limit.py:51; replaced by testing/process_time.py."""
    age_limit: Any = dramatiq.middleware.age_limit
    assert age_limit.current_millis() == current().clock.wall_ms()
    before_ms = age_limit.current_millis()
    advance(days=1)
    assert age_limit.current_millis() - before_ms == 86_400_000
    assert "current_millis()" in inspect.getsource(dramatiq.middleware.age_limit.AgeLimit)


def test_time_limits_are_kept_by_monotonic_and_a_manager() -> None:
    """dramatiq/middleware/time_limit.py:108 and 135, ``_CtypesTimeoutManager``; used by Kit.advance."""
    assert dramatiq.middleware.time_limit.monotonic is not time.monotonic
    manager: Any = TimeLimit().manager
    manager.add_timeout(-1, 1_000)
    (deadline_s,) = manager.deadlines.values()
    advance(hours=1)
    assert deadline_s < dramatiq.middleware.time_limit.monotonic()
    manager.remove_timeout(-1)
    manager._handle_deadlines()
    assert not manager.is_alive()


def test_a_sleep_of_dramatiq_is_over_at_once_and_can_be_attended() -> None:
    """dramatiq/results/backend.py:118; the kit drains there."""
    with kafka_away():
        began_s = time.monotonic()
        dramatiq.results.backend.time.sleep(3600)
    assert time.monotonic() - began_s < 3600


def test_the_global_broker_is_a_variable_of_its_module() -> None:
    """dramatiq/broker.py:35, ``global_broker``: testing/plugin.py reads it without making a broker."""
    import dramatiq.broker

    assert dramatiq.get_broker() is vars(dramatiq.broker)["global_broker"]
