"""A call that another thread makes for a caller that may be interrupted."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.process.delegated_call import DelegatedCall
from tests.waiting import wait_until

DEADLINE_S = 20.0


class Interrupt(BaseException):
    """What Dramatiq raises in a worker's thread."""


def test_one_of_several_threads_takes_a_call() -> None:
    call = DelegatedCall(lambda: None)
    assert not call.is_taken
    together = threading.Barrier(8)

    def take() -> bool:
        together.wait(DEADLINE_S)
        return call.take()

    with ThreadPoolExecutor(8) as pool:
        taken = [future.result(DEADLINE_S) for future in [pool.submit(take) for _ in range(8)]]
    assert sorted(taken) == [False] * 7 + [True]
    assert call.is_taken


def test_the_caller_gets_the_result_of_the_thread_that_made_the_call() -> None:
    call = DelegatedCall(threading.get_ident)

    def make() -> int:
        call.make()
        call.end()
        return threading.get_ident()

    with ThreadPoolExecutor(1) as pool:
        maker = pool.submit(make)
        assert call.wait(DEADLINE_S)
        assert call.result() == maker.result(DEADLINE_S) != threading.get_ident()


def test_the_caller_gets_the_error_of_the_function() -> None:
    call = DelegatedCall(lambda: 1 // 0)
    call.make()
    call.end()
    assert call.wait(DEADLINE_S)
    assert isinstance(call.error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        call.result()


def test_a_call_can_end_later_than_it_is_made_and_with_the_argument_of_a_callback() -> None:
    call = DelegatedCall(lambda: "made")
    call.make()
    assert call.is_made
    assert call.result() == "made"
    assert not call.wait(0.0)
    call.end("a response")
    assert call.wait(DEADLINE_S)


def test_a_call_whose_thread_was_ended_within_it_has_no_result() -> None:
    def end_thread() -> None:
        raise Interrupt

    call = DelegatedCall(end_thread)
    with pytest.raises(Interrupt):
        call.make()
    call.end()
    assert not call.is_made
    with pytest.raises(RuntimeError, match="not made"):
        call.result()


def test_an_interrupted_caller_leaves_the_call_to_the_thread_that_makes_it() -> None:
    may_return, waiting = threading.Event(), threading.Event()
    call = DelegatedCall(lambda: may_return.wait(DEADLINE_S))
    idents: list[int] = []

    def wait() -> str:
        idents.append(threading.get_ident())
        waiting.set()
        try:
            while not call.wait(0.01):
                pass
        except Interrupt:
            return "interrupted"
        return "ended"

    def make() -> None:
        call.make()
        call.end()

    with ThreadPoolExecutor(2) as pool:
        caller, maker = pool.submit(wait), pool.submit(make)
        assert waiting.wait(DEADLINE_S)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Interrupt))
        assert caller.result(DEADLINE_S) == "interrupted"
        may_return.set()
        maker.result(DEADLINE_S)
    wait_until(lambda: call.wait(0.0), deadline_s=DEADLINE_S, what="the end of the call")
    assert call.result() is True
