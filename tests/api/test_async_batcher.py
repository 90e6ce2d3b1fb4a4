"""Grouping: what waits at the same time is one call, and everybody gets their own answer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.services.async_batcher import AsyncBatcher, TooManyWaiting, in_threads


class Work:
    """Doubles numbers, slowly when the gate is closed, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        assert self.gate.wait(60)
        if -1 in items:
            raise LookupError("no such number")
        return [2 * item for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def make(work: Work) -> Iterator[Callable[..., AsyncBatcher[int, int]]]:
    """Makes a batcher; its limits are generous where the test names none."""
    with ThreadPoolExecutor(4) as threads:
        yield lambda **limits: AsyncBatcher(
            in_threads(work, threads),
            **{"max_concurrency": 1, "max_items": 100, "max_waiting": 1000, **limits},
        )


async def a_turn_of_the_loop() -> None:
    """Let everything run that is ready to."""
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    loop.call_soon(turned.set_result, None)
    await turned


async def started(work: Work, calls: int) -> None:
    """Wait until so many calls are under way."""
    async with asyncio.timeout(20):
        while len(work.calls) < calls:
            await a_turn_of_the_loop()


def test_what_arrives_in_one_turn_of_the_loop_is_one_call(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make()
        return await asyncio.gather(*(batcher.answer(number) for number in range(50)))

    assert asyncio.run(ask()) == [2 * number for number in range(50)]
    assert work.calls == [list(range(50))]


def test_what_arrives_during_a_call_is_the_next_one(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make()
        work.gate.clear()
        first = asyncio.ensure_future(batcher.answer(1))
        await started(work, 1)
        rest = asyncio.gather(*(batcher.answer(number) for number in (2, 3)))
        await a_turn_of_the_loop()
        work.gate.set()
        return [await first, *await rest]

    assert asyncio.run(ask()) == [2, 4, 6]
    assert work.calls == [[1], [2, 3]]


def test_a_call_has_no_more_items_than_allowed(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make(max_items=3)
        return await asyncio.gather(*(batcher.answer(number) for number in range(8)))

    assert asyncio.run(ask()) == [2 * number for number in range(8)]
    assert [len(call) for call in work.calls] == [3, 3, 2]


def test_calls_run_side_by_side_up_to_their_number(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make(max_concurrency=2, max_items=1)
        work.gate.clear()
        asked = asyncio.gather(*(batcher.answer(number) for number in range(3)))
        await started(work, 2)
        assert len(work.calls) == 2
        work.gate.set()
        return await asked

    assert asyncio.run(ask()) == [0, 2, 4]


def test_an_error_is_everybodys_of_its_call_and_nobody_elses(
    make: Callable[..., AsyncBatcher[int, int]],
) -> None:
    async def ask() -> list[int | BaseException]:
        batcher = make(max_items=2)
        numbers = (1, -1, 3, 4)
        return await asyncio.gather(*map(batcher.answer, numbers), return_exceptions=True)

    answers = asyncio.run(ask())
    assert [type(answer) for answer in answers[:2]] == [LookupError, LookupError]
    assert answers[2:] == [6, 8]


def test_an_exception_among_the_answers_is_raised_for_its_item_alone() -> None:
    async def ask() -> list[int | BaseException]:
        with ThreadPoolExecutor(1) as threads:
            batcher: AsyncBatcher[int, int] = AsyncBatcher(
                in_threads(lambda items: [item if item else LookupError("none") for item in items], threads),
                max_concurrency=1,
                max_items=10,
                max_waiting=10,
            )
            return await asyncio.gather(*map(batcher.answer, (1, 0, 2)), return_exceptions=True)

    first, failed, last = asyncio.run(ask())
    assert (first, type(failed), last) == (1, LookupError, 2)


def test_giving_up_answers_everybody_and_what_is_under_way_ends_unheard(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int | BaseException]:
        batcher = make(max_items=1)
        work.gate.clear()
        asked = asyncio.gather(*map(batcher.answer, (1, 2)), return_exceptions=True)
        await started(work, 1)
        batcher.fail_all(InterruptedError("stopping"))
        answers = await asked
        work.gate.set()
        assert await batcher.answer(3) == 6
        return answers

    assert [type(answer) for answer in asyncio.run(ask())] == [InterruptedError, InterruptedError]
    assert work.calls == [[1], [3]]


def test_one_more_than_may_wait_is_told_so_at_once(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make(max_waiting=2)
        work.gate.clear()
        first = asyncio.ensure_future(batcher.answer(1))
        await started(work, 1)
        waiting = asyncio.gather(batcher.answer(2), batcher.answer(3))
        await a_turn_of_the_loop()
        with pytest.raises(TooManyWaiting):
            await batcher.answer(4)
        work.gate.set()
        return [await first, *await waiting]

    assert asyncio.run(ask()) == [2, 4, 6]


def test_who_hung_up_while_waiting_is_left_out_and_holds_up_nobody(
    make: Callable[..., AsyncBatcher[int, int]], work: Work
) -> None:
    async def ask() -> list[int]:
        batcher = make()
        work.gate.clear()
        first = asyncio.ensure_future(batcher.answer(1))
        await started(work, 1)
        gone, staying = asyncio.ensure_future(batcher.answer(2)), asyncio.ensure_future(batcher.answer(3))
        await a_turn_of_the_loop()
        gone.cancel()
        first.cancel()
        await a_turn_of_the_loop()
        work.gate.set()
        return [await staying]

    assert asyncio.run(ask()) == [6]
    assert work.calls == [[1], [3]]
