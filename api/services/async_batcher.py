"""Batching the concurrent calls of an event loop."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Takes items and returns the answer for each in their order, or the exception to raise for it.
Work = Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]]


class TooManyWaiting(Exception):
    """The queue is full: a further item would only delay all of them."""


def in_threads(
    function: Callable[[list[Item]], Sequence[Answer | Exception]], executor: Executor
) -> Work[Item, Answer]:
    """Return work that calls a blocking function on a thread of ``executor``."""

    def work(items: list[Item]) -> Awaitable[Sequence[Answer | Exception]]:
        return asyncio.get_running_loop().run_in_executor(executor, function, items)

    return work


class AsyncBatcher(Generic[Item, Answer]):
    """Collects waiting items into batches and passes each batch to ``work``.

    An item starts at once while no batch runs, so an idle API adds no delay. Items that arrive during a
    batch form the next one. For one event loop.

    Parameters:
      work: Takes items and returns an answer for each, in their order. An exception among the answers is
        raised for its item, an exception of ``work`` for all of them.
      max_concurrency: Calls of ``work`` that may run concurrently.
      max_items: Items in one call.
      max_waiting: Items that wait for a call; a further one raises :class:`TooManyWaiting`.
    """

    def __init__(
        self,
        work: Work[Item, Answer],
        *,
        max_concurrency: int,
        max_items: int,
        max_waiting: int,
    ) -> None:
        self._work = work
        self._free = max_concurrency
        self._max_items = max_items
        self._max_waiting = max_waiting
        self._under_way: set[asyncio.Future[Sequence[Answer | Exception]]] = set()
        self._start_is_due = False
        self._unanswered: set[asyncio.Future[Answer]] = set()
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()

    async def answer(self, item: Item) -> Answer:
        """Return the answer for one item.

        Raises:
          TooManyWaiting: At once, when the queue is full.
        """
        if len(self._waiting) >= self._max_waiting:
            raise TooManyWaiting
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if not self._start_is_due:
            # Not at once: other requests of this iteration of the loop may join the batch.
            self._start_is_due = True
            loop.call_soon(self._start)
        self._unanswered.add(future)
        try:
            return await future
        finally:
            self._unanswered.discard(future)

    def fail_all(self, error: Exception) -> None:
        """Raise the error for every item without an answer. The answers of running calls are dropped."""
        for future in list(self._unanswered):
            _fail(future, error)

    def _start(self) -> None:
        self._start_is_due = False
        while self._waiting and self._free:
            batch = [self._waiting.popleft() for _ in range(min(self._max_items, len(self._waiting)))]
            wanted = [(item, future) for item, future in batch if not future.done()]  # the others hung up
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
                elif not future.done():  # otherwise the client hung up
                    future.set_result(answer)
        self._start()


def _fail(future: asyncio.Future[Answer], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
