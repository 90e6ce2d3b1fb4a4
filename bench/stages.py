"""The times at which one idle message passes from hand to hand, in its sender's process and its worker's.

Each process appends its events to a file of its own. Times are CLOCK_MONOTONIC, which all processes of a
machine share. The watched functions are those of kafka-python 3.0 and Dramatiq 2.
"""

from __future__ import annotations

import functools
import os
import struct
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from bench.place import Place

#: stage, thread (8 bytes each), time in seconds
_EVENT = struct.Struct("qqd")
_SUFFIX = ".stages"


class Stage(IntEnum):
    """The ends of the stages, in the order of a message's way."""

    CALLED = 0  #: the sender calls send
    WRITTEN = 1  #: the request is in the sender's socket
    ACKNOWLEDGED = 2  #: send returns
    RECEIVED = 3  #: the worker's I/O thread has read the answer of a fetch
    DECODED = 4  #: it is decoded
    POLLED = 5  #: the records are parsed, and the consumer's thread has them
    DISPATCHED = 6  #: the consumer returns a delivery to Dramatiq
    WOKEN = 7  #: a worker thread has it
    ENTERED = 8  #: the task begins


#: Each stage's previous one. Kafka answers the sender and the worker's fetch at about the same time.
PREVIOUS = {
    Stage.WRITTEN: Stage.CALLED,
    Stage.ACKNOWLEDGED: Stage.WRITTEN,
    Stage.RECEIVED: Stage.WRITTEN,
    Stage.DECODED: Stage.RECEIVED,
    Stage.POLLED: Stage.DECODED,
    Stage.DISPATCHED: Stage.POLLED,
    Stage.WOKEN: Stage.DISPATCHED,
    Stage.ENTERED: Stage.WOKEN,
}


class Recorder:
    """Appends the events of this process to its file.

    Parameters:
      directory: The directory of the measurement's files; it exists.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / f"{os.getpid()}{_SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, stage: Stage) -> None:
        os.write(self._file, _EVENT.pack(stage, threading.get_native_id(), time.monotonic()))

    def note_calls(
        self, owner: Any, name: str, stage: Stage, *, counts: Callable[..., object] = lambda *_: True
    ) -> None:
        """Note each call of a function.

        Parameters:
          owner: The class or module that holds it.
          counts: Whether a call counts, by its arguments.
        """
        watched = getattr(owner, name)

        @functools.wraps(watched)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if counts(*args):
                self.note(stage)
            return watched(*args, **kwargs)

        setattr(owner, name, noted)

    def note_returns(
        self, owner: Any, name: str, stage: Stage, *, counts: Callable[[Any], object] = lambda _: True
    ) -> None:
        """Note each return of a function whose result counts."""
        watched = getattr(owner, name)

        @functools.wraps(watched)
        def noted(*args: Any, **kwargs: Any) -> Any:
            result = watched(*args, **kwargs)
            if counts(result):
                self.note(stage)
            return result

        setattr(owner, name, noted)


@functools.cache
def recorder() -> Recorder | None:
    """The recorder of this process; None where its place asks for none."""
    directory = Place.from_env().stages
    return Recorder(Path(directory)) if directory else None


def note(stage: Stage) -> None:
    """Note a stage, where the place of this process asks for it."""
    if (here := recorder()) is not None:
        here.note(stage)


def watch_client() -> None:
    """Note the stages in kafka-python, where the place of this process asks for them."""
    if (here := recorder()) is None:
        return
    from kafka.consumer.fetcher import Fetcher
    from kafka.net.transport import KafkaTCPTransport

    here.note_returns(KafkaTCPTransport, "_sock_send", Stage.WRITTEN)
    here.note_returns(KafkaTCPTransport, "_sock_recv", Stage.RECEIVED)
    here.note_calls(Fetcher, "_handle_fetch_response", Stage.DECODED, counts=_has_records)


def watch_worker() -> None:
    """Note the stages in a Dramatiq worker of this broker, where the place of this process asks for them."""
    if (here := recorder()) is None:
        return
    from dramatiq.worker import WorkerThread

    from broker.consume.consumer import QueueConsumer
    from broker.kafka.consumer_client import Consumer

    here.note_returns(Consumer, "poll", Stage.POLLED, counts=bool)
    here.note_returns(QueueConsumer, "__next__", Stage.DISPATCHED, counts=bool)
    here.note_calls(WorkerThread, "process_message", Stage.WOKEN)


def _has_records(fetcher: object, node: object, offsets: object, sent_s: object, response: Any) -> bool:
    return any(part.records for topic in response.responses for part in topic.partitions)


@dataclass(frozen=True, slots=True)
class _Event:
    at_s: float
    process: int
    thread: int


_Events = dict[Stage, list[_Event]]


def ways(directory: Path) -> list[dict[Stage, float]]:
    """The times of each message that entered its task, by stage. No two messages were under way at once.

    Raises:
      LookupError: When a stage of a message was not noted.
    """
    events: _Events = {stage: [] for stage in Stage}
    for path in directory.glob(f"*{_SUFFIX}"):
        for stage, thread, at_s in _EVENT.iter_unpack(path.read_bytes()):
            events[Stage(stage)].append(_Event(at_s, int(path.stem), thread))
    for of_stage in events.values():
        of_stage.sort(key=_at_s)
    return [_way(entered, events) for entered in events[Stage.ENTERED]]


def _way(entered: _Event, events: _Events) -> dict[Stage, float]:
    """The times of one message, found from its end to its beginning."""
    way = {Stage.ENTERED: entered}
    later = entered
    for stage in (Stage.WOKEN, Stage.DISPATCHED, Stage.POLLED, Stage.DECODED):
        way[stage] = later = _last(events, stage, later, lambda event: event.process == entered.process)
    decoded = later
    way[Stage.RECEIVED] = _last(events, Stage.RECEIVED, decoded, lambda e: e.thread == decoded.thread)
    way[Stage.CALLED] = called = _last(events, Stage.CALLED, decoded, lambda event: True)
    for stage in (Stage.WRITTEN, Stage.ACKNOWLEDGED):
        way[stage] = _first(events, stage, called, lambda event: event.process == called.process)
    return {stage: event.at_s for stage, event in way.items()}


def _last(events: _Events, stage: Stage, limit: _Event, is_it: Callable[[_Event], bool]) -> _Event:
    before = events[stage][: bisect_right(events[stage], limit.at_s, key=_at_s)]
    return _found(stage, filter(is_it, reversed(before)))


def _first(events: _Events, stage: Stage, limit: _Event, is_it: Callable[[_Event], bool]) -> _Event:
    behind = events[stage][bisect_left(events[stage], limit.at_s, key=_at_s) :]
    return _found(stage, filter(is_it, behind))


def _found(stage: Stage, candidates: Iterable[_Event]) -> _Event:
    for event in candidates:
        return event
    raise LookupError(f"the stage {stage.name} of a message was not noted")


def _at_s(event: _Event) -> float:
    return event.at_s
