"""Sets a partition aside whose next batch of records cannot be read, so that it stops nothing but itself.

A batch is compressed as its producer likes, or as the topic's ``compression.type`` says, and kafka-python
reads zstd, snappy and lz4 only with a package of each. A batch can be damaged, too.
"""

from __future__ import annotations

import logging
import re
from functools import cache

from kafka import codec

from ..process import clock
from .errors import CorruptRecordError, KafkaError, UnsupportedCodecError
from .protocol import ConsumerClient
from .types import ConsumedRecord, TopicPartition

logger = logging.getLogger(__name__)

#: How long an unreadable partition rests before it is tried again: a damaged answer may be whole then.
RETRY_GAP_S = 15.0
#: The package that kafka-python reads each codec with.
PACKAGES = {"zstd": "zstandard", "snappy": "python-snappy", "lz4": "lz4"}


def missing_codecs() -> list[str]:
    """The codecs that can be neither read nor written in this process."""
    there = {"zstd": codec.has_zstd(), "snappy": codec.has_snappy(), "lz4": codec.has_lz4()}
    return [name for name, is_there in there.items() if not is_there]


def check_compression_type(name: object) -> None:
    """Raise ValueError when records cannot be sent with that ``compression_type``, which may be None.

    kafka-python says so only when a producer is made (KafkaProducer.__init__, producer/kafka.py:545-552 of
    3.0.12), and with a RuntimeError.
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
    """The error with the package that is missing, if that is its reason."""
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
    """Say once which codecs cannot be read in this process."""
    if missing := missing_codecs():
        logger.info(
            "Records that are compressed with %s cannot be read here. Whoever sends such, or sets a topic's "
            "compression.type so, installs %s.",
            " or ".join(missing), ", ".join(PACKAGES[name] for name in missing),
        )  # fmt: skip


class UnreadableBatchSkipper:
    """Polls a consumer, and sets partitions aside that cannot be read. Use it from the consumer's thread.

    Parameters:
      kafka: The consumer. What it may do with a partition that is set aside is asked of :meth:`is_aside`.
    """

    def __init__(self, kafka: ConsumerClient) -> None:
        self._kafka = kafka
        self._until_s: dict[TopicPartition, float] = {}
        self._said: dict[TopicPartition, str] = {}

    def poll(self, timeout_ms: float) -> dict[TopicPartition, list[ConsumedRecord]]:
        """Poll as the consumer does. It raises whatever is no partition's own failure."""
        if self._until_s:
            self._try_again(clock.monotonic_s())
        try:
            records = self._kafka.poll(timeout_ms=timeout_ms)
        except Exception as e:
            if not self._set_aside(e):
                raise
            return {}
        # These records come before a batch that is set aside below, which does not become readable by them.
        if self._said:
            self._note_readable(records)
        self._set_aside_what_comes_next()
        return records

    def is_aside(self, partition: TopicPartition) -> bool:
        return partition in self._until_s

    def forget(self, partition: TopicPartition) -> None:
        """Note that the partition is another consumer's now. It may be called from any thread."""
        self._until_s.pop(partition, None)
        self._said.pop(partition, None)

    def _set_aside_what_comes_next(self) -> None:
        """kafka-python keeps an error until the next poll when there are records to hand out before it, and
        loses it, but not the batch, when the partition is paused by then (Fetcher.fetched_records,
        consumer/fetcher.py:569-575 and :620-623 of 3.0.12).
        """
        error = self._kafka.held_error()
        if error is not None and self._set_aside(error):
            self._kafka.forget_held_error()

    def _set_aside(self, error: Exception) -> bool:
        """Pause the partition that the error comes from; whether it is one's."""
        # A decompressor has errors of its own. kafka-python's others are about requests.
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
        self._until_s[partition] = clock.monotonic_s() + RETRY_GAP_S
        reason = explained(error)
        if self._said.get(partition) != reason:
            self._said[partition] = reason
            logger.error(
                "%s-%d cannot be read from offset %s on, and waits: %s",
                partition.topic, partition.partition, offset, reason,
            )  # fmt: skip
        return True

    def _try_again(self, now_s: float) -> None:
        due = [partition for partition, until_s in list(self._until_s.items()) if now_s >= until_s]
        if not due:
            return
        assigned = self._kafka.assignment()
        for partition in due:
            self._until_s.pop(partition, None)
            if partition in assigned:
                self._kafka.resume(partition)
            else:
                self._said.pop(partition, None)

    def _note_readable(self, records: dict[TopicPartition, list[ConsumedRecord]]) -> None:
        for partition in list(self._said):
            if records.get(partition):
                del self._said[partition]
                logger.info("%s-%d can be read again.", partition.topic, partition.partition)
