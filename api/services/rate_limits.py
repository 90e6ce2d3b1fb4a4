"""The limits of a key: requests in a time, and ads on a day.

The rate is counted by each process for itself. The quota is a row of PostgreSQL, which all processes share.
"""

import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol, TypeVar

from api.services.async_batcher import AsyncBatcher
from db.api_keys import ApiKey, Taken, Unused, Wanted
from db.errors import RowLocked

Item = TypeVar("Item")
Place = TypeVar("Place", bound=Hashable)
Number = TypeVar("Number")

DAY_S = 86_400
#: The time for the keys of a batch that met a lock, one by one. Each waits for a lock for a moment.
SINGLY_S = 2.0


@dataclass(slots=True)  # frozen would take four times as long, for each request
class Limit:
    """The state of one limit, as draft-ietf-httpapi-ratelimit-headers-11 shows it.

    Attributes:
      name: Of the policy.
      quota, window_s: Of the policy: so much in so many seconds.
      unit: What is counted, for ads; requests are the draft's default.
      remaining: How much of it is left.
      reset_s: The seconds until all of it is left.
    """

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int
    unit: str = ""

    def with_more(self, count: int) -> "Limit":
        """Return the limit with ``count`` more of it left."""
        return replace(self, remaining=min(self.quota, self.remaining + count))

    @property
    def policy(self) -> str:
        unit = f';qu="{self.unit}"' if self.unit else ""
        return f'"{self.name}";q={self.quota}{unit};w={self.window_s}'

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.remaining};t={self.reset_s}'


class LimitExceeded(Exception):
    """A key has used a limit up.

    Attributes:
      limit: That limit.
      retry_after_s: The seconds after which the same request may be accepted.
    """

    def __init__(self, text: str, limit: Limit, retry_after_s: int) -> None:
        super().__init__(text)
        self.limit = limit
        self.retry_after_s = retry_after_s


class Rates:
    """The rate of each key, as a bucket of tokens that fills continuously. For one process."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._buckets: dict[str, tuple[float, float]] = {}  # the tokens, and when they were counted

    def take(self, key: ApiKey) -> Limit | None:
        """Count a request; return the state of the key's rate, None when it has none.

        Raises:
          LimitExceeded: The request is one too many, and is not counted.
        """
        if key.rate_requests is None or key.rate_window_s is None:
            return None
        now_s = self._clock_s()
        capacity, per_s = key.rate_requests, key.rate_requests / key.rate_window_s
        tokens, counted_at_s = self._buckets.get(key.key_id, (float(capacity), now_s))
        tokens = min(capacity, tokens + (now_s - counted_at_s) * per_s)
        is_allowed = tokens >= 1
        if is_allowed:
            tokens -= 1
        self._buckets[key.key_id] = tokens, now_s
        reset_s = math.ceil((capacity - tokens) / per_s)
        limit = Limit("rate", capacity, key.rate_window_s, int(tokens), reset_s)
        if not is_allowed:
            raise LimitExceeded(
                f"The key may make {capacity} requests in {key.rate_window_s} s; ask again later",
                limit,
                max(1, math.ceil((1 - tokens) / per_s)),
            )
        return limit


class QuotaTable(Protocol):
    """The numbers in PostgreSQL. Each method raises DatabaseError.

    Of several numbers, those that somebody has locked are left out; a single one is RowLocked.
    """

    async def take(self, wanted: Sequence[Wanted]) -> Mapping[str, Taken]: ...
    async def give_back(self, unused: Sequence[Unused]) -> Mapping[tuple[str, date], int]: ...


@dataclass(frozen=True, slots=True)
class TakenAds:
    """Ads that were taken from a quota.

    Attributes:
      limit: The state of the quota.
      day: The day in UTC from whose quota they were taken.
    """

    key_id: str
    limit: Limit
    day: date


class Quotas:
    """The daily quotas of keys, exact over all processes. For one event loop.

    Parameters:
      max_waiting: Calls that wait, of each method.
    """

    def __init__(self, table: QuotaTable, *, max_waiting: int) -> None:
        self._table = table
        self._takes: AsyncBatcher[Wanted, tuple[bool, Taken]] = AsyncBatcher(
            self._take_all, max_concurrency=1, max_items=500, max_waiting=max_waiting
        )
        self._returns: AsyncBatcher[Unused, int] = AsyncBatcher(
            self._give_back_all, max_concurrency=1, max_items=500, max_waiting=max_waiting
        )

    async def take(self, key_id: str, quota: int, count: int) -> TakenAds:
        """Take ``count`` ads from the quota of a key.

        Raises:
          LimitExceeded: There are fewer left. None is taken.
        """
        is_granted, taken = await self._takes.answer(Wanted(key_id, quota, count))
        limit = Limit("quota", quota, DAY_S, max(0, quota - taken.used), _seconds_left_today(), "ads")
        if not is_granted:
            raise LimitExceeded(
                f"The key may hand in {quota} ads a day in UTC, and has {limit.remaining} left for today",
                limit,
                limit.reset_s,
            )
        return TakenAds(key_id, limit, taken.day)

    async def give_back(self, taken: TakenAds, count: int) -> None:
        """Return ads that were not handed in, to the day from which they were taken."""
        await self._returns.answer(Unused(taken.key_id, taken.day, count))

    def fail_all(self, error: Exception) -> None:
        """Raise the error for every call that waits."""
        self._takes.fail_all(error)
        self._returns.fail_all(error)

    async def _take_all(self, calls: list[Wanted]) -> list[tuple[bool, Taken] | Exception]:
        """Take for all calls in one statement, and distribute what was granted in their order."""
        wanted: dict[str, Wanted] = {}
        for one in calls:
            before = wanted.get(one.key_id)
            count = one.count + (before.count if before else 0)
            wanted[one.key_id] = Wanted(one.key_id, one.quota_per_day, count)
        taken = await _of_each_key(self._table.take, list(wanted.values()), lambda one: one.key_id)
        left = {key_id: found.granted for key_id, found in taken.items() if isinstance(found, Taken)}
        granted = []
        for one in calls:
            is_granted = one.count <= left.get(one.key_id, 0)
            if is_granted:
                left[one.key_id] -= one.count
            granted.append(is_granted)
        unused = [
            Unused(key_id, found.day, left[key_id])
            for key_id, found in taken.items()
            if isinstance(found, Taken) and left[key_id]
        ]
        used = await self._give_back(unused) if unused else {}
        for (key_id, _), now_used in used.items():
            found = taken[key_id]
            # Ads whose row is locked meanwhile stay taken.
            if isinstance(found, Taken) and isinstance(now_used, int):
                taken[key_id] = replace(found, used=now_used)
        return [
            (is_granted, found) if isinstance(found := taken[one.key_id], Taken) else found
            for one, is_granted in zip(calls, granted, strict=True)
        ]

    async def _give_back_all(self, calls: list[Unused]) -> list[int | Exception]:
        sums: dict[tuple[str, date], int] = {}
        for one in calls:
            sums[one.key_id, one.day] = sums.get((one.key_id, one.day), 0) + one.count
        used = await self._give_back([Unused(*place, count) for place, count in sums.items()])
        return [used.get((one.key_id, one.day), 0) for one in calls]

    async def _give_back(self, unused: Sequence[Unused]) -> dict[tuple[str, date], int | RowLocked]:
        return await _of_each_key(self._table.give_back, unused, lambda one: (one.key_id, one.day))


async def _of_each_key(
    execute: Callable[[Sequence[Item]], Awaitable[Mapping[Place, Number]]],
    items: Sequence[Item],
    place: Callable[[Item], Place],
) -> dict[Place, Number | RowLocked]:
    """Execute one statement for all items, and one for each of those whose number it left out as locked.

    A number that somebody keeps locked fails its own item only.
    """
    found: dict[Place, Number | RowLocked] = {}
    try:
        found.update(await execute(items))
    except RowLocked as error:
        if len(items) == 1:
            return {place(items[0]): error}
    deadline_s = time.monotonic() + SINGLY_S
    for one in items if len(items) > 1 else ():
        if place(one) in found:
            continue
        if time.monotonic() > deadline_s:
            found[place(one)] = RowLocked("too many keys of one batch met a lock")
            continue
        try:
            found.update(await execute([one]))
        except RowLocked as error:
            found[place(one)] = error
    return found


def _seconds_left_today() -> int:
    return DAY_S - int(time.time()) % DAY_S
