"""The note about the task for which a worker is killed, and what a successor makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.kafka.types import TopicPartition
from broker.reaper.death_note import DeathNote
from broker.reaper.kill_note import KillNote, culprits_of

P0, P1, OTHER = TopicPartition("work", 0), TopicPartition("work", 1), TopicPartition("mail", 0)
NOTE = KillNote(
    worker_id="host:1:abc",
    at_ms=1_700_000_000_000,
    group_id="shop",
    culprit=P0,
    offset=17,
    crashes=1,
    partitions=frozenset([P0, P1]),
    message_id="a message",
    actor_name="work",
    limit_ms=5_000,
)


def none_counted(offset: int) -> int | None:
    return 0


def test_a_note_is_read_as_it_was_written() -> None:
    assert KillNote.decode(NOTE.encode()) == NOTE


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x00\xff",
        b'{"kind": "kill"',
        b'{"kind": "kill", "v": 2}',
        b'{"kind": "kill", "v": 1}',
        b'{"kind": "kill", "v": 1, "culprit": ["work"]}',
        b'["kill"]',
        DeathNote("host:1:abc", 1).encode(),
    ],
)
def test_other_records_are_no_note(value: bytes | None) -> None:
    assert KillNote.decode(value) is None


def test_a_note_is_no_death_note() -> None:
    assert DeathNote.decode(NOTE.encode()) is None


def test_the_culprit_is_named_and_the_other_partitions_of_its_worker_have_none() -> None:
    assert culprits_of([NOTE], P0, none_counted) == {17: 1}
    assert culprits_of([NOTE], P1, none_counted) == {}
    assert culprits_of([NOTE], OTHER, none_counted) is None
    assert culprits_of([], P0, none_counted) is None


@pytest.mark.parametrize("committed", [1, 2, None])
def test_a_note_that_was_counted_or_whose_record_is_complete_explains_no_further_crash(
    committed: int | None,
) -> None:
    assert culprits_of([NOTE], P0, lambda offset: committed) is None


def test_the_latest_of_several_kills_counts() -> None:
    second = replace(NOTE, worker_id="host:2:def", crashes=2)
    for notes in ([NOTE, second], [second, NOTE]):
        assert culprits_of(notes, P0, lambda offset: 1) == {17: 2}
        assert culprits_of(notes, P0, none_counted) == {17: 2}
