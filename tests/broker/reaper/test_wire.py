"""The messages of a worker to its reaper."""

from __future__ import annotations

import ssl

import pytest

from broker.reaper.wire import (
    MAX_LINE_BYTES,
    Goodbye,
    Introduction,
    Joined,
    Left,
    LineBuffer,
    WireError,
    WorkerMessage,
    decode,
    encode,
    not_transferable,
)

INTRODUCTION = Introduction(
    "host:1:ab",
    ["kafka:9092"],
    {"api_version": (3, 9), "sasl_plain_password": "a\nb'\"\u20ac", "ssl_password": b"\x00"},
    "dramatiq_workers",
    10_000,
)


@pytest.mark.parametrize(
    "message",
    [
        INTRODUCTION,
        Joined(3, "g.work", "member-1", None),
        Joined(3, "g", "m", "static-1"),
        Left(3),
        Goodbye(),
    ],
)
def test_a_message_is_one_line_and_is_read_as_it_was(message: WorkerMessage) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line.rstrip(b"\n")) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1",
        b"('Joined', {})",
        b"('eval', {})",
        b"__import__('os')",
        b"('Left', {'slot': 1",
        b"\xff",
    ],
)
def test_another_line_is_an_error_that_does_not_repeat_it(line: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(line)
    assert line.decode(errors="replace") not in str(caught.value) or not line


def test_lines_are_assembled_from_the_pieces_in_which_they_arrive() -> None:
    buffer = LineBuffer()
    assert list(buffer.feed(b"fir")) == []
    assert list(buffer.feed(b"st\nsecond\nth")) == [b"first", b"second"]
    assert list(buffer.feed(b"ird\n")) == [b"third"]


def test_a_line_without_an_end_is_an_error() -> None:
    with pytest.raises(WireError):
        list(LineBuffer().feed(b"x" * (MAX_LINE_BYTES + 1)))


def test_objects_and_functions_cannot_be_given_to_another_process() -> None:
    options = {
        "sasl_plain_password": "secret",
        "socket_options": [(6, 1, 1)],
        "ssl_context": ssl.create_default_context(),
        "sasl_oauth_token_provider": object(),
        "selector": print,
    }
    assert not_transferable(options) == ["ssl_context", "sasl_oauth_token_provider", "selector"]
