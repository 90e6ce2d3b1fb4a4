"""Notes the runs of a worker: which run now, how they end, and the events that the history gets.

The threads that run actors share no lock. Each has its own counters, which the reports thread adds up. The
quota of events and the length of the buffer are read and written without a lock, so both may be exceeded by
one event for each thread.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from contextvars import ContextVar
from itertools import islice
from typing import Any

from dramatiq.message import Message

from ..deliveries.delivery import Delivery, attempt_of
from ..error_text import error_text
from ..process import clock
from ..process.forks import reset_on_fork
from .counters import ActorCounters, ThreadCounters
from .histogram import UPPER_BOUNDS_S
from .history_event import EventKind, HistoryEvent

#: The events that wait for the reports thread while Kafka does not answer: about 5 MB, or 5 s of 2,000
#: failures a second. Further events are counted as dropped.
MAX_EVENTS = 10_000
#: The characters of an error's text in an event.
MAX_ERROR_CHARS = 200


#: The delivery that this thread, or this asyncio task, runs. One that has ended stays until the next begins.
current_delivery: ContextVar[Delivery | None] = ContextVar("current_delivery", default=None)


class RunningThread:
    """The runs of one thread."""

    __slots__ = ("actors", "delivery", "dropped", "ended_s", "recorded")

    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.actors: dict[str, ThreadCounters] = {}
        self.recorded = 0
        self.dropped = 0
        self.ended_s = 0.0

    def of(self, actor_name: str, queue_name: str) -> ThreadCounters:
        """The counters of an actor."""
        counters = self.actors.get(actor_name)
        if counters is None:
            counters = self.actors[actor_name] = ThreadCounters(queue_name)
        return counters


class Runs:
    """The runs of this process's worker. Each task costs a :meth:`begin` and an :meth:`end`: between 1 and
    2 microseconds.

    Attributes:
      worker_id: The worker's id, for the events.
      is_counting: Whether runs are counted. ``current_run`` is set in any case.
      is_recording: Whether events are kept for the history.
      successes_left: The number of successes that may become events until the reports thread sets it again.
      events: The events that wait to be written.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget all runs: they belong to the parent."""
        self.is_counting = self.is_recording = False
        self.begin_boot("")

    def begin_boot(self, worker_id: str) -> None:
        """Begin with new counters."""
        self.worker_id = worker_id
        self.successes_left = 0
        self.events: deque[HistoryEvent] = deque()
        self._threads: list[RunningThread] = []
        self._local = threading.local()
        self.set_clocks()

    def set_clocks(self) -> None:
        """Compare the two clocks again: a task reads only one of them."""
        self._wall_offset_s = clock.wall_ms() / 1000 - clock.monotonic_s()

    def wall_ms(self, monotonic_s: float) -> int:
        """A time of ``clock.monotonic_s()`` in milliseconds since 1970."""
        return int((monotonic_s + self._wall_offset_s) * 1000)

    # The threads that run actors

    def begin(self, delivery: Delivery) -> None:
        """Note that this thread begins to run ``delivery``."""
        delivery.began_s = clock.monotonic_s()
        delivery.retries_before = delivery.options.get("retries")
        current_delivery.set(delivery)
        if self.is_counting:
            try:
                self._local.thread.delivery = delivery
            except AttributeError:
                self._add_thread().delivery = delivery

    def end(self, delivery: Delivery, error: BaseException | None, *, skipped: bool = False) -> None:
        """Note the end of this thread's run, after the middleware has decided what follows from it."""
        began_s = delivery.began_s
        if began_s is None:
            return
        delivery.began_s = None
        if not self.is_counting:
            return
        thread: RunningThread = self._local.thread
        thread.delivery = None
        thread.ended_s = ended_s = clock.monotonic_s()
        actor_name = delivery.actor_name
        counters = thread.actors.get(actor_name) or thread.of(actor_name, delivery.queue_name)
        queue_s = None
        if not skipped:
            run_s = ended_s - began_s
            counters.run_slots[bisect_right(UPPER_BOUNDS_S, run_s)] += 1
            counters.run_s += run_s
            if delivery.queued_ms > 0:
                # By two clocks: that of Kafka and that of this host.
                queue_s = began_s + self._wall_offset_s - delivery.queued_ms / 1000
                counters.queue_slots[bisect_right(UPPER_BOUNDS_S, queue_s)] += 1
                counters.queue_s += queue_s
        if error is None and not skipped and not delivery.failed:
            counters.succeeded += 1
            if self.successes_left <= 0 and not delivery.announced:
                counters.unrecorded += 1
                return
            self.successes_left -= 1
            kind = EventKind.SUCCEEDED
        else:
            kind = _kind_of(delivery, skipped=skipped)
            _count(counters, kind, error)
        if self.is_recording:
            self._keep(
                thread, self._event(delivery, kind, error, ended_s, None if skipped else run_s, queue_s)
            )

    def note_dead_letter(
        self, message_id: str, actor_name: str, queue_name: str, retries: object, error: BaseException
    ) -> None:
        """Note a dead letter that does not follow from the end of a run: of poison, of a record that is no
        message, or of a message that its topic refuses.
        """
        if not self.is_counting:
            return
        thread = self._own_thread()
        thread.of(actor_name, queue_name).note_dead_letter(error)
        if self.is_recording:
            event = HistoryEvent(
                EventKind.DEAD_LETTERED.value,
                message_id,
                actor_name,
                queue_name,
                attempt_of(retries),
                clock.wall_ms(),
                self.worker_id,
                error_type=type(error).__name__,
                error=first_line(error_text(error), MAX_ERROR_CHARS),
            )
            self._keep(thread, event)

    def note_duplicate(self, message: Message[Any]) -> None:
        """Note a unique message that does not run, as it is a duplicate."""
        if not self.is_counting:
            return
        thread = self._own_thread()
        thread.of(message.actor_name, message.queue_name).skipped += 1
        if self.is_recording:
            event = HistoryEvent(
                EventKind.DUPLICATE.value,
                message.message_id,
                message.actor_name,
                message.queue_name,
                attempt_of(message.options.get("retries")),
                clock.wall_ms(),
                self.worker_id,
            )
            self._keep(thread, event)

    def _own_thread(self) -> RunningThread:
        found: RunningThread | None = getattr(self._local, "thread", None)
        return self._add_thread() if found is None else found

    def _add_thread(self) -> RunningThread:
        thread = self._local.thread = RunningThread()
        self._threads.append(thread)
        return thread

    def _keep(self, thread: RunningThread, event: HistoryEvent) -> None:
        if len(self.events) < MAX_EVENTS:
            self.events.append(event)
            thread.recorded += 1
        else:
            thread.dropped += 1

    def _event(
        self,
        delivery: Delivery,
        kind: EventKind,
        error: BaseException | None,
        at_s: float,
        run_s: float | None,
        queue_s: float | None,
    ) -> HistoryEvent:
        return HistoryEvent(
            kind.value,
            delivery.message_id,
            delivery.actor_name,
            delivery.queue_name,
            delivery.attempt,
            self.wall_ms(at_s),
            self.worker_id,
            run_s=run_s,
            queue_s=None if queue_s is None else max(0.0, queue_s),
            error_type=None if error is None else type(error).__name__,
            error=None if error is None else first_line(error_text(error), MAX_ERROR_CHARS),
            retry_at_ms=delivery.retry_at_ms if kind is EventKind.RETRIED else None,
        )

    # The reports thread

    def running(self) -> list[tuple[float, Delivery]]:
        """The deliveries that run, each with the beginning of its run (``clock.monotonic_s()``), the oldest
        first.
        """
        found = []
        for thread in self._threads[:]:
            delivery = thread.delivery
            began_s = None if delivery is None else delivery.began_s
            if delivery is not None and began_s is not None:
                found.append((began_s, delivery))
        return sorted(found, key=lambda pair: pair[0])

    def announce(self) -> None:
        """Add an event for each run that lasts and has none."""
        for began_s, delivery in self.running():
            if not delivery.announced and len(self.events) < MAX_EVENTS:
                delivery.announced = True
                self.events.append(self._event(delivery, EventKind.STARTED, None, began_s, None, None))

    def counters(self) -> dict[str, ActorCounters]:
        """The counters of all actors that ran, or run."""
        found: dict[str, ActorCounters] = {}
        for thread in self._threads[:]:
            for actor_name, counters in thread.actors.copy().items():
                known = found.get(actor_name)
                found[actor_name] = counters.read() if known is None else known + counters.read()
        for _, delivery in self.running():
            name = delivery.actor_name
            known = found.get(name, ActorCounters(queue_name=delivery.queue_name))
            found[name] = known + ActorCounters(started=1)
        return found

    def unrecorded(self) -> dict[str, int]:
        """The successes of each actor that have no event."""
        found: dict[str, int] = {}
        for thread in self._threads[:]:
            for actor_name, counters in thread.actors.copy().items():
                if counters.unrecorded:
                    found[actor_name] = found.get(actor_name, 0) + counters.unrecorded
        return found

    @property
    def recorded(self) -> int:
        """The number of events so far."""
        return sum(thread.recorded for thread in self._threads[:])

    @property
    def dropped(self) -> int:
        """The number of events for which the buffer had no room."""
        return sum(thread.dropped for thread in self._threads[:])

    @property
    def ended_ms(self) -> int:
        """The time at which a run last ended, in milliseconds since 1970; 0 before the first."""
        ended_s = max((thread.ended_s for thread in self._threads[:]), default=0.0)
        return self.wall_ms(ended_s) if ended_s else 0

    def first_events(self, count: int) -> list[HistoryEvent]:
        """The oldest events, which stay until :meth:`forget` is called."""
        return list(islice(self.events.copy(), count))

    def forget(self, count: int) -> None:
        """Remove the oldest events."""
        for _ in range(count):
            self.events.popleft()


def first_line(text: str, max_chars: int) -> str:
    """The first line of ``text`` that is not empty, shortened."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def _kind_of(delivery: Delivery, *, skipped: bool) -> EventKind:
    if delivery.is_expired:
        return EventKind.EXPIRED
    if delivery.failed:
        return EventKind.DEAD_LETTERED
    if delivery.is_aborted:
        return EventKind.ABORTED
    if skipped:
        return EventKind.SKIPPED
    if delivery.is_retried:
        counts = attempt_of(delivery.options.get("retries")) > delivery.attempt
        return EventKind.RETRIED if counts else EventKind.INTERRUPTED
    return EventKind.FAILED


def _count(counters: ThreadCounters, kind: EventKind, error: BaseException | None) -> None:
    if kind in (EventKind.SKIPPED, EventKind.ABORTED, EventKind.EXPIRED):
        counters.skipped += 1
    elif kind is EventKind.INTERRUPTED:
        counters.interrupted += 1
    elif kind is EventKind.RETRIED:
        counters.retried += 1
    elif kind is EventKind.DEAD_LETTERED:
        counters.note_dead_letter(error)
    if error is not None and kind is not EventKind.INTERRUPTED:
        counters.note_error(type(error).__name__)
