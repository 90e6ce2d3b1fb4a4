"""Accepting submissions."""

import os
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Self

from sqlalchemy import Connection

from db import idempotency, submissions
from db.errors import DatabaseUnavailable, RowLocked
from db.idempotency import Remembered
from db.in_loop import LoopConnections
from db.outbox import Unpublished
from db.submissions import NewSubmission
from submissions.callers import ANYBODY, Caller
from submissions.database import Database
from submissions.outbox import Outbox

#: Expired keys in one DELETE: a short transaction.
MAX_FORGOTTEN = 1_000
#: The time for the requests of a failed batch, one by one. Each waits for a lock for a moment, and while a
#: table is locked all of them do.
SINGLY_S = 2.0


#: Separates a client's id from its key. No client can send it.
_CLIENT_END = "\x1f"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name for one request, and a fingerprint of the request's content."""

    value: str
    fingerprint: bytes

    @classmethod
    def of_caller(cls, caller: Caller, name: str, fingerprint: bytes) -> Self:
        """Return the key of a client's request. Clients with equal names for requests have different keys."""
        prefix = "" if caller.client_id is None else f"{caller.client_id}{_CLIENT_END}"
        return cls(prefix + name, fingerprint)


@dataclass(frozen=True, slots=True)
class SubmissionRequest:
    """The ads of one request, accepted all or none. An id given twice is two submissions.

    ``traceparent`` is the trace that the messages continue; empty for none.
    """

    item_ids: tuple[int, ...]
    key: IdempotencyKey | None = None
    caller: Caller = ANYBODY
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task id for each ad of the request; None for an ad that does not exist.

    ``is_repeated`` is whether an earlier request with the same key submitted them.
    """

    task_ids: tuple[int | None, ...]
    is_repeated: bool = False

    @property
    def count(self) -> int:
        """The number of ads that this request itself submitted."""
        return 0 if self.is_repeated else sum(task_id is not None for task_id in self.task_ids)


class Refused(Enum):
    """The reason for refusing a request with an idempotency key."""

    IN_FLIGHT = "another request with this key is under way"
    KEY_REUSED = "the key was used for another request"


Reply = Accepted | Refused


class Submitter:
    """Accepts submissions and has their messages published. Thread-safe.

    Parameters:
      key_ttl_s: The time for which an idempotency key is remembered.
    """

    def __init__(self, database: Database, outbox: Outbox, *, key_ttl_s: float) -> None:
        self._database = database
        self._outbox = outbox
        self._key_ttl_s = key_ttl_s

    def submit(self, requests: Sequence[SubmissionRequest]) -> list[Reply]:
        """Insert a pending submission for each ad, and publish the messages.

        The submissions are durable in PostgreSQL when this returns; while Kafka is unreachable the relay
        publishes them later. All requests share one transaction, one INSERT and one produce. The same
        transaction remembers the result of a key, unless no ad of its request exists.

        Returns:
          A reply for each request, in their order.

        Raises:
          DatabaseUnavailable: Nothing was accepted, or everything when the connection broke during COMMIT.
        """
        keys = {request.key.value for request in requests if request.key}
        lease = self._outbox.lease()
        # A key is remembered in the transaction of its rows. Requests without keys need one statement only.
        with self._database.transaction() if keys else self._database.statements() as connection:
            free = idempotency.lock_free(connection, keys) if keys else set()
            known = idempotency.read(connection, free) if free else {}
            new = [request for request in requests if not request.key]
            new += _first_of_each_key(requests, free - known.keys())
            accepted, unpublished = _insert(connection, new, lease_s=lease.duration_s)
            named = _remembered(new, accepted)
            if lasting := [one for one in named.values() if any(one.task_ids)]:
                idempotency.remember(connection, lasting, ttl_s=self._key_ttl_s)
        self._outbox.publish(unpublished, lease)
        unnamed = iter(accepted)  # requests without a key come first, in their order
        first = {id(request) for request in new}
        return [
            _reply(request.key, (known | named).get(request.key.value), is_repeated=id(request) not in first)
            if request.key
            else next(unnamed)
            for request in requests
        ]

    def submit_each(self, requests: Sequence[SubmissionRequest]) -> list[Reply | Exception]:
        """Do the work of :meth:`submit`. A lock that another transaction keeps fails its own request only.

        Returns:
          A reply for each request, in their order, or DatabaseUnavailable.
        """
        try:
            return list(self.submit(requests))
        except RowLocked as error:
            if len(requests) == 1:
                return [error]
        replies: list[Reply | Exception] = []
        deadline_s = time.monotonic() + SINGLY_S
        for request in requests:
            if time.monotonic() > deadline_s:
                replies.append(RowLocked("too many requests of one batch met a lock"))
                continue
            try:
                replies += self.submit([request])
            except DatabaseUnavailable as error:
                replies.append(error)
        return replies

    def recall(self, requests: Sequence[SubmissionRequest]) -> list[Reply | None]:
        """Return the replies of :meth:`submit` to repetitions, without submitting anything.

        Parameters:
          requests: With keys.

        Returns:
          For each request, in their order: the reply, or None if its key is free and new.

        Raises:
          DatabaseUnavailable: PostgreSQL cannot be used now.
        """
        keys = {request.key.value for request in requests if request.key}
        with self._database.transaction() as connection:
            free = idempotency.lock_free(connection, keys)
            known = idempotency.read(connection, keys)
        return [
            _reply(request.key, known.get(request.key.value), is_repeated=True)
            if request.key and (request.key.value in known or request.key.value not in free)
            else None
            for request in requests
        ]

    async def submit_in_loop(
        self, connections: LoopConnections, requests: Sequence[SubmissionRequest]
    ) -> list[Reply]:
        """Do the work of :meth:`submit` from the event loop: one statement, and the outbox publishes.

        Parameters:
          requests: Without keys.

        Raises:
          DatabaseUnavailable: As :meth:`submit`.
        """
        lease = self._outbox.lease()
        rows = _rows(requests)
        flat = list(chain.from_iterable(rows))
        with self._database.log_outages():
            task_ids = await submissions.insert_pending_in_loop(connections, flat, lease_s=lease.duration_s)
        self._outbox.hand_over(_unpublished(flat, task_ids, _traces(requests, rows)), lease)
        return list(_accepted(rows, task_ids))

    def forget_expired_keys(self) -> None:
        """Delete expired idempotency keys.

        Raises:
          DatabaseUnavailable: PostgreSQL cannot be used now.
        """
        deleted = MAX_FORGOTTEN
        while deleted == MAX_FORGOTTEN:
            with self._database.transaction() as connection:
                deleted = idempotency.forget_expired(connection, limit=MAX_FORGOTTEN)


def _first_of_each_key(requests: Sequence[SubmissionRequest], keys: Set[str]) -> list[SubmissionRequest]:
    firsts: dict[str, SubmissionRequest] = {}
    for request in requests:
        if request.key and request.key.value in keys:
            firsts.setdefault(request.key.value, request)
    return list(firsts.values())


def _remembered(requests: Sequence[SubmissionRequest], accepted: Sequence[Accepted]) -> dict[str, Remembered]:
    """Return the results of the requests with a key, by key."""
    return {
        request.key.value: Remembered(request.key.value, request.key.fingerprint, reply.task_ids)
        for request, reply in zip(requests, accepted, strict=True)
        if request.key
    }


def _insert(
    connection: Connection, requests: Sequence[SubmissionRequest], *, lease_s: float
) -> tuple[list[Accepted], list[Unpublished]]:
    """Insert the ads of all requests in one statement; return the replies, and the rows to publish."""
    rows = _rows(requests)
    flat = list(chain.from_iterable(rows))
    task_ids = submissions.insert_pending(connection, flat, lease_s=lease_s) if flat else {}
    return _accepted(rows, task_ids), _unpublished(flat, task_ids, _traces(requests, rows))


def _rows(requests: Sequence[SubmissionRequest]) -> list[list[NewSubmission]]:
    """Return the rows of each request, with new message ids."""
    return [
        [
            NewSubmission(_message_id(), item_id, request.caller.client_id, request.caller.key_id)
            for item_id in request.item_ids
        ]
        for request in requests
    ]


def _message_id() -> str:
    """Return a random UUID, as ``str(uuid4())`` does in three times the time."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _accepted(rows: Sequence[Sequence[NewSubmission]], task_ids: Mapping[str, int]) -> list[Accepted]:
    return [Accepted(tuple(task_ids.get(one.message_id) for one in of_request)) for of_request in rows]


def _traces(
    requests: Sequence[SubmissionRequest], rows: Sequence[Sequence[NewSubmission]]
) -> Mapping[str, str]:
    """Return the traces of the rows, by message id; those of requests without a trace are left out."""
    return {
        one.message_id: request.traceparent
        for request, of_request in zip(requests, rows, strict=True)
        if request.traceparent
        for one in of_request
    }


def _unpublished(
    rows: Sequence[NewSubmission], task_ids: Mapping[str, int], traces: Mapping[str, str]
) -> list[Unpublished]:
    return [
        Unpublished(one.message_id, 0, one.item_id, traces.get(one.message_id, ""))
        for one in rows
        if one.message_id in task_ids
    ]


def _reply(key: IdempotencyKey, found: Remembered | None, *, is_repeated: bool) -> Reply:
    if found is None:
        return Refused.IN_FLIGHT
    return (
        Accepted(found.task_ids, is_repeated) if found.fingerprint == key.fingerprint else Refused.KEY_REUSED
    )
