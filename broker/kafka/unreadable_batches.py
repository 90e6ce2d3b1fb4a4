"""Sets a partition aside whose next batch of records cannot be read, so that the other partitions are read.

The producer of a batch, or the topic's ``compression.type``, determines its compression. kafka-python needs a
further package for each of zstd, snappy and lz4. A batch can also be damaged.
"""

from __future__ import annotations

import logging
import re
from functools import cache

from kafka import codec

from ..process.backoff import Backoff
from .errors import CorruptRecordError, KafkaError, UnsupportedCodecError
from .protocol import ConsumerClient
from .types import ConsumedRecord, TopicPartition

logger = logging.getLogger(__name__)

#: The pause before an unreadable partition is read again: a damaged response may be whole then.
RETRY_GAP_S = 15.0
#: The package with which kafka-python reads each codec.
PACKAGES = {"zstd": "zstandard", "snappy": "python-snappy", "lz4": "lz4"}


def missing_codecs() -> list[str]:
    """The codecs that can be neither read nor written in this process."""
    there = {"zstd": codec.has_zstd(), "snappy": codec.has_snappy(), "lz4": codec.has_lz4()}
    return [name for name, is_there in there.items() if not is_there]


def check_compression_type(name: object) -> None:
    """Raise ValueError when records cannot be sent with that ``compression_type``, which may be None.

    kafka-python reports it only when a producer is constructed (KafkaProducer.__init__,
    producer/kafka.py:545-552 of 3.0.12), and with a RuntimeError.
    """
    known = ("gzip", *PACKAGES)
    if name is not None and name not in known:
        raise ValueError(f"compression_type={name!r}: Kafka knows {', '.join(known)}")
    if name in missing_codecs():
        raise ValueError(
            f"compression_type={name!r} cannot be written here: install {PACKAGES[str(name)]} (the broker's "
            f"extra {name!r}), or leave compression_type out"
        )


def explained(error: BaseException) -> str:
    """The error as text, with the missing package when that is its reason."""
    if not isinstance(error, UnsupportedCodecError):
        return repr(error)
    named = re.search("|".join(PACKAGES), str(error))
    if named is None:
        return repr(error)
    name = named.group()
    return (
        f"its records are compressed with {name}, which cannot be read here: install {PACKAGES[name]} (the "
        f"broker's extra {name!r}) and start again: {error!r}"
    )


@cache
def report_missing_codecs() -> None:
    """Log once which codecs cannot be read in this process."""
    if missing := missing_codecs():
        logger.info(
            "Records that are compressed with %s cannot be read here. If a producer or a topic's "
            "compression.type uses such a codec, install %s.",
            " or ".join(missing), ", ".join(PACKAGES[name] for name in missing),
        )  # fmt: skip


class UnreadableBatchSkipper:
    """Polls a consumer, and sets partitions aside that cannot be read. For the consumer's thread.

    Parameters:
      kafka: The consumer. Its owner does not resume a partition that :meth:`is_aside`.
    """

    def __init__(self, kafka: ConsumerClient) -> None:
        self._kafka = kafka
        self._aside: dict[TopicPartition, Backoff] = {}
        self._reasons: dict[TopicPartition, str] = {}

    def poll(self, timeout_ms: float) -> dict[TopicPartition, list[ConsumedRecord]]:
        """Poll the consumer, and raise an error that no batch of one partition caused."""
        if self._aside:
            self._try_again()
        try:
            records = self._kafka.poll(timeout_ms=timeout_ms)
        except Exception as e:
            if not self._set_aside(e):
                raise
            return {}
        # These records precede a batch that is set aside below, and are no sign that it can be read.
        if self._reasons:
            self._note_readable(records)
        self._set_aside_next_batch()
        return records

    def is_aside(self, partition: TopicPartition) -> bool:
        return partition in self._aside

    def forget(self, partition: TopicPartition) -> None:
        """Note that the partition belongs to another consumer now. Thread-safe."""
        self._aside.pop(partition, None)
        self._reasons.pop(partition, None)

    def _set_aside_next_batch(self) -> None:
        """Set the partition aside whose error the next poll would raise.

        kafka-python keeps an error until the next poll when it can return records before it. It loses the
        error, but not the batch, when the partition is paused by then (Fetcher.fetched_records,
        consumer/fetcher.py:569-575 and :620-623 of 3.0.12).
        """
        error = self._kafka.held_error()
        if error is not None and self._set_aside(error):
            self._kafka.forget_held_error()

    def _set_aside(self, error: Exception) -> bool:
        """Pause the partition that the error comes from. False when the error comes from no partition."""
        # A decompressor has errors of its own. The other errors of kafka-python are about requests.
        if isinstance(error, KafkaError) and not isinstance(
            error, UnsupportedCodecError | CorruptRecordError
        ):
            return False
        partition = self._kafka.drop_unreadable_batch()
        if partition is None:
            return False
        try:
            offset = self._kafka.position(partition, timeout_ms=0)
            self._kafka.pause(partition)
        except (KafkaError, KeyError, AssertionError):
            return True  # it was revoked meanwhile
        backoff = self._aside[partition] = Backoff(RETRY_GAP_S)
        backoff.fail()
        reason = explained(error)
        if self._reasons.get(partition) != reason:
            self._reasons[partition] = reason
            logger.error(
                "%s-%d cannot be read from offset %s on, and waits: %s",
                partition.topic, partition.partition, offset, reason,
            )  # fmt: skip
        return True

    def _try_again(self) -> None:
        due = [partition for partition, backoff in list(self._aside.items()) if backoff.is_over]
        if not due:
            return
        assigned = self._kafka.assignment()
        for partition in due:
            self._aside.pop(partition, None)
            if partition in assigned:
                self._kafka.resume(partition)
            else:
                self._reasons.pop(partition, None)

    def _note_readable(self, records: dict[TopicPartition, list[ConsumedRecord]]) -> None:
        for partition in list(self._reasons):
            if records.get(partition):
                del self._reasons[partition]
                logger.info("%s-%d can be read again.", partition.topic, partition.partition)
