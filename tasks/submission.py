"""Handing ads in."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from uuid import uuid4

from sqlalchemy import Connection

from db import idempotency, submissions
from db.idempotency import Remembered
from db.in_loop import LoopConnections
from db.outbox import Unpublished
from db.submissions import NewSubmission
from settings import get_settings
from tasks.resources import database, noticing, statements
from tasks.wiring import outbox

#: Expired keys in one DELETE: a short transaction.
FORGOTTEN_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The name that a client gave a request, and a fingerprint of what it asked for."""

    value: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class HandIn:
    """One request: ads handed in together, all or none. An id given twice is two submissions."""

    item_ids: tuple[int, ...]
    key: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task id for each ad of the request; None where there is no such ad."""

    task_ids: tuple[int | None, ...]


class Refused(Enum):
    """Why a request with an idempotency key was not accepted."""

    IN_FLIGHT = "another request with this key is under way"
    KEY_REUSED = "the key was used for another request"


Reply = Accepted | Refused


def submit_many(requests: Sequence[HandIn]) -> list[Reply]:
    """Write a pending submission for each ad and have its message published.

    Once this returns, the submissions are accepted: they are in PostgreSQL, and when Kafka is away now the
    relay publishes them later. One transaction, one INSERT and one produce for the lot. What a key leads to
    is remembered in the same transaction, unless the request named no ad that exists: nothing came of it.

    Raises:
      DatabaseUnavailable: nothing is accepted (or everything, when the connection broke while committing).
    """
    keys = {request.key.value for request in requests if request.key}
    lease = outbox.lease()
    # A key is remembered in the transaction of its rows. Without one there is a single statement.
    with database() if keys else statements() as connection:
        free = idempotency.lock_free(connection, keys) if keys else set()
        known = idempotency.read(connection, free) if free else {}
        new = [request for request in requests if not request.key]
        new += _first_of_each_key(requests, free - known.keys())
        accepted, unpublished = _insert(connection, new, lease_s=lease.duration_s)
        named = {
            request.key.value: Remembered(request.key.value, request.key.fingerprint, reply.task_ids)
            for request, reply in zip(new, accepted, strict=True)
            if request.key
        }
        if lasting := [one for one in named.values() if any(one.task_ids)]:
            idempotency.remember(connection, lasting, ttl_s=get_settings().idempotency_key_ttl_s)
    outbox.publish(unpublished, lease)
    unnamed = iter(accepted)  # those without a key come first, in their order
    return [
        _reply(request.key, (known | named).get(request.key.value)) if request.key else next(unnamed)
        for request in requests
    ]


async def submit_in_loop(connections: LoopConnections, requests: Sequence[HandIn]) -> list[Reply]:
    """Do as :func:`submit_many` does, from the event loop: one statement, and the outbox publishes.

    Parameters:
      requests: without keys.

    Raises:
      DatabaseUnavailable: as :func:`submit_many`.
    """
    lease = outbox.lease()
    rows = _rows(requests)
    flat = list(chain.from_iterable(rows))
    with noticing():
        task_ids = await submissions.insert_pending_in_loop(connections, flat, lease_s=lease.duration_s)
    outbox.hand_over(_unpublished(flat, task_ids), lease)
    return list(_accepted(rows, task_ids))


def forget_expired_keys() -> None:
    """Delete the idempotency keys whose time is over.

    Raises:
      DatabaseUnavailable: as it says.
    """
    deleted = FORGOTTEN_AT_ONCE
    while deleted == FORGOTTEN_AT_ONCE:
        with database() as connection:
            deleted = idempotency.forget_expired(connection, limit=FORGOTTEN_AT_ONCE)


def _first_of_each_key(requests: Sequence[HandIn], keys: Set[str]) -> list[HandIn]:
    firsts: dict[str, HandIn] = {}
    for request in requests:
        if request.key and request.key.value in keys:
            firsts.setdefault(request.key.value, request)
    return list(firsts.values())


def _insert(
    connection: Connection, requests: Sequence[HandIn], *, lease_s: float
) -> tuple[list[Accepted], list[Unpublished]]:
    """Insert the requests' ads in one statement; return each request's answer, and what to publish."""
    rows = _rows(requests)
    flat = list(chain.from_iterable(rows))
    task_ids = submissions.insert_pending(connection, flat, lease_s=lease_s) if flat else {}
    return _accepted(rows, task_ids), _unpublished(flat, task_ids)


def _rows(requests: Sequence[HandIn]) -> list[list[NewSubmission]]:
    """The rows of each request, under new names."""
    return [[NewSubmission(str(uuid4()), item_id) for item_id in request.item_ids] for request in requests]


def _accepted(rows: Sequence[Sequence[NewSubmission]], task_ids: Mapping[str, int]) -> list[Accepted]:
    return [Accepted(tuple(task_ids.get(one.message_id) for one in of_request)) for of_request in rows]


def _unpublished(rows: Sequence[NewSubmission], task_ids: Mapping[str, int]) -> list[Unpublished]:
    return [Unpublished(one.message_id, 0, one.item_id) for one in rows if one.message_id in task_ids]


def _reply(key: IdempotencyKey, found: Remembered | None) -> Reply:
    if found is None:
        return Refused.IN_FLIGHT
    return Accepted(found.task_ids) if found.fingerprint == key.fingerprint else Refused.KEY_REUSED
