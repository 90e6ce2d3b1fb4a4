"""The records that a replay chooses against a plain model, over any log and any state of its messages."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.replay.selection import (
    BEYOND_LIMIT,
    DEAD,
    EARLIER_RECORD,
    UNFINISHED,
    ReplaySelection,
    SeenRecord,
    TooManyMessages,
)
from tests.examples import examples

ACTORS = ("a", "b")
INTERRUPTED = "cut-off"


@dataclass
class Log:
    """Partitions whose records are numbered and stamped as they are written, one after another."""

    records: list[SeenRecord] = field(default_factory=list)

    def write(
        self, number: int, partition: int, *, is_complete: bool, replay_id: str | None, is_requeued: bool
    ) -> None:
        identity = f"m{number}"
        offset = sum(record.partition == partition for record in self.records)
        now_ms = 10 * len(self.records)
        earlier = [r for r in self.records if r.identity == identity and r.partition == partition]
        order, first_ms = (
            (earlier[0].order, earlier[0].first_ms) if earlier and is_requeued else (offset, now_ms)
        )
        self.records.append(
            SeenRecord(
                identity,
                ACTORS[number % 2],
                partition,
                offset,
                now_ms,
                1,
                is_complete,
                order,
                first_ms,
                replay_id,
            )
        )


@st.composite
def logs(draw: st.DrawFn) -> list[SeenRecord]:
    log = Log()
    for _ in range(draw(st.integers(0, 25))):
        log.write(
            draw(st.integers(0, 7)),
            draw(st.integers(0, 2)),
            is_complete=draw(st.integers(0, 5)) > 0,
            replay_id=draw(st.sampled_from([None, None, None, INTERRUPTED, "complete"])),
            is_requeued=draw(st.booleans()),
        )
    return log.records


numbers = st.sets(st.integers(0, 7), max_size=3)
moments = st.none() | st.integers(0, 260)


@settings(max_examples=examples(400))
@given(
    logs(),
    st.sampled_from([None, *ACTORS]),
    moments,
    moments,
    st.none() | st.integers(1, 4),
    numbers,
    numbers,
)
def test_each_complete_message_of_the_range_is_chosen_once_with_its_latest_record(
    log: list[SeenRecord],
    actor: str | None,
    since_ms: int | None,
    until_ms: int | None,
    limit: int | None,
    waiting: set[int],
    dead: set[int],
) -> None:
    selection = ReplaySelection(
        actor=actor, since_ms=since_ms, until_ms=until_ms, limit=limit, interrupted={INTERRUPTED}
    )
    selection.unfinished |= {f"m{number}" for number in waiting}
    selection.dead |= {f"m{number}" for number in dead}
    for record in sorted(log, key=lambda record: record.partition):  # as a log is read
        selection.add(record)
    chosen = selection.result()

    in_range: dict[str, list[SeenRecord]] = defaultdict(list)
    for record in log:
        is_in_range = (since_ms is None or record.timestamp >= since_ms) and (
            until_ms is None or record.timestamp < until_ms
        )
        if actor in (None, record.actor) and is_in_range:
            in_range[record.identity].append(record)
    sent = {r.identity for r in log if r.replay_id == INTERRUPTED}
    unfinished = {r.identity for r in log if not r.is_complete} | {f"m{n}" for n in waiting}
    given_up = {f"m{n}" for n in dead}
    may_run = {i for i in in_range if i in sent or i not in unfinished | given_up}

    for each in chosen:
        assert each.identity in may_run - sent
        assert each.record == in_range[each.identity][-1]  # the latest one
        assert each.records == len(in_range[each.identity])
    identities = [each.identity for each in chosen]
    assert len(set(identities)) == len(identities)
    # Every message is accounted for.
    skipped = selection.skipped
    total = len(may_run) if limit is None else min(limit, len(may_run))
    assert len(chosen) + selection.sent_before == total
    assert skipped[BEYOND_LIMIT] == len(may_run) - total
    assert skipped[UNFINISHED] + skipped[DEAD] == len(in_range.keys() - may_run)
    if limit is None:
        assert set(identities) == may_run - sent
        assert selection.sent_before == len(may_run & sent)
        assert skipped[EARLIER_RECORD] == sum(len(in_range[i]) - 1 for i in may_run)
    # Messages of one partition are in the order of their first records there: that of a key.
    for partition in range(3):
        orders = [each.first.order for each in chosen if each.first.partition == partition]
        assert orders == sorted(orders)


@settings(max_examples=examples(200))
@given(logs(), st.permutations(range(3)))
def test_the_choice_does_not_depend_on_the_order_of_the_partitions(
    log: list[SeenRecord], other_order: list[int]
) -> None:
    choices = []
    for order in ([0, 1, 2], other_order):
        selection = ReplaySelection(interrupted={INTERRUPTED})
        for record in sorted(log, key=lambda record: order.index(record.partition)):
            selection.add(record)
        choices.append(
            [(each.identity, each.record.partition, each.record.offset) for each in selection.result()]
        )
    assert choices[0] == choices[1]


def test_a_range_with_too_many_messages_is_refused() -> None:
    selection = ReplaySelection(max_messages=2)
    record = SeenRecord("m0", "a", 0, 0, 0, 1, True, 0, 0)
    for number in range(2):
        selection.add(replace(record, identity=f"m{number}", offset=number))
    selection.add(replace(record, offset=2))
    with pytest.raises(TooManyMessages):
        selection.add(replace(record, identity="m2", offset=3))
