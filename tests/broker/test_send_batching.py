"""Threads that send at the same moment are sent for, and none of them depends on another."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import dramatiq
import pytest
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import TopicPartition

from broker import KafkaBroker, KafkaUnavailable
from broker.produce import send_batching
from broker.produce.send_batching import SendBatcher, Sent
from dev.stack import Stack
from tests.waiting import wait_until

DEADLINE_S = 60.0
TIMEOUT_S = 10.0


class Interrupt(BaseException):
    """What Dramatiq raises in a worker's thread."""


def sent_after(event: threading.Event) -> Sent:
    event.wait(DEADLINE_S)
    return Sent()


class Busy:
    """A batcher in which one caller waits for a response, so that no other caller is alone."""

    def __init__(self) -> None:
        self.batcher = SendBatcher()
        self._answered = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self.occupant = self.submit(Sent, wait=lambda _: self._answered.wait(DEADLINE_S))
        wait_until(lambda: bool(self.batcher._callers), deadline_s=DEADLINE_S, what="the first caller")

    def submit(
        self,
        send: Callable[[], Sent],
        wait: Callable[[Sent], Any] = lambda sent: sent,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Future[Any]:
        return self._pool.submit(self.batcher.produce, send, wait, timeout_s=timeout_s)

    def threads(self) -> set[threading.Thread]:
        return self._pool._threads  # type: ignore[return-value]

    def end(self) -> None:
        self._answered.set()
        self.occupant.result(DEADLINE_S)
        self._pool.shutdown()


@pytest.fixture
def busy() -> Iterator[Busy]:
    busy = Busy()
    yield busy
    busy.end()


def test_a_thread_that_is_alone_sends_by_itself() -> None:
    senders: list[int] = []

    def send() -> Sent:
        senders.append(threading.get_ident())
        return Sent()

    SendBatcher().produce(send, lambda sent: sent, timeout_s=TIMEOUT_S)
    assert senders == [threading.get_ident()]


def test_threads_that_send_at_the_same_time_are_sent_for_by_one_and_get_their_own_answers(busy: Busy) -> None:
    def send(number: int) -> Sent:
        return Sent(failures={number: ValueError(threading.get_ident())})

    calls = [busy.submit(partial(send, number)) for number in range(12)]
    sent = [call.result(DEADLINE_S) for call in calls]
    assert [list(one.failures) for one in sent] == [[number] for number in range(12)]
    senders = {str(e) for one in sent for e in one.failures.values()}
    assert len(senders) == 1
    assert senders.isdisjoint(str(thread.ident) for thread in busy.threads())


def test_an_error_nobody_expected_is_raised_where_it_belongs_and_harms_no_other(busy: Busy) -> None:
    def fail() -> Sent:
        raise ZeroDivisionError("mine")

    calls = [busy.submit(fail if number == 3 else Sent) for number in range(8)]
    for number, call in enumerate(calls):
        if number == 3:
            with pytest.raises(ZeroDivisionError, match="mine"):
                call.result(DEADLINE_S)
        else:
            assert call.result(DEADLINE_S) == Sent()


def test_an_answer_that_does_not_come_holds_up_its_own_caller_only(busy: Busy) -> None:
    result = FutureProduceResult(TopicPartition("topic", 0))
    unanswered = FutureRecordMetadata(result, 0, 0, None, -1, -1, -1)
    waiting = busy.submit(
        lambda: Sent(pending=[(0, unanswered)]), lambda sent: sent.pending[0][1].get(DEADLINE_S)
    )
    assert busy.submit(Sent).result(DEADLINE_S) == Sent()
    assert not waiting.done()
    result.success((7, -1, None))
    assert waiting.result(DEADLINE_S).offset == 7


def test_a_send_that_hangs_is_given_up_in_time(busy: Busy) -> None:
    over = threading.Event()
    hanging = busy.submit(lambda: sent_after(over), timeout_s=0.2)
    with pytest.raises(KafkaUnavailable):
        hanging.result(DEADLINE_S)
    over.set()
    assert busy.submit(Sent).result(DEADLINE_S) == Sent()


def test_callers_whose_thread_has_died_send_for_themselves_and_the_next_get_another(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dead:
        dead.setattr(busy.batcher, "_run", lambda: None)
        calls = [busy.submit(Sent) for _ in range(4)]
        assert [call.result(DEADLINE_S) for call in calls] == [Sent()] * 4
    senders = [busy.submit(lambda: Sent(failures={threading.get_ident(): ValueError()})) for _ in range(4)]
    idents = {ident for sender in senders for ident in sender.result(DEADLINE_S).failures}
    assert idents.isdisjoint(thread.ident for thread in busy.threads())


def test_an_interrupted_caller_leaves_the_others_as_they_were(busy: Busy) -> None:
    taken, over = threading.Event(), threading.Event()
    idents: list[int] = []

    def send() -> Sent:
        taken.set()
        return sent_after(over)

    def interrupted() -> str:
        idents.append(threading.get_ident())
        try:
            busy.batcher.produce(send, lambda _: None, timeout_s=TIMEOUT_S)
        except Interrupt:
            return "interrupted"
        return "answered"

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(interrupted)
        assert taken.wait(DEADLINE_S)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Interrupt))
        over.set()
        assert outcome.result(DEADLINE_S) == "interrupted"
    assert [busy.submit(Sent).result(DEADLINE_S) for _ in range(8)] == [Sent()] * 8


def test_the_thread_ends_when_nobody_needs_it_and_another_takes_its_place(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_batching, "IDLE_S", 0.01)
    for _ in range(3):
        assert busy.submit(Sent).result(DEADLINE_S) == Sent()
        wait_until(lambda: not busy.batcher._running, deadline_s=DEADLINE_S, what="the thread's end")


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_threads_of_a_forked_process_send_as_those_of_its_parent_did(stack: Stack, namespace: str) -> None:
    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)
    task = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)

    def send_from_threads() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: task.send(), range(40)))

    send_from_threads()
    if (child := os.fork()) == 0:
        signal.alarm(int(DEADLINE_S))
        status = 1
        try:
            send_from_threads()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert broker.count("default") == 80
    broker.close()
