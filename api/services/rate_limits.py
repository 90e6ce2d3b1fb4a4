"""The limits of a key: requests in a time, and ads on a day.

The rate is counted by each process for itself. The quota is a row of PostgreSQL, which all processes share.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from api.services.async_batcher import AsyncBatcher
from db.api_keys import ApiKey, Taken, Wanted
from db.errors import RowLocked

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


class Quotas:
    """The daily quotas of keys, exact over all processes. For one event loop.

    Parameters:
      take: Takes ads from quotas, each key once; see :func:`db.api_keys.take_in_loop`.
    """

    def __init__(
        self, take: Callable[[Sequence[Wanted]], Awaitable[dict[str, Taken]]], *, max_waiting: int
    ) -> None:
        self._take_in_database = take
        self._batcher: AsyncBatcher[Wanted, tuple[bool, int]] = AsyncBatcher(
            self._take_all, max_concurrency=1, max_items=500, max_waiting=max_waiting
        )

    async def take(self, key_id: str, quota: int, count: int) -> Limit:
        """Take ``count`` ads from the quota of a key; return its state.

        Raises:
          LimitExceeded: There are fewer left. None is taken.
        """
        is_granted, used = await self._batcher.answer(Wanted(key_id, quota, count))
        limit = Limit("quota", quota, DAY_S, max(0, quota - used), _seconds_left_today(), "ads")
        if not is_granted:
            raise LimitExceeded(
                f"The key may hand in {quota} ads a day in UTC, and has {limit.remaining} left for today",
                limit,
                limit.reset_s,
            )
        return limit

    async def give_back(self, key_id: str, quota: int, count: int) -> None:
        """Return ads that were not handed in."""
        await self._batcher.answer(Wanted(key_id, quota, -count))

    def fail_all(self, error: Exception) -> None:
        """Raise the error for every call that waits."""
        self._batcher.fail_all(error)

    async def _take_all(self, calls: list[Wanted]) -> list[tuple[bool, int] | Exception]:
        """Take for all calls in one statement, and distribute what was granted in their order."""
        wanted: dict[str, Wanted] = {}
        for one in calls:
            before = wanted.get(one.key_id)
            count = one.count + (before.count if before else 0)
            wanted[one.key_id] = Wanted(one.key_id, one.quota_per_day, count)
        taken = await self._take_each(list(wanted.values()))
        # What was given back in this batch is granted to others in it, too.
        left = {
            key_id: found.granted
            + sum(-one.count for one in calls if one.key_id == key_id and one.count < 0)
            for key_id, found in taken.items()
            if isinstance(found, Taken)
        }
        granted = []
        for one in calls:
            is_granted = one.count <= left.get(one.key_id, 0)
            if is_granted and one.count > 0:
                left[one.key_id] -= one.count
            granted.append(is_granted)
        unused = [
            Wanted(key_id, wanted[key_id].quota_per_day, -count) for key_id, count in left.items() if count
        ]
        if unused:
            returned = await self._take_each(unused)
            # Ads whose row is locked meanwhile stay taken.
            taken |= {key_id: found for key_id, found in returned.items() if isinstance(found, Taken)}
        return [
            (is_granted, found.used) if isinstance(found := taken[one.key_id], Taken) else found
            for one, is_granted in zip(calls, granted, strict=True)
        ]

    async def _take_each(self, wanted: Sequence[Wanted]) -> dict[str, Taken | RowLocked]:
        """Take for all keys. A number that another transaction keeps locked fails its own key only."""
        taken: dict[str, Taken | RowLocked] = {}
        try:
            taken.update(await self._take_in_database(wanted))
            return taken
        except RowLocked as error:
            if len(wanted) == 1:
                return {wanted[0].key_id: error}
        deadline_s = time.monotonic() + SINGLY_S
        for one in wanted:
            if time.monotonic() > deadline_s:
                taken[one.key_id] = RowLocked("too many keys of one batch met a lock")
                continue
            try:
                taken.update(await self._take_in_database([one]))
            except RowLocked as error:
                taken[one.key_id] = error
        return taken


def _seconds_left_today() -> int:
    return DAY_S - int(time.time()) % DAY_S
