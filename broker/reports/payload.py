"""The encoding of the values in the topics of reports and of history: JSON, compressed above a size.

The first byte distinguishes the two forms: ``{`` begins JSON, and 0x78 a zlib stream (RFC 1950) of JSON.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

#: A shorter value is written as it is, so that Kafka's own tools show it.
COMPRESS_ABOVE_BYTES = 512
#: The greatest size of a decompressed value. A foreign value must not fill the reader's memory.
MAX_BYTES = 64 * 1024 * 1024
_ZLIB = 0x78
_FASTEST = 1


class UnreadablePayload(ValueError):
    """A value that is neither JSON nor compressed JSON, or that is not an object."""


def pack(body: Mapping[str, Any]) -> bytes:
    """Encode an object."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    return zlib.compress(text, _FASTEST) if len(text) > COMPRESS_ABOVE_BYTES else text


def unpack(value: bytes) -> dict[str, Any]:
    """Decode an object.

    Raises:
      UnreadablePayload: When ``value`` is anything else.
    """
    try:
        body = json.loads(_decompressed(value) if value[:1] == bytes([_ZLIB]) else value)
    except (ValueError, RecursionError, zlib.error) as e:
        raise UnreadablePayload(f"{value[:40]!r} is neither JSON nor compressed JSON: {e}") from e
    if not isinstance(body, dict):
        raise UnreadablePayload(f"{value[:40]!r} is not a JSON object")
    return body


def _decompressed(value: bytes) -> bytes:
    stream = zlib.decompressobj()
    text = stream.decompress(value, MAX_BYTES)
    if not stream.eof:
        raise ValueError(f"it is cut off, or has more than {MAX_BYTES} bytes")
    return text
