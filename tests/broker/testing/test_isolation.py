"""A test leaves nothing behind: no thread, socket, message, actor, patch or time. It needs no pytest."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import NoReturn

import dramatiq
import dramatiq.broker
import dramatiq.message
import pytest
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import AsyncIO

from broker import KafkaBroker, default_middleware
from broker.testing import Kit, ManualClock, MemoryBroker, MemoryCluster, advance, drain, kafka_away
from dev.stack import ROOT
from tests.broker.testing.conftest import Runs
from tests.waiting import wait_until


@pytest.fixture
def application() -> tuple[KafkaBroker, dramatiq.Actor[..., None], Runs]:
    """A broker with an actor that was declared at import."""
    runs: Runs = []
    broker = KafkaBroker()
    return broker, dramatiq.actor(broker=broker, actor_name="work")(runs.append), runs


def test_no_thread_is_left_and_no_socket_is_opened(
    application: tuple[KafkaBroker, dramatiq.Actor[..., None], Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    broker, work, runs = application
    monkeypatch.setattr(socket, "socket", refuse)
    before = set(threading.enumerate())
    with Kit(broker).use() as kit:
        work.send(1)
        work.send_with_options(args=(2,), delay=1_000)
        with kit.crash_worker():
            kit.drain()
        kit.advance(hours=1)
        kit.drain()
        assert not list(broker.dead_letters("default"))
        with kit.kafka_away(), pytest.raises(BrokerConnectionError):
            work.send(3)
    assert sorted(runs) == [1, 1, 2]
    wait_for_ending_threads(before)


def wait_for_ending_threads(before: set[threading.Thread]) -> None:
    """A thread that has ended its work may live for a moment, and one may not have begun yet."""
    wait_until(lambda: not set(threading.enumerate()) - before, deadline_s=60, what="all threads to end")


def test_a_worker_with_threads_and_an_event_loop_leaves_no_thread(runs: Runs) -> None:
    before = set(threading.enumerate())
    broker = KafkaBroker(middleware=[*default_middleware(), AsyncIO()])

    @dramatiq.actor(broker=broker)
    async def work() -> None:
        runs.append(threading.current_thread())

    with Kit(broker).use() as kit:
        work.send()
        with kit.threads():
            broker.join("default", timeout=60_000)
            with pytest.raises(RuntimeError, match="a worker with threads runs the messages"):
                kit.drain()
            with pytest.raises(RuntimeError, match="does not crash"), kit.crash_worker():
                """Not reached."""
    assert len(runs) == 1
    assert threading.current_thread() not in runs
    wait_for_ending_threads(before)


def test_the_fixture_worker_runs_messages_in_threads(
    kafka_broker: KafkaBroker, worker: dramatiq.Worker, runs: Runs
) -> None:
    barrier = threading.Barrier(2)

    @dramatiq.actor
    def meet() -> None:
        barrier.wait(60)
        runs.append(1)

    meet.send()
    meet.send()
    kafka_broker.join("default", timeout=60_000)
    assert runs == [1, 1]


def test_each_use_begins_with_an_empty_kafka(
    application: tuple[KafkaBroker, dramatiq.Actor[..., None], Runs],
) -> None:
    broker, work, runs = application
    kit = Kit(broker)
    for _ in range(2):
        with kit.use():
            kit.assert_not_enqueued(work)
            work.send(1)  # and the test forgets to drain
            assert len(kit.pending()) == 1
    assert runs == []


def test_the_broker_and_the_process_are_what_they_were_afterwards(
    application: tuple[KafkaBroker, dramatiq.Actor[..., None], Runs], kafka_broker: KafkaBroker
) -> None:
    broker, _, _ = application
    before = {name: getattr(broker, name) for name in ("parts", "middleware", "consumption_paused")}
    with Kit(broker).use():
        dramatiq.actor(broker=broker, actor_name="of_the_test", queue_name="of_the_test")(print)
        broker.add_middleware(dramatiq.middleware.CurrentMessage())
        broker.actor_options.add("of_the_test")
        broker.consumption_paused = True
        for method in ("join", "cancel", "flush"):
            assert method in vars(broker)
    for name, value in before.items():
        assert getattr(broker, name) is value
    assert list(broker.actors) == ["work"]
    assert list(broker.queues) == ["default"]
    assert "of_the_test" not in broker.actor_options
    assert not {"join", "cancel", "flush"} & vars(broker).keys()


def test_kits_share_a_clock_and_may_end_in_any_order() -> None:
    first, second = Kit(KafkaBroker()), Kit(KafkaBroker())
    first_use, second_use = first.use(), second.use()
    first_use.__enter__()
    second_use.__enter__()
    assert first.clock is second.clock
    second.advance(days=1)
    first_use.__exit__(None, None, None)
    work = dramatiq.actor(broker=second.broker, actor_name="work")(print)
    work.send()
    assert second.drain() == 1
    second_use.__exit__(None, None, None)


def test_a_second_clock_is_refused(kafka_broker: KafkaBroker) -> None:
    with (
        pytest.raises(RuntimeError, match="a process goes by one clock"),
        Kit(KafkaBroker(), clock=ManualClock()).use(),
    ):
        """Not reached."""


def test_two_brokers_share_a_cluster_when_it_is_given_to_both(runs: Runs) -> None:
    cluster = MemoryCluster()
    sender, worker = KafkaBroker(), KafkaBroker()
    work = dramatiq.actor(broker=worker, actor_name="work")(runs.append)
    sender.declare_queue("default")
    with Kit(sender, cluster).use() as sending, Kit(worker, cluster).use() as working:
        sender.enqueue(work.message(1))
        assert working.drain() == 1
        sending.assert_enqueued("work")
        working.assert_not_enqueued("work")
    assert runs == [1]


def test_a_memory_broker_works_until_it_is_closed(runs: Runs) -> None:
    broker = MemoryBroker(partitions=1)
    work = dramatiq.actor(broker=broker, actor_name="work")(runs.append)
    work.send(1)
    assert broker.kit.drain() == 1
    broker.close()
    assert runs == [1]


class InAUnitTest(unittest.TestCase):
    """The kit without pytest's fixtures."""

    def setUp(self) -> None:
        self.broker = KafkaBroker()
        self.runs: list[int] = []
        self.work = dramatiq.actor(broker=self.broker, actor_name="work")(self.runs.append)
        self.kit = self.enterContext(Kit(self.broker).use())

    def test_messages_run(self) -> None:
        self.work.send(1)
        self.kit.drain()
        self.assertEqual(self.runs, [1])  # noqa: PT009 - that is what this class shows


def test_without_a_kit_in_use_the_functions_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.testing.kit._active", [])
    for function in (drain, advance, kafka_away):
        with pytest.raises(RuntimeError, match="use the fixture kafka_broker"):
            function()


STUB_APPLICATION = """
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage
from broker import default_middleware

runs = []
broker = StubBroker(middleware=[*default_middleware(), CurrentMessage()])
dramatiq.set_broker(broker)

@dramatiq.actor
def work(number):
    runs.append((number, CurrentMessage.get_current_message().message_id))
"""
TESTS_OF_IT = """
import dramatiq
import pytest
from application import broker, runs, work
from broker.testing import *

@pytest.fixture(autouse=True)
def nothing_ran():
    runs.clear()

@pytest.mark.parametrize("number", range(4))
def test_the_actors_of_a_stub_broker_run_on_kafka_in_memory(kafka_broker, number):
    message = work.send(number)
    assert type(kafka_broker).__name__ == "KafkaBroker"
    drain()
    assert runs == [(number, message.message_id)]

def test_the_stub_broker_is_back():
    assert dramatiq.get_broker() is broker
    assert work.broker is broker

def test_a_forgotten_drain(kafka_broker):
    work.send(7)

def test_an_actor_of_a_test_has_the_name_of_another_tests(kafka_broker):
    dramatiq.actor(actor_name="of_the_test")(print)

def test_an_actor_of_another_test_has_the_same_name(kafka_broker):
    dramatiq.actor(actor_name="of_the_test")(print)
"""
TESTS_WITHOUT_APPLICATION = """
import dramatiq
import dramatiq.broker
from broker import KafkaBroker
from broker.testing import *

def test_without_an_application_the_fixture_is_the_global_broker(kafka_broker):
    runs = []
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    drain()
    assert runs == [1] and work.broker is kafka_broker

def test_no_global_broker_is_left():
    assert dramatiq.broker.global_broker is None

def test_a_module_that_the_test_imports_first_keeps_its_broker(kafka_broker):
    dramatiq.set_broker(KafkaBroker(namespace="its.own"))

def test_it_is_still_there():
    assert dramatiq.broker.global_broker.parts.settings.namespace == "its.own"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "options", "passed"),
    [
        ({"application.py": STUB_APPLICATION, "test_stub.py": TESTS_OF_IT}, ["-n", "2"], 8),
        ({"test_none.py": TESTS_WITHOUT_APPLICATION}, [], 4),
    ],
    ids=["with a stub broker, and xdist", "without a broker"],
)
def test_the_plugin_serves_applications(
    files: dict[str, str], options: list[str], passed: int, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "broker.testing.plugin", "-p", "no:cacheprovider"),
            *("-q", "-W", "ignore::DeprecationWarning", *options, str(tmp_path)),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout


WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
import time
import dramatiq.common, dramatiq.message, dramatiq.middleware.age_limit, dramatiq.middleware.time_limit
import broker, broker.testing
from broker.process import clock

kit = broker.testing.Kit(broker.KafkaBroker())
with kit.use():
    kit.advance(days=9)
    kit.drain()
    assert clock.wall_ms() / 1000 - time.time() > 600_000
    assert dramatiq.message.Message("q", "a", (), {}, {}).message_timestamp == clock.wall_ms()
assert abs(clock.wall_ms() / 1000 - time.time()) < 60_000
assert dramatiq.message.time is time
assert dramatiq.middleware.age_limit.current_millis is dramatiq.common.current_millis
assert dramatiq.middleware.time_limit.monotonic is time.monotonic
try:
    broker.testing.kafka_broker
except ImportError:
    print("only the fixtures need pytest")
"""


def test_the_kit_does_without_pytest_and_gives_the_time_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTEST], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "only the fixtures need pytest", done.stderr


def test_the_fixtures_can_be_imported_and_nothing_else_is_made_up() -> None:
    import broker.testing as kit

    assert all(hasattr(kit, name) for name in kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'kafka'"):
        kit.kafka  # noqa: B018
