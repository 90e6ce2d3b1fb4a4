"""The size of a record that Kafka compares with its topic's ``max.message.bytes``."""

from __future__ import annotations

from kafka.record.default_records import DefaultRecordBatchBuilder

from .types import Headers

#: More than a batch's header and a record's own fields take.
ROOM_BYTES = 128
#: More than the lengths of one header's name and content take, and a character of its name.
HEADER_LENGTHS_BYTES = 10
CHARACTER_BYTES = 4


def batch_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The bytes of a batch that holds this record alone and is not compressed."""
    of_record: int = DefaultRecordBatchBuilder.size_in_bytes(0, 0, key, value, headers)
    of_batch: int = DefaultRecordBatchBuilder.HEADER_STRUCT.size
    return of_batch + of_record


def fits(key: bytes | None, value: bytes | None, headers: Headers, limit: int) -> bool:
    """Whether a topic with that limit accepts the record. The check is cheap unless the size is near the
    limit.
    """
    room = limit - ROOM_BYTES - len(key or b"") - len(value or b"") - headers_bound(headers)
    return room >= 0 or batch_bytes(key, value, headers) <= limit


def headers_bound(headers: Headers) -> int:
    """An upper bound of the bytes of the headers in a record."""
    return sum(
        HEADER_LENGTHS_BYTES + CHARACTER_BYTES * len(name) + len(content or b"") for name, content in headers
    )
