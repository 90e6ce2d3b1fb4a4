"""The API keys as an API process knows them.

A request costs no query: the process reads the keys into memory, and reads them again after a second. A
request is never answered by keys that are older than :data:`MAX_AGE_S`, so a revoked key is refused
everywhere by then. Without PostgreSQL the keys are too old after that time, and requests with a key are
refused like those that need PostgreSQL.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from db.api_keys import ApiKey
from db.errors import DatabaseBusy, RowUnreadable
from submissions.callers import Caller, PresentedKey, all_scopes

logger = logging.getLogger(__name__)

#: Older keys are read again, beside the requests.
FRESH_S = 1.0
#: Requests wait until older keys have been read again.
MAX_AGE_S = 2.0
#: The time from the begin of one read to that of the next one. A request with an unknown key waits for a
#: read: the key may be new. Requests with invented keys cause no more reads than this allows.
UNKNOWN_INTERVAL_S = 0.2
#: The time in which PostgreSQL must have answered.
READ_TIMEOUT_S = 3.0
#: Headers that are remembered. A client can write one key in many ways.
MAX_CHECKED = 10_000


class KeyReader(Protocol):
    """Reads the keys. Each method raises DatabaseError."""

    async def fingerprint(self) -> tuple[str | None, datetime]: ...
    async def keys(self) -> Sequence[ApiKey]: ...


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key and its caller.

    Attributes:
      expires_at_s: By this process's monotonic clock; None for never.
    """

    key: ApiKey
    caller: Caller
    expires_at_s: float | None


class KeyRing:
    """The keys of all clients. For one event loop."""

    def __init__(self, reader: KeyReader, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock_s = clock_s
        self._keys: Mapping[str, KnownKey] = {}
        self._checked: dict[bytes, KnownKey] = {}
        self._fingerprint: str | None = None
        self._unreadable: str | None = None  # the fingerprint of rows that could not be read
        self._read_at_s = float("-inf")  # when the last read began whose result is known
        self._began_at_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def checked(self, header_digest: bytes) -> KnownKey | None:
        """Return the valid key whose header was checked before; None for any other header.

        Parameters:
          header_digest: SHA-256 of the header. Nobody can choose one, so a look-up tells no part of a key.
        """
        age_s = self._clock_s() - self._read_at_s
        if age_s > FRESH_S:
            if age_s > MAX_AGE_S:
                return None
            self._begin_to_read()
        known = self._checked.get(header_digest)
        return known if known is not None and self.is_valid(known) else None

    def note_checked(self, header_digest: bytes, known: KnownKey) -> None:
        """Note that a header has a valid key, until keys change."""
        if len(self._checked) >= MAX_CHECKED:
            self._checked.clear()
        if self._keys.get(known.key.key_id) is known:
            self._checked[header_digest] = known

    async def find(self, presented: PresentedKey) -> KnownKey | None:
        """Return the key, which may be revoked or expired; None for an unknown key or a wrong secret.

        Raises:
          DatabaseUnavailable: The known keys are too old, and PostgreSQL does not tell the present ones.
        """
        asked_at_s = self._clock_s()
        age_s = asked_at_s - self._read_at_s
        if age_s > MAX_AGE_S:
            await self._read_since(asked_at_s - MAX_AGE_S)
        elif age_s > FRESH_S:
            self._begin_to_read()
        known = self._keys.get(presented.key_id)
        if known is None:
            await self._read_since(asked_at_s)
            known = self._keys.get(presented.key_id)
        return known if presented.matches(None if known is None else known.key.digest) else None

    def is_valid(self, known: KnownKey) -> bool:
        """Return whether a key is neither revoked nor expired."""
        is_over = known.expires_at_s is not None and self._clock_s() >= known.expires_at_s
        return known.key.revoked_at is None and not is_over

    async def _read_since(self, begin_s: float) -> None:
        """Wait for the result of a read that began after ``begin_s``."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                while self._read_at_s < begin_s:
                    if self._reading is None:
                        await asyncio.sleep(max(0.0, self._began_at_s + UNKNOWN_INTERVAL_S - self._clock_s()))
                    await asyncio.shield(self._begin_to_read())
        except TimeoutError as error:
            raise DatabaseBusy("the API keys could not be read in time") from error

    def _begin_to_read(self) -> asyncio.Task[None]:
        """Return the read that is under way, and begin one unless there is one."""
        if self._reading is None:
            self._began_at_s = self._clock_s()
            self._reading = asyncio.create_task(self._read(self._began_at_s))
            self._reading.add_done_callback(self._end_reading)
        return self._reading

    def _end_reading(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # raised for those that wait; Database has logged it

    async def _read(self, began_at_s: float) -> None:
        fingerprint, now = await self._reader.fingerprint()
        if fingerprint != self._fingerprint:
            # A key that changes after the fingerprint is read again next time.
            try:
                keys = await self._reader.keys()
            except RowUnreadable as error:
                if fingerprint != self._unreadable:
                    logger.error(
                        "The API keys cannot be read; requests are answered 503 until the row is mended: %s",
                        error,
                    )
                self._unreadable = fingerprint
                raise
            self._keys = {key.key_id: _known(key, now, began_at_s) for key in keys}
            self._checked.clear()
            self._fingerprint = fingerprint
        self._read_at_s = began_at_s


def _known(key: ApiKey, now: datetime, now_s: float) -> KnownKey:
    """Return the key. PostgreSQL's clock decides when it expires."""
    expires_at_s = None if key.expires_at is None else now_s + (key.expires_at - now).total_seconds()
    caller = Caller(key.client_id, key.key_id, all_scopes(key.scopes), key.quota_per_day)
    return KnownKey(key, caller, expires_at_s)
