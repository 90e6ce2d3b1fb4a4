"""Ends the running tasks of aborted messages, and no other task of their threads."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Collection

from dramatiq.middleware.threading import (
    current_platform,
    is_gevent_active,
    raise_thread_exception,
    supported_platforms,
)

from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import Abort
from ..process.forks import reset_on_fork

logger = logging.getLogger(__name__)


class Aborts:
    """Raises ``Abort`` in the threads that run aborted messages.

    An exception that is raised in another thread arrives there a moment later. So the end of a run takes an
    exception back that has not arrived: the next task of the thread never gets it. A run without an abort
    costs two assignments; the lock is for those with one.
    """

    def __init__(self, in_flight: InFlightDeliveries) -> None:
        self._in_flight = in_flight
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    def begin(self, delivery: Delivery) -> None:
        """Note that this thread runs a delivery from now on. An abort may be raised until :meth:`end`."""
        delivery.thread_id = threading.get_ident()

    def interrupt(self, message_ids: Collection[str]) -> None:
        """End the running tasks of messages. Any thread may call this."""
        for delivery in self._in_flight.begun_of(message_ids):
            with self._lock:
                if delivery.is_interrupted:
                    continue
                # In this order: end() clears the thread before it looks at the mark.
                delivery.is_interrupted = True
                thread_id = delivery.thread_id
                if thread_id is None:
                    continue
                logger.warning("The running task of message %r is aborted.", delivery.message_id)
                if current_platform in supported_platforms and not is_gevent_active():
                    raise_thread_exception(thread_id, Abort)

    def end(self, delivery: Delivery) -> None:
        """Note that the task of this thread has ended, and take back an abort that has not arrived."""
        while delivery.thread_id is not None or delivery.is_interrupted:
            try:
                delivery.thread_id = None
                if delivery.is_interrupted:
                    with self._lock:
                        _take_back()
                return
            except Abort:
                continue  # it has arrived here: there is no further one


def _take_back() -> None:
    """Drop the exception that another thread has raised in this one, and that has not arrived."""
    if current_platform in supported_platforms and not is_gevent_active():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
