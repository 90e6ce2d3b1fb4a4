"""The commit metadata: a versioned, compact text beside the committed offset.

    dk1.<crc32, 8 hex digits>.<base64url without padding of the body>

The body is a run of unsigned LEB128 varints (https://en.wikipedia.org/wiki/LEB128), all offsets relative to
the committed one:

    flags            bit 0: clean, the owner handed the partition over (revoked or closed, not crashed)
                     bit 1: the body contains the lanes
    span             highest delivered offset - committed offset + 1; 0 when nothing at or above it was
    n, n * gap       the incomplete offsets, each as the distance to the one before it (the first to the
                     committed one)
    m, m * (i, c)    crash counts: the i-th incomplete offset has 2 * count, + 1 when it was running, as its c
    lanes            if bit 1 is set: the ends of the lanes topic's partitions and the waiting messages (see
                     ``committed_lanes``)
    log start        distance of the log start, as the owner knows it, from the committed offset; left out
                     while that is not positive, the usual case

An incomplete offset costs about 2.5 characters, so 1,000 of them fit well below Kafka's default limit.

A version of the broker without bit 1 treats a text with it as unreadable and replays from the committed
offset: completed records above that offset run again, and no record is skipped.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from . import committed_lanes
from .committed_lanes import CommittedLanes

#: Kafka's default for offset.metadata.max.bytes.
MAX_METADATA_CHARS = 4096
_PREFIX = "dk1."
_CLEAN = 1
_LANES = 2
#: Kafka's offsets are signed 64-bit integers.
_MAX_OFFSET = 2**63 - 1


class UnreadableMetadata(ValueError):
    """The text is foreign, corrupt or of a newer version. The committed offset is still valid."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The crash count of an incomplete offset, and its running mark.

    Attributes:
      crashes: The number of unclean handovers at which the offset had a running mark, or may have run.
      running: Whether the record was about to run, or ran, at the time of the commit.
    """

    crashes: int
    running: bool


@dataclass(frozen=True, slots=True)
class CommitState:
    """The committed state of a partition: the content of one commit.

    Attributes:
      next_offset: The committed offset.
      highest: The highest delivered offset; ``next_offset - 1`` when none at or above ``next_offset`` was
        delivered.
      incomplete: The offsets in ``[next_offset, highest]`` that are not complete, ascending.
      clean: Whether the owner handed the partition over.
      suspicions: Suspicions by offset; each offset is one of ``incomplete``.
      log_start: The log start at the owner's last check, if it is above ``next_offset``; otherwise 0. Flushed
        records below it that no thread had begun are not in ``incomplete``.
      leader_epoch: The leader epoch of the record at ``highest``, -1 when it is not known. Kafka's commits
        have a field for it, so it is not in the text. It may be too low when ``highest`` is not a record and
        the records below it were deleted; no record is left there that could be taken for complete.
      lanes: The owner's knowledge of the lanes topic; None when the commit has none.
      has_metadata: Whether the commit has metadata that this version reads. Without, only its offset is
        known.
    """

    next_offset: int
    highest: int
    incomplete: tuple[int, ...] = ()
    clean: bool = False
    suspicions: Mapping[int, Suspicion] = field(default_factory=dict)
    log_start: int = 0
    leader_epoch: int = -1
    lanes: CommittedLanes | None = None
    has_metadata: bool = field(default=True, compare=False)

    def is_complete(self, offset: int) -> bool:
        """Whether the record at ``offset`` is complete."""
        return offset < self.next_offset or (offset <= self.highest and offset not in self.incomplete)


def encode(state: CommitState) -> str:
    """Encode ``state``. The result may exceed MAX_METADATA_CHARS; the caller checks that."""
    body = bytearray()
    _put(body, (_CLEAN if state.clean else 0) | (0 if state.lanes is None else _LANES))
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
    if state.lanes is not None:
        for number in committed_lanes.numbers_of(state.lanes, state.highest):
            _put(body, number)
    if state.log_start > state.next_offset:
        _put(body, state.log_start - state.next_offset)
    text = base64.urlsafe_b64encode(bytes(body)).rstrip(b"=").decode()
    return f"{_PREFIX}{zlib.crc32(text.encode()):08x}.{text}"


def decode(next_offset: int, text: str) -> CommitState:
    """Decode the text that :func:`encode` wrote beside ``next_offset``.

    Raises:
      UnreadableMetadata: When the text is anything else. A replay from ``next_offset`` is then correct.
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
    lanes = committed_lanes.read(numbers, highest) if flags & _LANES else None
    distance = next(numbers, None)
    log_start = 0 if distance is None else next_offset + distance
    if flags & ~(_CLEAN | _LANES) or next(numbers, None) is not None:
        raise ValueError("there is more in it")
    if len(set(incomplete)) < len(incomplete) or max([highest, *incomplete]) > min(highest, _MAX_OFFSET):
        raise ValueError("it contradicts itself")
    if distance == 0 or log_start > _MAX_OFFSET:
        raise ValueError("its log start is invalid")
    clean = bool(flags & _CLEAN)
    return CommitState(next_offset, highest, tuple(incomplete), clean, suspicions, log_start, lanes=lanes)


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
