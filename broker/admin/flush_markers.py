"""Flush markers: the offsets up to which the partitions of a queue were flushed, by whom and why.

A marker is an offset that is committed for ``{group_id}.{namespace}{queue}.flushed``, a consumer group
without members. Any process may commit there, and no records or offsets of workers change. The text beside
the offset is a JSON object: ``start``, the lowest offset of the flushed records, ``topic``, the id of the
topic, ``at_ms``, ``by`` and ``reason``. Markers of earlier versions, and those on the embedded broker, have
no text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from ..kafka.clients import Clients
from ..kafka.protocol import ConsumerClient
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..offsets.committed_state import read_committed

REQUEST_TIMEOUT_MS = 5_000
MAX_BY_CHARS = 200
MAX_REASON_CHARS = 500
#: Kafka takes 4,096 bytes beside an offset by default. The JSON of a character may have twelve: the author
#: and the reason are shortened then.
MAX_TEXT_CHARS = 3_500


@dataclass(frozen=True, slots=True)
class FlushNote:
    """Who flushed a queue, when and why.

    Attributes:
      at_ms: When, in milliseconds since 1970, by the client's clock.
      by, reason: Who and why, as the client says.
    """

    at_ms: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class FlushMarker:
    """The flushed records of one partition.

    Attributes:
      start: The offset of the first one; 0 when it is not known.
      end: The offset after the last one.
      note: Who flushed them; None when that is not known.
    """

    start: int
    end: int
    note: FlushNote | None = None


class FlushMarkers:
    """The flush markers of one consumer group.

    Raises (every method): KafkaError and KafkaUnavailable when Kafka does not answer.
    """

    def __init__(self, clients: Clients, group: str) -> None:
        self._clients = clients
        self._group = group_of(group)

    def write(
        self, ends: Mapping[TopicPartition, int], beginnings: Mapping[TopicPartition, int], note: FlushNote
    ) -> None:
        """Write the markers of a flush up to ``ends``.

        Parameters:
          beginnings: The log starts before it. What is below was removed by others, unless an earlier flush
            has reached up to there.
        """
        with closing(self._clients.consumer(group_id=self._group)) as kafka:
            kafka.assign(list(ends))
            _learn_topics(kafka, ends)
            earlier = self._read(kafka, list(ends))
            offsets = {}
            for partition, end in ends.items():
                start, before = beginnings[partition], earlier.get(partition)
                if before is not None and before.end >= start:
                    start = min(start, before.start)
                text = _encode(start, kafka.topic_id(partition.topic), note)
                offsets[partition] = OffsetAndMetadata(end, text, -1)
            kafka.commit(offsets, timeout_ms=REQUEST_TIMEOUT_MS)

    def read(self, partitions: list[TopicPartition]) -> dict[TopicPartition, FlushMarker]:
        """The markers. Partitions without one, and of a topic that was recreated since, are left out."""
        with closing(self._clients.consumer(group_id=self._group)) as kafka:
            _learn_topics(kafka, partitions)
            return self._read(kafka, partitions)

    def _read(
        self, kafka: ConsumerClient, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, FlushMarker]:
        return markers_of(kafka, read_committed(kafka, partitions, timeout_ms=REQUEST_TIMEOUT_MS))


def group_of(group: str) -> str:
    """The group whose offsets are the flush markers of a consumer group."""
    return f"{group}.flushed"


def markers_of(
    kafka: ConsumerClient, commits: Mapping[TopicPartition, OffsetAndMetadata]
) -> dict[TopicPartition, FlushMarker]:
    """The flush markers among the commits of their groups, without those of topics recreated since.

    Parameters:
      kafka: A client that knows the topics.
    """
    decoded = ((p, _decode(commit, kafka.topic_id(p.topic))) for p, commit in commits.items())
    return {partition: marker for partition, marker in decoded if marker is not None}


def _learn_topics(kafka: ConsumerClient, partitions: Iterable[TopicPartition]) -> None:
    """Let a consumer know the ids of the topics."""
    for topic in {partition.topic for partition in partitions}:
        kafka.partitions_for_topic(topic)


def _encode(start: int, topic_id: object, note: FlushNote) -> str:
    fields = {
        "start": start,
        "topic": None if topic_id is None else str(topic_id),
        "at_ms": note.at_ms,
        "by": note.by[:MAX_BY_CHARS],
        "reason": note.reason[:MAX_REASON_CHARS],
    }
    text = json.dumps(fields, separators=(",", ":"))
    if len(text) <= MAX_TEXT_CHARS:
        return text
    return _encode(start, topic_id, FlushNote(note.at_ms, note.by[:50], note.reason[: MAX_REASON_CHARS // 3]))


def _decode(commit: OffsetAndMetadata, topic_id: object) -> FlushMarker | None:
    """The marker; None when it is one of another topic of the same name."""
    try:
        fields = json.loads(commit.metadata or "{}")
        if topic_id is not None and fields.get("topic") not in (None, str(topic_id)):
            return None
        note = FlushNote(int(fields["at_ms"]), str(fields["by"]), str(fields["reason"]))
        return FlushMarker(int(fields["start"]), commit.offset, note)
    except (ValueError, KeyError, TypeError, AttributeError):
        return FlushMarker(0, commit.offset)
