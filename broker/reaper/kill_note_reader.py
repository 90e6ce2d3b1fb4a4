"""Reads the kill notes of the last minutes, when a partition comes from an owner that ended uncleanly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.topic_reader import TopicReader
from ..kafka.types import ConsumedRecord
from ..kafka.watermarks import high_watermarks
from ..process import clock
from .kill_note import KillNote

logger = logging.getLogger(__name__)

#: The age of the notes that are read: the time within which a killed command is started again.
READ_BACK_MS = 300_000
STALL_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 5_000


class KillNoteReader:
    """Reads the topic of the workers' reports. A clean handover costs no request.

    Parameters:
      topic: The topic. It need not exist.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic

    def read(self, group_id: str) -> list[KillNote]:
        """The notes about workers of a ``group_id``; none when they cannot be read, which is logged.

        The takeover of a partition does not depend on this topic.
        """
        try:
            notes = [KillNote.decode(record.value) for record in self._records()]
        except (KafkaError, BrokerConnectionError) as e:
            logger.warning(
                "The kill notes in %r cannot be read, so the cause of a kill is searched as that of any "
                "crash: %s",
                self._topic,
                e,
            )
            return []
        return [note for note in notes if note is not None and note.group_id == group_id]

    def _records(self) -> Iterator[ConsumedRecord]:
        reader = TopicReader(
            self._clients,
            self._topic,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
        )
        with closing(reader):
            reader.add(reader.kafka.partitions_for_topic(self._topic))
            if not reader.partitions:
                return
            ends = high_watermarks(reader.kafka, reader.partitions)
            since_ms = clock.wall_ms() - READ_BACK_MS
            starts = reader.kafka.offsets_for_times(
                dict.fromkeys(reader.partitions, since_ms), timeout_ms=REQUEST_TIMEOUT_MS
            )
            for partition in reader.partitions:
                start = starts.get(partition)
                reader.kafka.seek(partition, ends[partition] if start is None else start.offset)
            for batches in reader.read(ends):
                for records in batches.values():
                    yield from records
