"""The records of the control topic."""

from __future__ import annotations

import json

import pytest

from broker.control import Command, CommandKind
from broker.control.record_format import UnreadableCommand, read

PAUSE = Command("00ff00ff00ff00ff", CommandKind.PAUSE, "mail", "ops@host", 1_700_000_000_000, "a reason")


@pytest.mark.parametrize("kind", CommandKind)
@pytest.mark.parametrize("expires_at_ms", [None, 1_700_000_000_001])
def test_a_command_is_read_as_it_was_written(kind: CommandKind, expires_at_ms: int | None) -> None:
    command = Command("1" * 16, kind, "пример", "кто@где", 1, "почему", expires_at_ms)
    assert read(command.key.encode(), command.encode()) == command


def test_a_pause_and_a_resume_of_a_queue_have_one_key() -> None:
    resume = Command("1" * 16, CommandKind.RESUME, "mail", "ops", 1, "")
    assert PAUSE.key == resume.key == "pause:mail"


def test_fields_of_a_later_client_are_ignored() -> None:
    fields = json.loads(PAUSE.encode()) | {"colour": "red"}
    assert read(b"pause:mail", json.dumps(fields).encode()) == PAUSE


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"pause:mail", b"{", "JSONDecodeError"),
        (b"pause:mail", b"[]", "TypeError"),
        (b"pause:mail", json.dumps(json.loads(PAUSE.encode()) | {"v": 2}).encode(), "version 2"),
        (b"pause:mail", json.dumps(json.loads(PAUSE.encode()) | {"kind": "melt"}).encode(), "melt"),
        (b"pause:other", PAUSE.encode(), "is not that of its command"),
        (None, PAUSE.encode(), "is not that of its command"),
        (b"\xff", PAUSE.encode(), "no UTF-8"),
    ],
)
def test_a_damaged_record_is_unreadable_with_the_reason(key: bytes | None, value: bytes, reason: str) -> None:
    with pytest.raises(UnreadableCommand, match=reason):
        read(key, value)


def test_long_texts_of_a_client_are_cut() -> None:
    long = Command("1" * 16, CommandKind.PAUSE, "mail", "x" * 100_000, 1, "y" * 100_000)
    assert len(long.encode()) < 3_000
