"""Keys and their limits, without servers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from api.services import key_ring
from api.services.key_ring import KeyRing
from api.services.rate_limits import LimitExceeded, Quotas, Rates
from db.api_keys import ApiKey, Taken, Unused, Wanted
from db.errors import DatabaseAway, DatabaseUnavailable, RowLocked, RowUnreadable
from settings import keys_are_required
from submissions.callers import SCOPES, PresentedKey, all_scopes, new_key, parse_key

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def an_api_key(presented: PresentedKey, **fields: object) -> ApiKey:
    key = ApiKey(
        key_id=presented.key_id,
        client_id=1,
        client="shop",
        digest=presented.digest,
        scopes=("read",),
        rate_requests=None,
        rate_window_s=None,
        quota_per_day=None,
        created_at=NOW,
        created_by="somebody",
        expires_at=None,
        revoked_at=None,
        revoked_by=None,
        reason=None,
    )
    return replace(key, **fields)  # type: ignore[arg-type]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Table:
    """The keys in PostgreSQL."""

    def __init__(self, *keys: ApiKey) -> None:
        self.rows = list(keys)
        self.reads = 0
        self.is_away = False
        self.is_unreadable = False

    async def fingerprint(self) -> tuple[str | None, datetime]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseAway("gone")
        return repr(self.rows), NOW

    async def keys(self) -> Sequence[ApiKey]:
        if self.is_unreadable:
            raise RowUnreadable("year 11026 is out of range")
        return list(self.rows)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("setting", "address", "required"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "127.8.0.1", False),
        ("auto", "::1", False),
        ("auto", "0.0.0.0", True),
        ("auto", "::", True),
        ("auto", "::ffff:10.0.0.1", True),
        ("auto", "192.168.0.7", True),
        ("auto", "fe80::1%eth0", True),
        ("auto", "", True),
        ("auto", "somewhere", True),
        ("on", "127.0.0.1", True),
        ("off", "0.0.0.0", False),
    ],
)
def test_an_address_that_is_not_loopback_needs_keys_by_default(
    setting: str, address: str, required: bool
) -> None:
    assert keys_are_required(setting, address) is required  # type: ignore[arg-type]


def test_a_new_key_is_read_as_the_key_that_is_kept() -> None:
    text, kept = new_key()
    presented = parse_key(text)
    assert presented is not None
    assert (presented.key_id, presented.digest) == (kept.key_id, kept.digest)
    assert presented.matches(kept.digest)
    assert text not in repr(presented)
    assert kept.digest.hex() not in repr(kept)


@pytest.mark.parametrize("change", ["", " {}", "{} ", "{}x", "x{}", "{}\n", "{}=", "М{}"])
def test_a_text_of_another_form_is_no_key(change: str) -> None:
    assert parse_key(change.format(new_key()[0])) is None


def test_the_secret_of_another_key_does_not_match() -> None:
    (_, mine), (_, other) = new_key(), new_key()
    assert not mine.matches(other.digest)
    assert not mine.matches(None)
    assert not PresentedKey("abc", bytes(32)).matches(None)


def test_admin_includes_every_scope_and_review_includes_reading() -> None:
    assert all_scopes(("admin",)) == set(SCOPES)
    assert all_scopes(("review", "items")) == {"review", "read", "items"}


def test_requests_within_a_second_read_the_keys_once(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        for _ in range(5):
            assert await ring.find(mine) is not None
            clock.now_s += key_ring.FRESH_S / 5

    asyncio.run(ask())
    assert table.reads == 1


def test_a_revoked_key_is_known_as_revoked_once_the_known_keys_are_too_old(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        found = await ring.find(mine)
        assert found is not None
        assert ring.is_valid(found)
        table.rows = [an_api_key(mine, revoked_at=NOW)]
        clock.now_s += key_ring.MAX_AGE_S + 0.01
        found = await ring.find(mine)
        assert found is not None
        assert not ring.is_valid(found)

    asyncio.run(ask())


def test_a_header_that_was_checked_is_checked_again_once_keys_change(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        found = await ring.find(mine)
        assert found is not None
        ring.note_checked(b"header", found)
        assert ring.checked(b"header") is found
        assert ring.checked(b"another") is None
        clock.now_s += key_ring.MAX_AGE_S + 0.01
        assert ring.checked(b"header") is None  # too old to be trusted
        table.rows.append(an_api_key(new_key()[1]))
        await ring.find(mine)
        assert ring.checked(b"header") is None
        ring.note_checked(b"header", found)  # of the keys before
        assert ring.checked(b"header") is None

    asyncio.run(ask())


def test_a_checked_header_expires_with_its_key(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine, expires_at=NOW + timedelta(seconds=0.5)))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        found = await ring.find(mine)
        assert found is not None
        ring.note_checked(b"header", found)
        clock.now_s += 0.6
        assert ring.checked(b"header") is None

    asyncio.run(ask())


def test_a_key_that_was_just_created_is_found(clock: Clock) -> None:
    (_, first), (_, second) = new_key(), new_key()
    table = Table(an_api_key(first))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        assert await ring.find(first) is not None
        table.rows.append(an_api_key(second))
        clock.now_s += key_ring.UNKNOWN_INTERVAL_S
        assert await ring.find(second) is not None

    asyncio.run(ask())


def test_many_requests_with_invented_keys_share_a_read(clock: Clock) -> None:
    table = Table()

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        invented = [new_key()[1] for _ in range(100)]
        assert await asyncio.gather(*map(ring.find, invented)) == [None] * 100

    asyncio.run(ask())
    assert table.reads <= 2


def test_without_postgresql_a_request_is_not_answered_by_old_keys(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        await ring.find(mine)
        table.is_away = True
        clock.now_s += key_ring.MAX_AGE_S - 0.01
        assert await ring.find(mine) is not None
        clock.now_s += 0.02 + key_ring.UNKNOWN_INTERVAL_S
        with pytest.raises(DatabaseUnavailable):
            await ring.find(mine)
        table.is_away = False
        clock.now_s += key_ring.UNKNOWN_INTERVAL_S
        assert await ring.find(mine) is not None

    asyncio.run(ask())


def test_keys_that_cannot_be_read_are_an_outage_that_is_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine))

    async def ask() -> None:
        ring = KeyRing(table, clock_s=clock)
        table.is_unreadable = True
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await ring.find(mine)
            clock.now_s += key_ring.UNKNOWN_INTERVAL_S
        table.is_unreadable = False
        assert await ring.find(mine) is not None

    asyncio.run(ask())
    assert [record.getMessage() for record in caplog.records] == [
        "The API keys cannot be read; requests are answered 503 until the row is mended:"
        " year 11026 is out of range"
    ]


def test_a_key_expires_by_the_clock_of_postgresql(clock: Clock) -> None:
    _, mine = new_key()
    table = Table(an_api_key(mine, expires_at=NOW + timedelta(seconds=60)))

    async def ask() -> list[bool]:
        ring = KeyRing(table, clock_s=clock)
        valid = []
        for _ in range(2):
            found = await ring.find(mine)
            assert found is not None
            valid.append(ring.is_valid(found))
            clock.now_s += 60.5
        return valid

    assert asyncio.run(ask()) == [True, False]


def test_a_rate_fills_up_evenly(clock: Clock) -> None:
    key = an_api_key(new_key()[1], rate_requests=2, rate_window_s=10)
    rates = Rates(clock_s=clock)
    assert [limit.state for limit in (rates.take(key), rates.take(key)) if limit] == [
        '"rate";r=1;t=5',
        '"rate";r=0;t=10',
    ]
    with pytest.raises(LimitExceeded) as refused:
        rates.take(key)
    assert refused.value.retry_after_s == 5
    assert refused.value.limit.policy == '"rate";q=2;w=10'
    clock.now_s += 5
    assert rates.take(key)
    with pytest.raises(LimitExceeded):
        rates.take(key)


class Numbers:
    """The rows of quotas, as PostgreSQL updates them. Of several rows, the locked ones are left out."""

    def __init__(self) -> None:
        self.day = date(2026, 1, 31)
        self.rows: dict[tuple[str, date], int] = {}
        self.statements = 0
        self.locked: set[str] = set()

    @property
    def used(self) -> int:
        return self.rows["a", self.day]

    async def take(self, wanted: Sequence[Wanted]) -> dict[str, Taken]:
        self._begin([one.key_id for one in wanted])
        taken = {}
        for one in wanted:
            if one.key_id in self.locked:
                continue
            used = self.rows.get((one.key_id, self.day), 0)
            granted = min(one.count, max(one.quota_per_day - used, 0))
            self.rows[one.key_id, self.day] = used + granted
            taken[one.key_id] = Taken(granted, used + granted, self.day)
        return taken

    async def give_back(self, unused: Sequence[Unused]) -> dict[tuple[str, date], int]:
        self._begin([one.key_id for one in unused])
        for one in unused:
            self.rows[one.key_id, one.day] -= one.count
        return {(one.key_id, one.day): self.rows[one.key_id, one.day] for one in unused}

    def _begin(self, key_ids: Sequence[str]) -> None:
        self.statements += 1
        if len(key_ids) == 1 and self.locked.intersection(key_ids):
            raise RowLocked("canceling statement due to lock timeout")


def test_concurrent_requests_take_from_a_quota_in_one_statement() -> None:
    numbers = Numbers()

    async def ask() -> list[int]:
        quotas = Quotas(numbers, max_waiting=100)
        taken = await asyncio.gather(*(quotas.take("a", 100, 3) for _ in range(20)))
        return [one.limit.remaining for one in taken]

    assert asyncio.run(ask()) == [40] * 20
    assert numbers.statements == 1


def test_the_edge_of_a_quota_refuses_whole_requests_and_returns_the_rest() -> None:
    numbers = Numbers()

    async def ask() -> list[bool]:
        quotas = Quotas(numbers, max_waiting=100)
        answers = await asyncio.gather(
            *(quotas.take("a", 10, count) for count in (4, 5, 3, 1)), return_exceptions=True
        )
        return [isinstance(answer, LimitExceeded) for answer in answers]

    assert asyncio.run(ask()) == [False, False, True, False]
    assert numbers.used == 10


def test_ads_that_are_given_back_can_be_taken_by_others() -> None:
    numbers = Numbers()

    async def ask() -> None:
        quotas = Quotas(numbers, max_waiting=100)
        taken = await quotas.take("a", 5, 5)
        await asyncio.gather(*(quotas.give_back(taken, count) for count in (1, 2)))
        assert numbers.used == 2
        with pytest.raises(LimitExceeded):
            await quotas.take("a", 5, 4)
        await quotas.take("a", 5, 3)

    asyncio.run(ask())
    assert numbers.used == 5


def test_ads_return_to_the_day_from_which_they_were_taken() -> None:
    numbers = Numbers()
    before, after = numbers.day, numbers.day + timedelta(days=1)

    async def ask() -> None:
        quotas = Quotas(numbers, max_waiting=100)
        taken = await quotas.take("a", 5, 4)
        numbers.day = after
        await quotas.take("a", 5, 3)
        await quotas.give_back(taken, 4)

    asyncio.run(ask())
    assert numbers.rows == {("a", before): 0, ("a", after): 3}


def test_a_locked_quota_fails_the_requests_of_its_key_only() -> None:
    numbers = Numbers()
    numbers.locked = {"b"}

    async def ask() -> list[object]:
        quotas = Quotas(numbers, max_waiting=100)
        asked = [quotas.take(key_id, 5, 1) for key_id in ("a", "b", "c", "b", "a")]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [isinstance(one, RowLocked) for one in answers] == [False, True, False, True, False]
    assert numbers.rows == {("a", numbers.day): 2, ("c", numbers.day): 1}
