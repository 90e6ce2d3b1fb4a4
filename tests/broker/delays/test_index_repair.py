"""An index whose log has lost its tail, and has grown again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from broker.delays.index import DelayIndex
from broker.delays.record_format import CancelRequest, Delay, Done, Entry, Flush, Outcome

QUEUE = "mail"


def delay_of(number: int) -> Delay:
    return Delay(f"m{number}:{number:016x}", QUEUE, number, b"x")


def done_of(number: int) -> Done:
    return Done(delay_of(number).id, Outcome.FORWARDED)


@st.composite
def logs(draw: st.DrawFn, first: int = 0) -> list[Entry]:
    """Delays, each followed by its tombstone or not, in any order that can be."""
    log: list[Entry] = []
    waiting: list[int] = []
    for ends in draw(st.lists(st.booleans(), max_size=30)):
        if ends and waiting:
            log.append(done_of(waiting.pop(draw(st.integers(0, len(waiting) - 1)))))
        else:
            waiting.append(first + len(log))
            log.append(delay_of(first + len(log)))
    return log


def waiting_in(index: DelayIndex) -> set[str]:
    return {delay.id for delay in index.waiting(QUEUE, limit=1_000)}


def read(index: DelayIndex, log: list[Entry], batch: int) -> int:
    """Read ``log`` from where the index is, in batches that end at the cut; return what was lost."""
    lost = 0
    while (start := index.next_offset) < len(log):
        end = min(start + batch, len(log))
        if start < index.repair_until < end:
            end = index.repair_until
        lost += index.apply(log[start:end], end, now_ms=0)
    return lost


@given(logs(), logs(first=1_000), st.data(), st.integers(1, 10), st.booleans())
def test_a_repaired_index_holds_what_the_log_has_and_is_not_done(
    old: list[Entry], new: list[Entry], data: st.DataObject, batch: int, restarts: bool
) -> None:
    assume(old)
    cut = data.draw(st.integers(1, len(old)), label="cut")
    log = old[:cut] + new
    index = DelayIndex()
    index.apply(old, len(old), now_ms=0)
    was_waiting = waiting_in(index)

    index.repair(cut, now_ms=0)
    lost = 0
    if restarts:  # another truncation during the repair
        index.apply(log[: min(batch, cut)], min(batch, cut), now_ms=0)
        index.repair(cut, now_ms=0)
    lost += read(index, log, batch)

    done = {entry.id for entry in log if isinstance(entry, Done)}
    below = {entry.id for entry in old[:cut] if isinstance(entry, Delay)}
    above = {entry.id for entry in new if isinstance(entry, Delay)}
    assert waiting_in(index) == (was_waiting & below) | (above - done)
    assert {each.id for each in index.pending_tombstones(1_000)} == below - was_waiting - done
    if not restarts:
        assert lost == len(was_waiting - below)
    index.close()


def test_a_flush_and_a_cancel_that_were_applied_before_touch_nothing_that_came_after_them() -> None:
    index = DelayIndex()
    early, late = delay_of(1), delay_of(2)
    again = Delay(f"m1:{3:016x}", QUEUE, 3, b"x")
    log: list[Entry] = [early, CancelRequest(f"m1:{9:016x}"), Flush(QUEUE), late, again]
    index.apply(log, 5, now_ms=0)
    assert waiting_in(index) == {late.id, again.id}

    index.repair(5, now_ms=0)
    index.apply(log, 5, now_ms=0)

    assert waiting_in(index) == {late.id, again.id}
    index.close()


def test_a_repair_continues_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    log: list[Entry] = [delay_of(1), delay_of(2), done_of(1)]
    index = DelayIndex(path)
    index.apply(log, 3, now_ms=0)
    index.repair(2, now_ms=0)
    index.apply(log[:1], 1, now_ms=0)
    index.close()

    index = DelayIndex(path)
    assert (index.next_offset, index.repair_until) == (1, 2)
    index.apply(log[1:2], 2, now_ms=0)

    assert waiting_in(index) == {delay_of(2).id}
    assert [done.id for done in index.pending_tombstones(10)] == [delay_of(1).id]
    index.close()


def test_the_leader_epoch_is_kept_with_the_offset_that_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    index = DelayIndex(path)
    index.apply([delay_of(1)], 1, now_ms=0, leader_epoch=4)
    index.close()
    index = DelayIndex(path)
    assert index.leader_epoch == 4

    # A version that knows nothing of epochs goes on.
    index._db.execute("UPDATE meta SET value = 7 WHERE name = 'next_offset'")
    index.close()

    index = DelayIndex(path)
    assert (index.next_offset, index.leader_epoch) == (7, -1)
    index.close()
