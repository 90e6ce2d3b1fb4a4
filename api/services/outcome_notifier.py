"""Waiting for outcomes. All waiting clients share one listening connection, and need no thread.

Where nothing can listen, behind a pooler in transaction mode, they share one query that is repeated.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from api.services.async_batcher import TooManyWaiting
from db.errors import DatabaseError
from db.outcome_notifications import OutcomeListener
from db.sessions import SessionsAreShared

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: The pause between two attempts to connect.
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
#: The pause between two queries where nothing can listen.
POLL_INTERVAL_S = 0.1
#: A query that takes long is repeated more rarely: it uses at most this share of a connection.
POLL_SHARE = 0.1


class OutcomeNotifier:
    """Notifies subscribers when their submission may have an outcome. For one event loop.

    It listens from the first subscription on. Every new connection notifies all subscribers, because
    notifications were lost without a connection. Where nothing can listen, it asks for the outcomes instead,
    while there are subscribers.

    Parameters:
      connect: Makes a listener. It blocks, and is called in ``executor``.
      poll: Takes task ids and returns those with an outcome. Called as ``connect`` is.
      max_waiting: Subscriptions at the same time; a further one raises :class:`TooManyWaiting`.
    """

    def __init__(
        self,
        connect: Callable[[], OutcomeListener],
        poll: Callable[[Sequence[int]], Sequence[int]],
        executor: Executor,
        *,
        max_waiting: int,
    ) -> None:
        self._connect = connect
        self._poll = poll
        self._executor = executor
        self._max_waiting = max_waiting
        self._waiting: dict[int, set[asyncio.Event]] = {}
        self._somebody_waits = asyncio.Event()
        self._can_listen = True
        self._wait_s = FIRST_WAIT_S
        self._count = 0
        self._listening: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the notifier is closed: no further notification will come."""
        return self._is_closed

    @contextmanager
    def subscribe(self, task_id: int) -> Iterator[asyncio.Event]:
        """Give an event that is set when the submission may have an outcome.

        Read the submission only after the subscription began: an earlier outcome sets no event.

        Raises:
          TooManyWaiting: At once.
        """
        if self._count >= self._max_waiting:
            raise TooManyWaiting
        if self._listening is None and not self._is_closed:
            self._listening = asyncio.create_task(self._listen())
        event = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(event)
        self._count += 1
        self._somebody_waits.set()
        try:
            yield event
        finally:
            self._count -= 1
            waiting = self._waiting[task_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[task_id]
            if not self._waiting:
                self._somebody_waits.clear()

    def close(self) -> None:
        """Stop listening and notify all subscribers."""
        self._is_closed = True
        if self._listening is not None:
            self._listening.cancel()
        self._notify_all()

    async def _listen(self) -> None:
        while True:
            try:
                if self._can_listen:
                    listener = await self._in_thread(self._connect)
                    self._wait_s = FIRST_WAIT_S
                    await self._pass_on(listener)
                else:
                    await self._repeat_query()
            except SessionsAreShared:
                self._can_listen = False
                self._wait_s = FIRST_WAIT_S
                logger.info(
                    "The sessions of PostgreSQL are shared (by a pooler in transaction mode), so nothing can"
                    " LISTEN: requests that wait for an outcome ask for it every %.1f s",
                    POLL_INTERVAL_S,
                )
            except DatabaseError as error:  # Database logs outages; subscribers time out
                logger.debug("Cannot learn of outcomes, next attempt in %.1f s: %s", self._wait_s, error)
            except Exception:  # any error: without this task there would be no notifications
                logger.exception("Learning of outcomes failed; next attempt in %.1f s", self._wait_s)
            await asyncio.sleep(self._wait_s)
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    async def _repeat_query(self) -> None:
        """Notify the subscribers whose submissions have an outcome, until a query fails."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._somebody_waits.wait()
            began_s = clock()
            self._notify(await self._in_thread(partial(self._poll, list(self._waiting))))
            self._wait_s = FIRST_WAIT_S
            await asyncio.sleep(max(POLL_INTERVAL_S, (clock() - began_s) / POLL_SHARE))

    def _in_thread(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _pass_on(self, listener: OutcomeListener) -> None:
        """Notify subscribers of the listener's outcomes until its connection breaks."""
        loop = asyncio.get_running_loop()
        socket = listener.fileno()  # a broken connection no longer has one
        broken: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            try:
                self._notify(listener.read())
            except DatabaseError as error:
                loop.remove_reader(socket)
                broken.set_exception(error)

        loop.add_reader(socket, read)
        try:
            self._notify_all()
            await broken
        finally:
            loop.remove_reader(socket)
            listener.close()

    def _notify(self, task_ids: Sequence[int]) -> None:
        for task_id in task_ids:
            for event in self._waiting.get(task_id, ()):
                event.set()

    def _notify_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
