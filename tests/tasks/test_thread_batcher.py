"""Calls that run at the same time are worked on together, and each of them gets its own answer."""

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from queue import SimpleQueue

import pytest
from dramatiq.middleware import Interrupt, Shutdown, TimeLimitExceeded, raise_thread_exception
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import thread_batcher
from tasks.thread_batcher import ThreadBatcher
from tests.examples import examples
from tests.waiting import wait_until


class Work:
    """Doubles numbers, for as long as it is let; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let = threading.Event()
        self.let.set()

    def __call__(self, numbers: list[int]) -> list[int | BaseException]:
        self.batches.append(list(numbers))
        assert self.let.wait(30)
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def batcher(work: Work) -> ThreadBatcher[int, int]:
    return ThreadBatcher(work, name="doubling", max_items=8)


def batcher_threads() -> int:
    return sum(thread.name == "doubling" and thread.is_alive() for thread in threading.enumerate())


@contextmanager
def held(work: Work) -> Iterator[None]:
    """For a while no batch gets an answer."""
    work.let.clear()
    try:
        yield
    finally:
        work.let.set()


def waiting(batcher: ThreadBatcher[int, int], count: int) -> Callable[[], bool]:
    return lambda: batcher._waiting.qsize() == count


def test_a_call_that_finds_it_idle_is_worked_on_alone_and_at_once(
    batcher: ThreadBatcher[int, int], work: Work
) -> None:
    assert [batcher.answer(number) for number in (1, 2, 3)] == [2, 4, 6]
    assert work.batches == [[1], [2], [3]]


def test_what_gathers_while_it_is_busy_is_worked_on_together_and_no_more_than_may_be(
    batcher: ThreadBatcher[int, int], work: Work
) -> None:
    with ThreadPoolExecutor(20) as threads:
        with held(work):
            first = threads.submit(batcher.answer, 0)
            wait_until(lambda: work.batches == [[0]], deadline_s=60, what="the first batch")
            rest = [threads.submit(batcher.answer, number) for number in range(1, 20)]
            wait_until(waiting(batcher, 19), deadline_s=60, what="the others to wait")
        assert [one.result(10) for one in [first, *rest]] == [2 * number for number in range(20)]
    assert [len(batch) for batch in work.batches] == [1, 8, 8, 3]


def test_after_a_large_batch_the_next_gathers_as_long_as_calls_come_in(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_batcher, "BACK_WITHIN_S", 60.0)
    monkeypatch.setattr(thread_batcher, "BATCH_LINGER_S", 60.0)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) <= 2:
            calls.append(threads.submit(batcher.answer, 100 + len(pauses)))
            wait_until(waiting(batcher, 1), deadline_s=60, what="a call that comes back")

    batcher = ThreadBatcher(work, name="doubling", max_items=100, pause=pause)
    with ThreadPoolExecutor(40) as threads:
        with held(work):
            calls = [threads.submit(batcher.answer, 0)]
            wait_until(lambda: work.batches == [[0]], deadline_s=60, what="the first batch")
            calls += [threads.submit(batcher.answer, number) for number in range(1, thread_batcher.MANY + 1)]
            wait_until(waiting(batcher, thread_batcher.MANY), deadline_s=60, what="the others to wait")
        assert all(call.result(10) for call in calls[1:])
        assert not pauses  # neither after a single call nor before anybody is back
        assert batcher.answer(50) == 100
        assert [call.result(10) for call in calls[-2:]] == [202, 204]
    assert [len(batch) for batch in work.batches] == [1, thread_batcher.MANY, 3]
    assert work.batches[2] == [50, 101, 102]
    assert len(pauses) == 3  # the last for nobody


def test_without_large_batches_nothing_is_ever_waited_for(work: Work) -> None:
    pauses: list[float] = []
    batcher = ThreadBatcher(work, name="doubling", max_items=8, pause=pauses.append)
    for _ in range(20):
        with ThreadPoolExecutor(thread_batcher.MANY - 1) as threads:
            assert list(threads.map(batcher.answer, range(thread_batcher.MANY - 1))) == [
                2 * number for number in range(thread_batcher.MANY - 1)
            ]
    assert not pauses


def test_an_error_goes_to_the_call_that_it_is_about(batcher: ThreadBatcher[int, int], work: Work) -> None:
    with ThreadPoolExecutor(4) as threads:
        with held(work):
            calls = [threads.submit(batcher.answer, number) for number in (0, 1, -1, 3)]
            wait_until(lambda: work.batches, deadline_s=60, what="the first batch")
        assert [call.exception(10) is not None for call in calls] == [False, False, True, False]
    assert batcher.answer(5) == 10


@pytest.mark.parametrize(
    "broken",
    [
        lambda numbers: [],
        lambda numbers: [1, 2, 3],
        lambda numbers: 1 / 0,
        lambda numbers: exec("raise SystemExit"),
    ],
    ids=["too few answers", "too many answers", "an error", "an exit"],
)
def test_broken_work_fails_its_callers_and_not_its_thread(
    broken: Callable[[list[int]], Sequence[int]],
) -> None:
    batcher: ThreadBatcher[int, int] = ThreadBatcher(broken, name="broken", max_items=8)
    for _ in range(2):
        with pytest.raises((RuntimeError, ZeroDivisionError, SystemExit)):
            batcher.answer(1)


@pytest.mark.parametrize("interrupt", [Shutdown, TimeLimitExceeded])
def test_a_waiting_call_is_interrupted_while_the_work_goes_on(
    batcher: ThreadBatcher[int, int], work: Work, interrupt: type[Interrupt]
) -> None:
    caught: list[BaseException] = []

    def call(number: int) -> None:
        try:
            batcher.answer(number)
        except BaseException as error:  # noqa: BLE001 - what it is, the test says
            caught.append(error)

    with held(work):
        threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
        threads[0].start()
        wait_until(lambda: work.batches == [[0]], deadline_s=60, what="the first batch")
        threads[1].start()
        wait_until(waiting(batcher, 1), deadline_s=60, what="the second call to wait")
        for thread in threads:
            assert thread.ident is not None
            raise_thread_exception(thread.ident, interrupt)
        for thread in threads:
            thread.join(60)  # the work is still held
            assert not thread.is_alive()
    assert [type(error) for error in caught] == [interrupt, interrupt]
    assert batcher.answer(7) == 14
    assert [1] not in work.batches  # nobody waited for it any more when its turn came


@pytest.mark.skipif(
    sys.gettrace() is not None, reason="the interrupts would hit the tracer of `make coverage`, too"
)
def test_thousands_of_interrupts_at_any_moment_leave_nothing_locked_and_no_thread_behind(
    batcher: ThreadBatcher[int, int], work: Work
) -> None:
    rounds = int(os.environ.get("INTERRUPTS", "2000"))
    chance = random.Random(1)
    before = batcher_threads()
    batcher.start()  # as a worker does when it boots; calls that find no thread may start one each
    wrong: list[object] = []
    stop = threading.Event()
    answered: SimpleQueue[None] = SimpleQueue()  # in C: an interrupt cannot come in the middle of a put

    def call_again_and_again(seed: int) -> None:
        numbers = random.Random(seed)
        while not stop.is_set():
            try:
                number = numbers.randrange(1000)
                if (answer := batcher.answer(number)) != 2 * number:
                    wrong.append((number, answer))
                answered.put(None)
            except Interrupt:
                continue
            except BaseException as error:  # noqa: BLE001 - none other may come
                wrong.append(error)

    def survive(seed: int) -> None:
        while not stop.is_set():
            try:
                call_again_and_again(seed)
            except Interrupt:  # it came between two calls
                continue

    threads = [threading.Thread(target=survive, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        victim = chance.choice(threads)
        assert victim.ident is not None
        raise_thread_exception(victim.ident, Shutdown)
        for _ in range(chance.randrange(4)):
            answered.get(timeout=30)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert batcher.answer(21) == 42
    assert batcher_threads() == before + 1


def test_a_forked_child_starts_a_thread_of_its_own(batcher: ThreadBatcher[int, int]) -> None:
    assert batcher.answer(1) == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if batcher.answer(4) == 8 else 1)
    _, status = wait_until(lambda: os.waitpid(child, 0), deadline_s=60, what="the child")
    assert os.waitstatus_to_exitcode(status) == 0
    assert batcher.answer(2) == 4


@given(st.lists(st.lists(st.integers(-5, 50), max_size=12), max_size=6), st.integers(1, 5))
@settings(max_examples=examples(30))
def test_whatever_comes_at_the_same_time_each_call_gets_its_own_answer(
    waves: list[list[int]], max_items: int
) -> None:
    work = Work()
    batcher: ThreadBatcher[int, int] = ThreadBatcher(work, name="any", max_items=max_items)
    with ThreadPoolExecutor(12) as threads:
        for wave in waves:
            calls = [threads.submit(batcher.answer, number) for number in wave]
            for number, call in zip(wave, calls, strict=True):
                if number < 0:
                    assert isinstance(call.exception(10), ValueError)
                else:
                    assert call.result(10) == 2 * number
    assert sorted(chain(*work.batches)) == sorted(chain(*waves))
    assert all(1 <= len(batch) <= max_items for batch in work.batches)
