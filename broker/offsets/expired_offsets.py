"""Reports records that run again because the group's committed offsets have expired.

Kafka deletes the offsets of a group that has had no members for ``offsets.retention.minutes`` (7 days by
default), and an operator can delete them. A group without offsets begins at the log start. No record can be
skipped then, because a completed record looks like one that never ran; a log line reports their number.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.protocol import ConsumerClient
from ..kafka.types import TopicPartition
from ..process import clock
from .truncation import PartitionLog

logger = logging.getLogger(__name__)

_RETENTION = "offsets.retention.minutes"
#: Kafka's default, assumed where the brokers' settings may not be read.
DEFAULT_OFFSETS_RETENTION_MIN = 7 * 24 * 60
LOOK_UP_TIMEOUT_MS = 2_000
_MINUTE_MS = 60_000


def report_replay(
    clients: Clients,
    kafka: ConsumerClient,
    logs: Mapping[TopicPartition, PartitionLog],
    reported: set[TopicPartition],
) -> None:
    """Log the number of records, in partitions without a committed offset, that may have run before.

    Offsets expire after a period without workers, so the records that ran before are older than that period:
    their number is an error line. Younger records are most likely those of a new queue: their number is a
    warning. Topics without records are not reported.

    Parameters:
      logs: The logs of the partitions without a committed offset.
      reported: The partitions that were reported before. They are left out, and the others are added.
    """
    logs = {p: log for p, log in logs.items() if log.end > log.beginning and p not in reported}
    try:
        if not logs:
            return
        # The setting is in minutes: records younger than one minute need no check of it.
        minutes = old = 0
        if _older_than(kafka, logs, 1):
            minutes = _offsets_retention_min(clients, kafka)
            old = _older_than(kafka, logs, minutes)
    except (KafkaError, BrokerConnectionError) as e:
        logger.info("The offsets of %s could not be checked for expiry: %r", sorted(logs), e)
        return
    reported.update(logs)
    if old:
        logger.error(
            "%s: no offset is committed, so all %d record(s) run, from the beginning of the log. %d of them "
            "are older than the %d minutes for which Kafka keeps the offsets of a group without workers (%s "
            "of its brokers). If this group is not new, its offsets have expired, and the completed ones of "
            "these records run again. To prevent it, keep a worker running, raise that setting, or keep the "
            "topic's retention.ms and segment.ms together below it.",
            ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(logs)),
            sum(log.end - log.beginning for log in logs.values()), old, minutes, _RETENTION,
        )  # fmt: skip
    else:
        logger.warning(
            "%s: the group %s has no committed offset, so it begins with the first of the %d record(s). "
            "That is right for a new group, and for a queue that had messages before its first worker. If "
            "the group had workers before, its offsets were deleted, and completed records run again.",
            ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(logs)),
            kafka.group_id(), sum(log.end - log.beginning for log in logs.values()),
        )  # fmt: skip


def _older_than(kafka: ConsumerClient, logs: Mapping[TopicPartition, PartitionLog], minutes: int) -> int:
    since_ms = clock.wall_ms() - minutes * _MINUTE_MS
    found = kafka.offsets_for_times(dict.fromkeys(logs, since_ms), timeout_ms=LOOK_UP_TIMEOUT_MS)
    return sum(
        (log.end if (first := found.get(partition)) is None else first.offset) - log.beginning
        for partition, log in logs.items()
    )


def _offsets_retention_min(clients: Clients, kafka: ConsumerClient) -> int:
    with clients.admin(within_s=LOOK_UP_TIMEOUT_MS / 1000) as admin:
        settings = [admin.broker_settings(node, [_RETENTION]) for node in kafka.node_ids()[:1]]
    found = settings[0].get(_RETENTION) if settings else None
    return DEFAULT_OFFSETS_RETENTION_MIN if found is None else int(found)
