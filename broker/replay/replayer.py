"""One replay: chooses messages of a queue's log, and sends them again. It can be killed and repeated.

    1. read what is not complete: the commits, the delayed topic, the lanes topic, the dead letters
    2. read the log from the start of the range to its end, and choose the messages
    3. write the record "begun" with the ends of the log
    4. send the messages in batches
    5. write the record "done"

Step 1 comes before the end of step 2 is asked for: a message that was complete in step 1 and is not any more
has a record in the log at or above the committed offsets, and step 2 finds that. The messages of an
interrupted replay carry its id. The next one finds them behind the ends of its record.
"""

from __future__ import annotations

import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from ..admin.lane_backlog import LaneBacklog
from ..consume.first_records import read_at
from ..control.commands import Commands
from ..dead_letters import DeadLetterQueue
from ..dead_letters.dead_letter import REDRIVES
from ..dead_letters.generations import renewed
from ..delays import Delays
from ..errors import EnqueueFailed, NotAuthorized
from ..kafka.clients import Clients
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.operations import Operations
from ..kafka.rights import not_published, reading
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord, TopicPartition
from ..partition_keys import with_key_headers
from ..partition_keys.record_format import (
    REQUEUE_HEADERS_BYTES,
    without_own,
)
from ..process import clock
from ..process.rate_limit import RateLimit
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Record
from .reading import LogSearch, message_of
from .record_format import (
    Replay,
    ReplayState,
    UnreadableReplay,
    identity_of,
    is_replay,
    marks,
    read,
    without_marks,
)
from .request import OnProgress, ReplayRequest, ReplayResult
from .selection import ReplaySelection, Selected

#: The size of a batch.
MAX_BATCH = 500
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: The time for which the control topic keeps the record of a replay.
RECORD_EXPIRES_AFTER_MS = 90 * 24 * 3600 * 1000

#: The reasons for which records and messages are skipped; see ``selection`` and ``reading`` for the others.
REMOVED = "its record was removed before it was sent"
TOO_LARGE = "it is larger than its queue takes"


class Replayer:
    """Replays messages, and reads the records of replays. Operators and their scripts use it.

    Raises (every method): KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client
    lacks a right.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        *,
        commands: Commands,
        delays: Delays,
        lanes: LaneBacklog,
        dead_letters: DeadLetterQueue,
        group_id: str,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._commands = commands
        self._search = LogSearch(clients, topics, delays, lanes, dead_letters, group_id=group_id)
        self._group_id = group_id

    def replays(self) -> list[Replay]:
        """The records of all replays of the last 90 days, by time. An unreadable one is left out."""
        found: dict[bytes, Replay] = {}
        for key, value in self._commands.records():
            if key is None or not is_replay(key):
                continue
            found.pop(key, None)
            try:
                if value is not None:
                    found[key] = read(value)
            except UnreadableReplay:
                continue  # a later version of the broker wrote it
        return sorted(found.values(), key=lambda replay: replay.at_ms)

    def run(self, request: ReplayRequest, on_progress: OnProgress | None = None) -> ReplayResult:
        """Replay messages; see ``KafkaBroker.replay``."""
        topics, queue_name = self._topics, request.queue_name
        group = topics.group(self._group_id, queue_name)
        needs = Operations(topics, queue_name, group).replaying(dry_run=request.dry_run)
        with self._clients.naming_all("a replay", needs):
            topics.ensure(topics.of_worker(queue_name), for_reading=request.dry_run, right="READ")
            records = self.replays()
            begun = [r for r in records if r.queue_name == queue_name and r.state is ReplayState.BEGUN]
            replay = _replay_of(request)
            selection = ReplaySelection(
                actor=request.actor,
                since_ms=replay.since_ms,
                until_ms=replay.until_ms,
                limit=request.limit,
                interrupted={r.id for r in begun},
            )
            result = ReplayResult(
                replay.id,
                queue_name,
                request.ids,
                request.dry_run,
                interrupted=tuple(r.id for r in begun),
            )
            replay = replace(replay, ends=self._search.run(replay, begun, selection, result))
            chosen = selection.result()
            _describe(result, chosen, selection)
            if request.dry_run:
                return result
            covered = [r for r in begun if replay.covers(r)]
            if chosen:
                begun_record = replace(replay, selected=result.selected)
                self._write(begun_record, tombstones=[r for r in records if r.is_expired])
                self._send(request, chosen, result, on_progress)
            if chosen or covered:
                self._end(replay, result, covered, selection.sent_by())
        return result

    # Sending

    def _send(
        self,
        request: ReplayRequest,
        chosen: Sequence[Selected],
        result: ReplayResult,
        on_progress: OnProgress | None,
    ) -> None:
        rate_limit = RateLimit(request.rate_per_s, max_batch=MAX_BATCH)
        for batch in _batches(chosen, rate_limit.max_batch):
            found = self._fetch(request.queue_name, batch)
            identities, records = [], []
            for each in batch:
                record = found.get((each.record.partition, each.record.offset))
                again = None if record is None else self._again(request, result.id, each.identity, record)
                if again is None:
                    result.skipped[REMOVED] += 1
                    result.to_send -= 1
                else:
                    identities.append(each.identity)
                    records.append(again)
            rate_limit.wait(len(records))
            failures = self._publisher.publish(records)
            self._raise_unless_too_large({identities[index]: e for index, e in failures.items()})
            result.sent += len(records) - len(failures)
            if failures:
                result.to_send -= len(failures)
                result.skipped[TOO_LARGE] += len(failures)
            if on_progress is not None:
                on_progress(result)

    def _raise_unless_too_large(self, failures: Mapping[str, BaseException]) -> None:
        others = {i: e for i, e in failures.items() if not isinstance(e, MessageSizeTooLargeError)}
        for error in others.values():
            if isinstance(error, NotAuthorized):
                raise not_published("The replay stopped", error) from error
        if others:
            raise EnqueueFailed(others)

    def _fetch(self, queue_name: str, batch: Sequence[Selected]) -> dict[tuple[int, int], ConsumedRecord]:
        topic = self._topics.queue(queue_name)
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        for each in batch:
            offsets[each.record.partition].append(each.record.offset)
        found: dict[tuple[int, int], ConsumedRecord] = {}
        for number, wanted in offsets.items():
            records = self._clients.ask(
                partial(self._fetch_from, TopicPartition(topic, number), sorted(wanted)),
                f"The topic {topic!r} could not be read",
                rights=reading(topic),
            )
            found.update(((number, record.offset), record) for record in records)
        return found

    def _fetch_from(self, partition: TopicPartition, offsets: list[int]) -> list[ConsumedRecord]:
        return list(read_at(self._clients, partition, offsets))

    def _again(
        self, request: ReplayRequest, replay_id: str, identity: str, record: ConsumedRecord
    ) -> Record | None:
        """The record that runs a message again; None when the record there is another one by now."""
        message = message_of(record, request.queue_name)
        if message is None or identity_of(message.message_id, record.headers) != identity:
            return None  # the topic was recreated
        again = renewed(message)
        if request.ids == "new":
            options = {
                name: value
                for name, value in message.options.items()
                if name in again.options and name not in (REDRIVES, "first_sent_timestamp")
            }
            again = replace(again, message_id=str(uuid.uuid4()), options=options)
        own = without_marks(without_own(record.headers)) + marks(replay_id, identity)
        key, headers = with_key_headers(again, own, is_again=True)
        return Record(
            self._topics.queue(request.queue_name),
            again.encode(),
            key=key,
            headers=headers,
            reserved_bytes=0 if key is None else REQUEUE_HEADERS_BYTES,
        )

    # The records of replays

    def _end(
        self, replay: Replay, result: ReplayResult, covered: Sequence[Replay], sent_by: Mapping[str, int]
    ) -> None:
        ended_ms = clock.wall_ms()
        done = replace(
            replay,
            state=ReplayState.DONE,
            selected=result.selected,
            sent=result.sent,
            ended_ms=ended_ms,
        )
        continued = [
            replace(
                other,
                state=ReplayState.CONTINUED,
                sent=sent_by.get(other.id, 0),
                ended_ms=ended_ms,
                continued_by=replay.id,
            )
            for other in covered
        ]
        self._write(done, *continued)

    def _write(self, *replays: Replay, tombstones: Sequence[Replay] = ()) -> None:
        control = self._topics.control
        records = [Record(control, replay.encode(), replay.key.encode()) for replay in replays]
        records += [Record(control, None, replay.key.encode()) for replay in tombstones]
        publish_all(self._publisher, records, "The replay stopped, as its record was not written. Repeat it")


def _describe(result: ReplayResult, chosen: Sequence[Selected], selection: ReplaySelection) -> None:
    result.skipped = selection.skipped
    result.sent_before = selection.sent_before
    result.to_send = len(chosen)
    result.selected = len(chosen) + selection.sent_before
    result.actors = Counter(each.record.actor for each in chosen)
    if chosen:
        result.first = _time(min(each.record.timestamp for each in chosen))
        result.last = _time(max(each.record.timestamp for each in chosen))


def _replay_of(request: ReplayRequest) -> Replay:
    now_ms = clock.wall_ms()
    return Replay(
        id=secrets.token_hex(8),
        queue_name=request.queue_name,
        by=request.by,
        at_ms=now_ms,
        reason=request.reason,
        state=ReplayState.BEGUN,
        ids=request.ids,
        actor=request.actor,
        since_ms=_milliseconds(request.since),
        until_ms=_milliseconds(request.until),
        limit=request.limit,
        selected=0,
        sent=0,
        ends={},
        expires_at_ms=now_ms + RECORD_EXPIRES_AFTER_MS,
    )


def _batches(chosen: Sequence[Selected], at_most: int) -> Iterator[list[Selected]]:
    batch: list[Selected] = []
    size = 0
    for each in chosen:
        if batch and (len(batch) >= at_most or size + each.record.size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.record.size
    if batch:
        yield batch


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _time(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
