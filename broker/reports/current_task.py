"""The task that runs, as its own code sees it."""

from __future__ import annotations

from ..deliveries.delivery import Delivery
from ..errors import NoCurrentTask
from ..process import clock
from .runs import current_delivery, first_line

MAX_PROGRESS_CHARS = 200


class CurrentTask:
    """The task that this thread, or this asyncio task, runs; ``from broker import current_task``.

    A thread that a task starts is no part of the task, unless it copies the context (``contextvars``).

    Raises (every attribute and method): NoCurrentTask when no task runs here.
    """

    @property
    def message_id(self) -> str:
        """The id of its message."""
        message_id: str = _running().message_id
        return message_id

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""
        return _running().attempt

    @property
    def aborted(self) -> bool:
        """Whether an operator has aborted the message, and the task is to end.

        A task in a thread gets ``broker.Abort``, too, and a coroutine is cancelled. A task that waits in a
        library in C, or under gevent, ends by itself when it asks here.
        """
        return _running().is_interrupted

    def progress(self, fraction: float, text: str = "") -> None:
        """Report how far the task is: ``current_task.progress(0.4, "reading page 12")``.

        The next report of the worker shows it, within 2 seconds. No request is made: a call takes
        microseconds.

        Parameters:
          fraction: From 0 to 1.
          text: One line, of at most 200 characters; the rest is left out.

        Raises:
          TypeError, ValueError: When ``fraction`` is not a number from 0 to 1, or ``text`` is not a text.
        """
        delivery = _running()
        if not isinstance(fraction, int | float) or isinstance(fraction, bool) or not isinstance(text, str):
            raise TypeError(f"progress({fraction!r}, {text!r}): pass a number from 0 to 1, and a text")
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress({fraction!r}): the fraction is from 0 to 1")
        delivery.progress = (float(fraction), first_line(text, MAX_PROGRESS_CHARS), clock.wall_ms())


def _running() -> Delivery:
    delivery = current_delivery.get()
    if delivery is None or delivery.began_s is None:
        raise NoCurrentTask(
            "no task runs here: current_task is for the code of an actor that a worker of a KafkaBroker "
            "runs, in the actor's own thread or coroutine"
        )
    return delivery


current_task = CurrentTask()
