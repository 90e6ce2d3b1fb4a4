"""Polls a consumer that is a member of a group, in place of kafka-python's poll()."""

from __future__ import annotations

import math
import threading
from typing import Any

from ..process import clock
from . import internals
from .errors import (
    IllegalGenerationError,
    InvalidMetadataError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

#: The longest interval of heartbeats in the first seconds after a join, as a share of the time since then. A
#: cooperative rebalance has two rounds, and each member learns of the second one by a heartbeat.
PACE = 1.0
MIN_HEARTBEAT_INTERVAL_S = 0.05
#: The pause before a failed join, or a failed look-up of the coordinator, is repeated. Kafka refuses look-ups
#: within a millisecond while it creates or loads the topic of the commits, which takes seconds.
RETRY_GAP_S = 0.1
#: The time without a record after which a consumer is idle, and the time for which Kafka holds its fetches
#: back then. An idle consumer costs little but its requests. A request about its partitions waits behind a
#: fetch.
IDLE_AFTER_S = 3.0
IDLE_FETCH_WAIT_MS = 2_500
#: After these errors of a join, the next attempt has what was missing.
_JOIN_AGAIN_AT_ONCE = (
    IllegalGenerationError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class GroupPoll:
    """The poll of one consumer. It differs from kafka-python's in three ways.

    It returns when :meth:`interrupt` is called. While the member joins the next generation of its group, it
    returns the records of the partitions that the member keeps. It waits on an event of this process:
    kafka-python runs two tasks of its I/O thread for each wait.
    """

    def __init__(self, client: Any, *, max_records: int, heartbeat_interval_s: float) -> None:
        self._client = client
        self._max_records = max_records
        self._heartbeat_interval_s = heartbeat_interval_s
        self._news = threading.Event()
        self._interrupted = False
        self._watched: set[Any] = set()
        self._look_up: Any = None
        self._sending: Any = None
        self._retry_s = -math.inf
        self._fetch_wait_ms = int(client.config["fetch_max_wait_ms"])
        self._last_records_s = clock.monotonic_s()
        internals.keep_join_outcomes(client)
        internals.watch_group(client, self._news.set)
        internals.pace_heartbeats(client, self._heartbeat_pace_s)

    def interrupt(self) -> None:
        """Let the current poll, or the next one, return early. Thread-safe."""
        self._interrupted = True
        self._news.set()

    def poll(self, timeout_ms: float) -> dict[Any, list[Any]]:
        """See ``protocol.ConsumerClient.poll``; the partitions are kafka-python's."""
        deadline_s = clock.monotonic_s() + timeout_ms / 1000
        while True:
            self._news.clear()
            reads = self._takes_part() or internals.keeps_reading(self._client)
            if self._interrupted:
                self._interrupted = False
                return {}
            if reads and (records := self._read(deadline_s, waits_ms=timeout_ms)):
                return records
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0.0:
                return {}
            clock.wait(self._news, min(left_s, self._longest_wait_s(reads)))

    def _read(self, deadline_s: float, *, waits_ms: float) -> dict[Any, list[Any]]:
        now_s = clock.monotonic_s()
        fetch_wait_ms = self._fetch_wait_ms
        # A caller that waits for less has other requests to make soon; so has one that resumes a partition.
        if (
            now_s - self._last_records_s > IDLE_AFTER_S
            and waits_ms > fetch_wait_ms
            and internals.reads_all(self._client)
        ):
            fetch_wait_ms = max(fetch_wait_ms, IDLE_FETCH_WAIT_MS)
        records, sending = internals.read(
            self._client,
            self._max_records,
            timeout_ms=max(0.0, deadline_s - now_s) * 1000,
            fetch_wait_ms=fetch_wait_ms,
        )
        self._sending = sending or self._sending
        if records:
            self._last_records_s = now_s
        return records

    def _takes_part(self) -> bool:
        for failure in (internals.take_join_failure(self._client), self._take_look_up_failure()):
            if failure is not None and not isinstance(failure, _JOIN_AGAIN_AT_ONCE):
                if not getattr(failure, "retriable", False):
                    raise failure
                self._retry_s = clock.monotonic_s() + RETRY_GAP_S
        if clock.monotonic_s() < self._retry_s:
            return False
        internals.drop_dead_coordinator(self._client)
        takes_part = internals.take_part(self._client)
        if not takes_part and not internals.knows_coordinator(self._client):
            self._look_up = self._look_up or internals.look_up_coordinator(self._client)
        return takes_part

    def _take_look_up_failure(self) -> Exception | None:
        if self._look_up is None or not self._look_up.is_done:
            return None
        look_up, self._look_up = self._look_up, None
        if isinstance(look_up.exception, InvalidMetadataError):
            self._client.request_metadata()
        failure: Exception | None = look_up.exception
        return failure

    def _longest_wait_s(self, reads: bool) -> float:
        """Let the end of each request set the event, and return the time after which nothing may set it."""
        of_group = [*internals.group_requests(self._client), *([self._look_up] if self._look_up else ())]
        requests = {*of_group, *internals.reads_under_way(self._client)}
        if self._sending is not None:
            requests.add(self._sending)  # once it is made, its fetch is under way
        # Each is watched once, also if it has ended already.
        for request in requests - self._watched:
            request.add_both(self._note)
        self._watched = requests
        if (until_retry_s := self._retry_s - clock.monotonic_s()) > 0.0:
            return until_retry_s
        # A request that fails at once leaves nothing to wait for.
        is_asking = reads or any(not request.is_done for request in of_group)
        return math.inf if is_asking else RETRY_GAP_S

    def _note(self, _: object) -> None:
        self._news.set()

    def _heartbeat_pace_s(self, sent_s: float, joined_s: float) -> float:
        return min(self._heartbeat_interval_s, max(MIN_HEARTBEAT_INTERVAL_S, PACE * (sent_s - joined_s)))
