"""Writes copies of dead letters into a queue's dead-letter topic. It can be killed at any point and repeated.

A dead letter has no id of its own. Its time, its error and the bytes of its message identify it: a copy of a
dead letter that the topic has already is not written again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import EnqueueFailed, NotAuthorized, ParameterRefused
from ..kafka.clients import Clients
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.rights import not_published
from ..kafka.topics import Topics
from ..parameters import check_names, check_texts
from ..process import clock
from ..process.caller import caller
from ..produce.publisher import Publisher
from ..produce.record import Record
from .dead_letter import DeadLetter, copy_of, read_dead_letter
from .record_format import as_json
from .redriving import History
from .resolution import is_resolution
from .topic_log import DeadLetterTopic

#: The size of a batch. A crash repeats none of it: what is written is found again.
MAX_BATCH = 100
MAX_BATCH_BYTES = 4 * 1024 * 1024

#: The reasons for which a dead letter is not written.
PRESENT = "it is an open dead letter here already"
RESOLVED = "it was redriven or discarded here"
OTHER_QUEUE = "it belongs to another queue"
TOO_LARGE = "it is larger than the topic takes"


@dataclass(slots=True)
class Imported:
    """The result of an import, or of its dry run.

    Attributes:
      operation: Its id, which the written records carry.
      given: The number of dead letters that were given.
      to_write: The number of those that are not here. Without a dry run it equals ``written`` at the end.
      written: The number of dead letters that were written so far.
      error_types: The number of those by the type of their error.
      skipped: The number of the others, by the reason.
    """

    operation: str
    dry_run: bool
    given: int = 0
    to_write: int = 0
    written: int = 0
    error_types: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The parameters of an import; see ``DeadLetterQueue.import_copies``.

    Raises:
      ValueError: When it is no dry run and has no reason.
    """

    queue_name: str
    dry_run: bool
    reason: str
    by: str | None
    include_resolved: bool

    def __post_init__(self) -> None:
        check_names(queue_name=self.queue_name)
        check_texts(reason=self.reason, by=self.by)
        if not self.dry_run and not self.reason.strip():
            raise ParameterRefused("an import needs reason=, which the imported dead letters keep")


OnProgress = Callable[[Imported], object]


class Importer:
    """Executes one request."""

    def __init__(
        self, clients: Clients, topics: Topics, publisher: Publisher, request: ImportRequest
    ) -> None:
        self._clients = clients
        self._publisher = publisher
        self._request = request
        self._topic = topics.dead_letters(request.queue_name)
        topics.ensure([self._topic], for_reading=request.dry_run)
        self._imported = Imported(secrets.token_hex(8), request.dry_run)

    def run(self, dead_letters: Iterable[DeadLetter], on_progress: OnProgress | None = None) -> Imported:
        """Write the dead letters that the topic does not have."""
        present, resolved = self._read()
        note = self._note()
        missing = list(self._missing(dead_letters, present, resolved))
        self._imported.to_write = len(missing)
        if self._request.dry_run:
            return self._imported
        for batch in _batches(missing):
            self._write([copy_of(self._topic, one, note) for one in batch])
            if on_progress is not None:
                on_progress(self._imported)
        return self._imported

    def _read(self) -> tuple[set[bytes], set[bytes]]:
        """The identities of the open dead letters, and of the resolved ones."""
        present: set[bytes] = set()
        resolved: set[bytes] = set()
        with DeadLetterTopic(self._clients, self._topic) as log:
            for partition in log.ends:
                done = History.of(log, partition).done
                for record in log.records(partition):
                    if not is_resolution(record.headers):
                        found = read_dead_letter(self._request.queue_name, record.value, record.headers)
                        (resolved if record.offset in done else present).add(_identity(found))
        return present, resolved - present

    def _missing(
        self, dead_letters: Iterable[DeadLetter], present: set[bytes], resolved: set[bytes]
    ) -> Iterator[DeadLetter]:
        for one in dead_letters:
            self._imported.given += 1
            identity = _identity(one)
            if one.queue_name != self._request.queue_name:
                self._imported.skipped[OTHER_QUEUE] += 1
            elif identity in present:
                self._imported.skipped[PRESENT] += 1
            elif identity in resolved and not self._request.include_resolved:
                self._imported.skipped[RESOLVED] += 1
            else:
                present.add(identity)
                self._imported.error_types[one.error_type] += 1
                yield one

    def _note(self) -> bytes:
        return as_json(
            {
                "operation": self._imported.operation,
                "by": caller() if self._request.by is None else self._request.by,
                "reason": self._request.reason,
                "at_ms": clock.wall_ms(),
            }
        )

    def _write(self, records: list[Record]) -> None:
        failures = self._publisher.publish(records)
        others = {i: e for i, e in failures.items() if not isinstance(e, MessageSizeTooLargeError)}
        for error in others.values():
            if isinstance(error, NotAuthorized):
                raise not_published("The import stopped", error) from error
        if others:
            raise EnqueueFailed({_text(records[index].key): error for index, error in others.items()})
        self._imported.written += len(records) - len(failures)
        if failures:
            self._imported.skipped[TOO_LARGE] += len(failures)
            self._imported.to_write -= len(failures)


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")


def _identity(dead_letter: DeadLetter) -> bytes:
    fields = f"{dead_letter.timestamp} {dead_letter.error_type} ".encode(errors="backslashreplace")
    return hashlib.sha256(fields + dead_letter.raw).digest()


def _batches(dead_letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for one in dead_letters:
        batch.append(one)
        size += len(one.raw) + len(one.traceback)
        if len(batch) >= MAX_BATCH or size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
