"""Reads the kill notes of the last minutes, when a partition comes from an owner that ended uncleanly."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.topic_reader import records_since
from ..kafka.types import ConsumedRecord
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
        return records_since(
            self._clients,
            self._topic,
            clock.wall_ms() - READ_BACK_MS,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
