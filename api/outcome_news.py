"""Waiting for outcomes: however many wait, they share one connection that listens, and no thread."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from api.batching import TooManyWaiting
from db.errors import DatabaseError
from db.outcome_news import OutcomeListener

logger = logging.getLogger(__name__)

#: Between two attempts to connect.
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class OutcomeNews:
    """Wakes those who wait for a submission when it may have its outcome. For one event loop.

    Listens from the first who waits on. Whenever a connection is made anew everybody is woken, to look what
    they missed.

    Parameters:
      connect: makes a listener; called in ``executor``, for it blocks.
      max_waiting: one more raises :class:`TooManyWaiting`.
    """

    def __init__(
        self, connect: Callable[[], OutcomeListener], executor: Executor, *, max_waiting: int
    ) -> None:
        self._connect = connect
        self._executor = executor
        self._max_waiting = max_waiting
        self._waiting: dict[int, set[asyncio.Event]] = {}
        self._count = 0
        self._listening: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """No more news will come; who waits is to be content with what is there."""
        return self._is_closed

    @contextmanager
    def of(self, task_id: int) -> Iterator[asyncio.Event]:
        """An event that is set when the submission may have got its outcome: read it *after* this began.

        Raises:
          TooManyWaiting: at once.
        """
        if self._count >= self._max_waiting:
            raise TooManyWaiting
        if self._listening is None and not self._is_closed:
            self._listening = asyncio.create_task(self._listen())
        event = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            waiting = self._waiting[task_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[task_id]

    def close(self) -> None:
        """Stop listening and wake everybody."""
        self._is_closed = True
        if self._listening is not None:
            self._listening.cancel()
        self._wake_all()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_WAIT_S
        while True:
            try:
                listener = await loop.run_in_executor(self._executor, self._connect)
                wait_s = FIRST_WAIT_S
                await self._hear(listener)
            except DatabaseError as error:  # logged where PostgreSQL is used; who waits looks at the end
                logger.debug("No news of outcomes, again in %.1f s: %s", wait_s, error)
            except Exception:  # whatever it was, without this task nobody would hear anything
                logger.exception("Listening for outcomes failed; again in %.1f s", wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _hear(self, listener: OutcomeListener) -> None:
        """Pass on what the listener hears until its connection breaks."""
        loop = asyncio.get_running_loop()
        socket = listener.fileno()  # a broken connection no longer tells
        broken: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            try:
                for task_id in listener.read():
                    for event in self._waiting.get(task_id, ()):
                        event.set()
            except DatabaseError as error:
                loop.remove_reader(socket)
                broken.set_exception(error)

        loop.add_reader(socket, read)
        try:
            self._wake_all()
            await broken
        finally:
            loop.remove_reader(socket)
            listener.close()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
