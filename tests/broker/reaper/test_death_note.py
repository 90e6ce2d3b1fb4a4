"""The format of death notes."""

from __future__ import annotations

import json

import pytest

from broker.kafka.types import Membership
from broker.reaper.death_note import DeathNote

NOTE = DeathNote(
    "host:1:ab",
    1_700_000_000_000,
    signal=9,
    removed=frozenset({Membership("g.mail", "m-1"), Membership("g.work", "m-2", "static")}),
    remaining=frozenset({Membership("delayed.forwarders", "m-3")}),
    expires_ms=1_700_000_010_000,
    command="host:7",
)


def test_a_death_note_is_read_as_it_was_written() -> None:
    assert DeathNote.decode(NOTE.encode()) == NOTE
    assert NOTE.groups == {"g.mail", "g.work", "delayed.forwarders"}


def test_the_fields_of_a_death_note_are_those_of_the_records_beside_it() -> None:
    fields = json.loads(NOTE.encode())
    assert {name: fields[name] for name in ("v", "kind", "worker", "at_ms", "signal", "exit_code")} == {
        "v": 1,
        "kind": "death",
        "worker": "host:1:ab",
        "at_ms": 1_700_000_000_000,
        "signal": 9,
        "exit_code": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x78\x01compressed",
        b'{"v": 1, "kind": "report"}',
        b'{"v": 1, "kind": "death"}',
        b'{"v": 1, "kind": "death", "worker": "a", "at_ms": "soon"}',
        b'{"v": 1, "kind": "death"',
        NOTE.encode().replace(b'"v": 1', b'"v": 2'),
        NOTE.encode().replace(b'"m-1", null', b'"m-1"'),
        b'["death"]',
    ],
)
def test_another_record_is_no_death_note(value: bytes | None) -> None:
    assert DeathNote.decode(value) is None
