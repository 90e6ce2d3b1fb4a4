"""What arrives together is done together: many requests, one piece of work."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Takes items; the answer of each in their order, or the exception that is to be raised for it.
Work = Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]]


class TooManyWaiting(Exception):
    """So many items wait already that another would only make all of them late."""


def in_threads(
    function: Callable[[list[Item]], Sequence[Answer | Exception]], executor: Executor
) -> Work[Item, Answer]:
    """Make work of a function that blocks: it is called on a thread of ``executor``."""

    def work(items: list[Item]) -> Awaitable[Sequence[Answer | Exception]]:
        return asyncio.get_running_loop().run_in_executor(executor, function, items)

    return work


class Batcher(Generic[Item, Answer]):
    """Groups items that wait at the same time and hands each group to ``work``.

    An item that finds nothing under way starts at once, so an idle API adds no delay; a group forms from what
    arrives while earlier ones run. For one event loop.

    Parameters:
      work: takes items and returns an answer for each, in their order. An exception among the answers is
        raised for its item; one that ``work`` raises, for all of them.
      at_once: calls of ``work`` that may run side by side.
      max_items: in one call.
      max_waiting: items not yet handed to a call; one more raises :class:`TooManyWaiting`.
    """

    def __init__(
        self,
        work: Work[Item, Answer],
        *,
        at_once: int,
        max_items: int,
        max_waiting: int,
    ) -> None:
        self._work = work
        self._free = at_once
        self._max_items = max_items
        self._max_waiting = max_waiting
        self._under_way: set[asyncio.Future[Sequence[Answer | Exception]]] = set()
        self._start_is_due = False
        self._unanswered: set[asyncio.Future[Answer]] = set()
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()

    async def answer(self, item: Item) -> Answer:
        """Return the answer for one item.

        Raises:
          TooManyWaiting: at once, when the queue is full.
        """
        if len(self._waiting) >= self._max_waiting:
            raise TooManyWaiting
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if not self._start_is_due:
            # Not right away: other requests of this turn of the loop may join the group.
            self._start_is_due = True
            loop.call_soon(self._start)
        self._unanswered.add(future)
        try:
            return await future
        finally:
            self._unanswered.discard(future)

    def give_up(self, error: Exception) -> None:
        """Raise the error for every item that has no answer yet. What is under way goes on unheard."""
        for future in list(self._unanswered):
            _fail(future, error)

    def _start(self) -> None:
        self._start_is_due = False
        while self._waiting and self._free:
            group = [self._waiting.popleft() for _ in range(min(self._max_items, len(self._waiting)))]
            wanted = [(item, future) for item, future in group if not future.done()]  # the rest hung up
            if wanted:
                self._free -= 1
                call = self._begin([item for item, _ in wanted])
                call.add_done_callback(partial(self._finish, [future for _, future in wanted]))

    def _begin(self, items: list[Item]) -> asyncio.Future[Sequence[Answer | Exception]]:
        call = asyncio.ensure_future(self._work(items))
        self._under_way.add(call)  # a loop holds its tasks weakly
        return call

    def _finish(
        self, futures: list[asyncio.Future[Answer]], call: asyncio.Future[Sequence[Answer | Exception]]
    ) -> None:
        self._free += 1
        self._under_way.discard(call)
        if call.cancelled():
            for future in futures:
                future.cancel()
        elif error := call.exception():
            for future in futures:
                _fail(future, error)
        else:
            for future, answer in zip(futures, call.result(), strict=True):
                if isinstance(answer, Exception):
                    _fail(future, answer)
                elif not future.done():  # else the client hung up
                    future.set_result(answer)
        self._start()


def _fail(future: asyncio.Future[Answer], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
