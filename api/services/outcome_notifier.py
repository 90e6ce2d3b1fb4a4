"""Waiting for outcomes. All waiting clients share one listening connection, and need no thread."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from api.services.async_batcher import TooManyWaiting
from db.errors import DatabaseError
from db.outcome_notifications import OutcomeListener

logger = logging.getLogger(__name__)

#: The pause between two attempts to connect.
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class OutcomeNotifier:
    """Notifies subscribers when their submission may have an outcome. For one event loop.

    It listens from the first subscription on. Every new connection notifies all subscribers, because
    notifications were lost without a connection.

    Parameters:
      connect: Makes a listener. It blocks, and is called in ``executor``.
      max_waiting: Subscriptions at the same time; a further one raises :class:`TooManyWaiting`.
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
        try:
            yield event
        finally:
            self._count -= 1
            waiting = self._waiting[task_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[task_id]

    def close(self) -> None:
        """Stop listening and notify all subscribers."""
        self._is_closed = True
        if self._listening is not None:
            self._listening.cancel()
        self._notify_all()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_WAIT_S
        while True:
            try:
                listener = await loop.run_in_executor(self._executor, self._connect)
                wait_s = FIRST_WAIT_S
                await self._pass_on(listener)
            except DatabaseError as error:  # Database logs outages; subscribers time out
                logger.debug("Cannot listen for outcomes, next attempt in %.1f s: %s", wait_s, error)
            except Exception:  # any error: without this task there would be no notifications
                logger.exception("Listening for outcomes failed; next attempt in %.1f s", wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _pass_on(self, listener: OutcomeListener) -> None:
        """Notify subscribers of the listener's outcomes until its connection breaks."""
        loop = asyncio.get_running_loop()
        socket = listener.fileno()  # a broken connection no longer has one
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
            self._notify_all()
            await broken
        finally:
            loop.remove_reader(socket)
            listener.close()

    def _notify_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
