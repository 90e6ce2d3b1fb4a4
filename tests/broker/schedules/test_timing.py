"""The times of cron expressions and intervals, where daylight saving changes, and when runs were missed."""

from __future__ import annotations

from datetime import datetime
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import Cron, Every, KafkaBroker, ScheduleRefused
from broker.schedules import Timing
from tests.broker.schedules.conftest import instant_ms

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def times(timing: Timing, zone: str, after: str, count: int) -> list[str]:
    """The occurrences after a time, as the clocks of the zone show them."""
    found = islice(timing.after(instant_ms(after)), count)
    return [datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).isoformat(timespec="minutes") for ms in found]


#: Expression, zone, the time after which the occurrences are, and these. Berlin's clocks skip 02:00 to 03:00
#: on 29 March 2026 and repeat it on 25 October; New York's skip 02:00 to 03:00 on 8 March and repeat 01:00 to
#: 02:00 on 1 November; Lord Howe's shift by half an hour: 02:00 to 02:30 is skipped on 4 October, and 01:30
#: to 02:00 repeated on 5 April.
TABLE = [
    ("30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
    ("0 3 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T03:00+02:00"]),
    ("30 2 * * *", BERLIN, "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ("*/30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
    (
        "*/30 2 * * *",
        BERLIN,
        "2026-10-24T12:00+02:00",
        ["2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:00+01:00"],
    ),
    (
        "30 * * * *",
        BERLIN,
        "2026-03-29T00:45+01:00",
        ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00", "2026-03-29T04:30+02:00"],
    ),
    (
        "30 * * * *",
        BERLIN,
        "2026-10-25T01:45+02:00",
        ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"],
    ),
    ("15 2 * * *", NEW_YORK, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:15-04:00"]),
    ("15 1 * * *", NEW_YORK, "2026-10-31T12:00-04:00", ["2026-11-01T01:15-04:00", "2026-11-02T01:15-05:00"]),
    ("0 9 * * MON-FRI", NEW_YORK, "2026-03-06T10:00-05:00", ["2026-03-09T09:00-04:00"]),
    (
        "0 */1 * * *",
        NEW_YORK,
        "2026-11-01T00:30-04:00",
        ["2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00", "2026-11-01T02:00-05:00"],
    ),
    ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00+10:30", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00+11:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
    (
        "0 */2 * * *",
        LORD_HOWE,
        "2026-04-04T23:00+11:00",
        ["2026-04-05T00:00+11:00", "2026-04-05T02:00+10:30", "2026-04-05T04:00+10:30"],
    ),
    (
        "*/30 * * * *",
        LORD_HOWE,
        "2026-04-05T01:20+11:00",
        ["2026-04-05T01:30+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30"],
    ),
]


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), TABLE)
def test_an_occurrence_is_at_the_right_instant_where_daylight_saving_changes(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    assert times(Cron(expression, zone=zone), zone, after, len(expected)) == expected


def test_an_interval_takes_no_notice_of_daylight_saving() -> None:
    assert times(Every(hours=6), BERLIN, "2026-03-28T20:00+01:00", 3) == [
        "2026-03-29T01:00+01:00",
        "2026-03-29T08:00+02:00",
        "2026-03-29T14:00+02:00",
    ]


EXPRESSIONS = ["30 2 * * *", "*/30 1-3 * * *", "*/17 * * * *", "0 */2 * * *", "0 0 * * SUN", "45 1 * * *"]
CHANGES_MS = [
    instant_ms(f"2026-{day}T00:00+00:00") for day in ("03-08", "03-29", "04-04", "10-03", "10-25", "11-01")
]


@given(
    expression=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Africa/Casablanca"]),
    start_ms=st.sampled_from(CHANGES_MS),
    beside_ms=st.integers(0, 2 * DAY_MS),
)
@example(expression="0 */2 * * *", zone=LORD_HOWE, start_ms=CHANGES_MS[2], beside_ms=DAY_MS)
def test_the_occurrences_before_a_time_are_those_after_an_earlier_one_reversed(
    expression: str, zone: str, start_ms: int, beside_ms: int
) -> None:
    timing, until_ms = Cron(expression, zone=zone), start_ms + beside_ms
    ascending = list(takewhile(lambda ms: ms <= until_ms, timing.after(start_ms)))
    assert ascending == sorted(set(ascending))
    assert list(takewhile(lambda ms: ms > start_ms, timing.before(until_ms))) == ascending[::-1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cron("61 * * * *"),
        lambda: Cron("* * * *"),
        lambda: Cron("0 0 * * * *"),
        lambda: Cron("0 0 30 2 *"),
        lambda: Cron("* * */20 * 1L"),
        lambda: Cron("nonsense"),
        lambda: Cron(None),  # type: ignore[arg-type]
        lambda: Cron("0 9 * * *", zone="Europe/Atlantis"),
        lambda: Cron("0 9 * * *", zone="../etc"),
        lambda: Cron("0 9 * * *", zone=""),
        lambda: Cron("0 9 * * *", missed="some"),  # type: ignore[arg-type]
        lambda: Cron("0 9 * * *", max_missed=0),
        lambda: Cron("0 9 * * *", max_missed=1_001),
        lambda: Cron("0 9 * * *", max_late_s=-1),
        lambda: Cron("0 9 * * *", jitter_s=float("nan")),
        lambda: Cron("0 9 * * *", version=-1),
        lambda: Every(),
        lambda: Every(minutes=-5),
        lambda: Every(seconds=0.5),
        lambda: Every(days=4_000),
        lambda: Every(minutes=5, jitter_s=300),
        lambda: Every(minutes="5"),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_timing_is_refused_where_it_is_declared(make: Any) -> None:
    with pytest.raises(ScheduleRefused):
        make()


def test_a_schedule_of_another_type_is_refused_when_its_actor_is_declared() -> None:
    broker = KafkaBroker()
    with pytest.raises(ScheduleRefused, match="pass Cron"):
        dramatiq.actor(actor_name="task", broker=broker, schedule="0 9 * * *")(lambda: None)
    assert "task" not in broker.actors


HOUR_MS = 60 * MINUTE_MS
NOON_MS = instant_ms("2026-03-02T12:00+00:00")


@pytest.mark.parametrize(
    ("options", "first_h", "now_ms", "expected_h"),
    [
        ({}, 12, NOON_MS, [12]),
        ({}, 12, NOON_MS + 59 * MINUTE_MS, [12]),
        ({}, 3, NOON_MS + MINUTE_MS, [12]),
        ({"missed": "skip"}, 3, NOON_MS + 59_000, [12]),
        ({"missed": "skip"}, 3, NOON_MS + 61_000, []),
        ({"missed": "skip", "max_late_s": 600}, 3, NOON_MS + 61_000, [12]),
        ({"missed": "last", "max_late_s": 10}, 12, NOON_MS + 11_000, []),
        ({"missed": "all"}, 9, NOON_MS, [9, 10, 11, 12]),
        ({"missed": "all", "max_missed": 2}, 3, NOON_MS, [11, 12]),
        ({"missed": "all", "max_late_s": 3600}, 3, NOON_MS, [11, 12]),
    ],
)
def test_the_policy_for_missed_runs_selects_the_occurrences(
    options: dict[str, Any], first_h: int, now_ms: int, expected_h: list[int]
) -> None:
    run, decided = Every(hours=1, **options).select("name", NOON_MS + (first_h - 12) * HOUR_MS, now_ms)
    assert [12 + (ms - NOON_MS) // HOUR_MS for ms in run] == expected_h
    assert decided == NOON_MS


def test_a_jitter_is_the_same_in_every_process_and_differs_between_schedules() -> None:
    timing = Every(minutes=5, jitter_s=30)
    due = [timing.due_ms(f"schedule {number}", NOON_MS) - NOON_MS for number in range(100)]
    assert due == [timing.due_ms(f"schedule {number}", NOON_MS) - NOON_MS for number in range(100)]
    assert min(due) >= 0
    assert max(due) <= 30_000
    assert len(set(due)) > 90
