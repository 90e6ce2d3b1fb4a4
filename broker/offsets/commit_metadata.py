"""What a commit says beside its offset: a versioned, compact text in Kafka's commit metadata.

    dk1.<crc32, 8 hex digits>.<base64url without padding of the body>

The body is a run of unsigned LEB128 varints (https://en.wikipedia.org/wiki/LEB128), all offsets relative to
the committed one:

    flags            bit 0: the owner handed the partition over in good order (revoked or closed, not crashed)
    span             highest delivered offset - committed offset + 1; 0 when nothing at or above it was
    n, n * gap       the incomplete offsets, each as the distance to the one before it (the first to the
                     committed one)
    m, m * (i, c)    crash counts: the i-th incomplete offset has 2 * count, + 1 when it was running, as its c
    log start        distance of the log's start, as the owner knows it, from the committed offset; left out
                     while that is not positive, as it nearly always is

A random hole costs about 2.5 characters, so 1,000 holes fit well below Kafka's default limit.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Kafka's default for offset.metadata.max.bytes.
MAX_METADATA_CHARS = 4096
_PREFIX = "dk1."
_CLEAN = 1
#: Kafka's offsets are signed 64-bit integers.
_MAX_OFFSET = 2**63 - 1


class UnreadableMetadata(ValueError):
    """The text is foreign, corrupt or of a newer version. The committed offset still holds."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How often a delivery's worker died with it, and whether it was running when this was committed."""

    crashes: int
    running: bool


@dataclass(frozen=True, slots=True)
class CommitState:
    """All that one commit says of a partition.

    Attributes:
      next_offset: The committed offset.
      highest: The highest delivered offset; ``next_offset - 1`` when nothing at or above ``next_offset`` was.
      incomplete: The offsets in ``[next_offset, highest]`` that are not complete, ascending.
      clean: Whether the owner handed the partition over in good order.
      suspicions: Crash counts by offset; each offset is one of ``incomplete``.
      log_start: Where the log began when the owner last looked, if that is above ``next_offset``, and
        otherwise 0. What a flush has deleted below it and no thread had begun is not in ``incomplete``.
      leader_epoch: Of the record at ``highest``, -1 when it is not known. Kafka's commits have a field of
        their own for it, so it is not in the text. It may be too low where ``highest`` is no record and what
        is below it was deleted: nothing is left there that could be taken for done.
    """

    next_offset: int
    highest: int
    incomplete: tuple[int, ...] = ()
    clean: bool = False
    suspicions: Mapping[int, Suspicion] = field(default_factory=dict)
    log_start: int = 0
    leader_epoch: int = -1


def encode(state: CommitState) -> str:
    """Encode ``state``; the result may exceed MAX_METADATA_CHARS, and the caller decides what then."""
    body = bytearray()
    _put(body, _CLEAN if state.clean else 0)
    _put(body, state.highest - state.next_offset + 1)
    _put(body, len(state.incomplete))
    previous = state.next_offset
    for offset in state.incomplete:
        _put(body, offset - previous)
        previous = offset
    _put(body, len(state.suspicions))
    if state.suspicions:
        index_of = {offset: index for index, offset in enumerate(state.incomplete)}
        for offset, suspicion in sorted(state.suspicions.items()):
            _put(body, index_of[offset])
            _put(body, 2 * suspicion.crashes + suspicion.running)
    if state.log_start > state.next_offset:
        _put(body, state.log_start - state.next_offset)
    text = base64.urlsafe_b64encode(bytes(body)).rstrip(b"=").decode()
    return f"{_PREFIX}{zlib.crc32(text.encode()):08x}.{text}"


def decode(next_offset: int, text: str) -> CommitState:
    """Decode what :func:`encode` wrote beside ``next_offset``.

    Raises:
      UnreadableMetadata: When the text is anything else. Replaying from ``next_offset`` is then always right.
    """
    if not text.startswith(_PREFIX):
        raise UnreadableMetadata(f"{text[:40]!r} was not written by this version of the broker")
    checksum, _, body = text.removeprefix(_PREFIX).partition(".")
    try:
        if checksum != f"{zlib.crc32(body.encode()):08x}":
            raise ValueError("its checksum does not match")
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        return _parse(next_offset, _varints(packed))
    except (StopIteration, IndexError, ValueError) as e:
        raise UnreadableMetadata(
            f"{text[:40]!r} is damaged, or says more than this version of the broker understands: {e!r}"
        ) from e


def _parse(next_offset: int, numbers: Iterator[int]) -> CommitState:
    flags = next(numbers)
    highest = next_offset + next(numbers) - 1
    incomplete = []
    previous = next_offset
    for _ in range(next(numbers)):
        previous += next(numbers)
        incomplete.append(previous)
    suspicions = {}
    for _ in range(next(numbers)):
        offset, crashes = incomplete[next(numbers)], next(numbers)
        suspicions[offset] = Suspicion(crashes // 2, bool(crashes % 2))
    distance = next(numbers, None)
    log_start = 0 if distance is None else next_offset + distance
    if flags & ~_CLEAN or next(numbers, None) is not None:
        raise ValueError("there is more in it")
    if len(set(incomplete)) < len(incomplete) or max([highest, *incomplete]) > min(highest, _MAX_OFFSET):
        raise ValueError("it contradicts itself")
    if distance == 0 or log_start > _MAX_OFFSET:
        raise ValueError("its log's start is none")
    return CommitState(next_offset, highest, tuple(incomplete), bool(flags & _CLEAN), suspicions, log_start)


def _put(body: bytearray, number: int) -> None:
    while number > 0x7F:
        body.append(number & 0x7F | 0x80)
        number >>= 7
    body.append(number)


def _varints(body: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("the last number has no end")
