"""The rights that each operation of a broker needs, as the README lists them."""

from __future__ import annotations

from collections.abc import Iterator

from .rights import Right
from .topics import Topics


class Operations:
    """The rights of one queue's operations.

    Parameters:
      group: The queue's consumer group.
    """

    def __init__(self, topics: Topics, queue_name: str, group: str) -> None:
        self._queue = topics.queue(queue_name)
        self._dead_letters = topics.dead_letters(queue_name)
        self._lanes = topics.lanes(queue_name)
        self._delayed = topics.delayed
        self._control = topics.control
        self._schedules = topics.schedules
        self._workers = topics.workers
        self._history = topics.history
        self._group = group

    def sending(self) -> list[Right]:
        return [*_on_topics("WRITE", self._queue, self._delayed)]

    def counting(self) -> list[Right]:
        return [
            *_on_topics("READ", self._queue, self._delayed, self._lanes),
            Right("DESCRIBE", "topic", self._dead_letters),
            Right("DESCRIBE", "group", self._group),
        ]

    def describing_queue(self) -> list[Right]:
        """The rights to count and to read the dead letters."""
        return [*self.counting(), Right("READ", "topic", self._dead_letters)]

    def flushing(self) -> list[Right]:
        return [
            *_on_topics("READ", self._queue, self._delayed, self._lanes),
            *_on_topics("WRITE", self._delayed, self._lanes),
            Right("DELETE", "topic", self._queue),
            Right("DESCRIBE", "topic", self._dead_letters),
            Right("DESCRIBE", "group", self._group),
            *_on_groups(f"{self._group}.flushed"),
        ]

    def replaying(self, *, dry_run: bool) -> list[Right]:
        topics = (self._queue, self._delayed, self._lanes, self._dead_letters, self._control)
        return [
            *_on_topics("READ", *topics),
            *(() if dry_run else _on_topics("WRITE", self._queue, self._control)),
            Right("DESCRIBE", "group", self._group),
        ]

    def working(self) -> list[Right]:
        return [
            *_on_topics("READ", self._queue, self._delayed, self._lanes, self._control),
            *_on_topics("WRITE", self._queue, self._delayed, self._lanes, self._dead_letters),
            *_on_groups(self._group, f"{self._delayed}.forwarders"),
            Right("DESCRIBE", "group", f"{self._group}.flushed"),
        ]

    def working_and_reporting(self) -> list[Right]:
        """What :meth:`working` has, and the rights for reports and for death notes."""
        return [
            *self.working(),
            *_on_topics("WRITE", self._workers, self._history),
            *_on_topics("READ", self._workers),
        ]

    def observing(self) -> list[Right]:
        topics = (self._queue, self._dead_letters, self._lanes, self._delayed)
        return [
            *_on_topics("READ", *topics, self._workers, self._history, self._control),
            Right("DESCRIBE", "group", self._group),
        ]

    def operating(self) -> list[Right]:
        return [
            *self.observing(),
            *_on_topics("WRITE", self._queue, self._dead_letters, self._lanes, self._delayed, self._control),
            Right("DELETE", "topic", self._queue),
            *_on_groups(f"{self._group}.flushed"),
        ]

    def auditing(self) -> list[Right]:
        """The right to tell flushed records from lost ones. Everything else works without it."""
        return [Right("DESCRIBE", "group", f"{self._group}.flushed")]

    def firing_schedules(self) -> list[Right]:
        """The rights of a worker that may become the owner of the schedules."""
        return [*self.changing_schedules(), *_on_groups(f"{self._schedules}.owners")]

    def changing_schedules(self) -> list[Right]:
        return [*self.seeing_schedules(), *_on_topics("WRITE", self._schedules)]

    def seeing_schedules(self) -> list[Right]:
        return [*_on_topics("READ", self._schedules)]

    def checking(self) -> list[Right]:
        """The rights to check the settings of the topics. Everything else works without them."""
        topics = (self._queue, self._dead_letters, self._lanes, self._delayed)
        return [*_on_topics("DESCRIBE_CONFIGS", *topics, self._workers, self._history, self._control)]


def _on_topics(operation: str, *topics: str) -> Iterator[Right]:
    return (Right(operation, "topic", topic) for topic in topics)


def _on_groups(*groups: str) -> Iterator[Right]:
    return (Right("READ", "group", group) for group in groups)
