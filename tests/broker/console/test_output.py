"""How answers are written: documents, tables, columns, repeated answers."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import KafkaUnavailable
from broker.console import texts
from broker.console.live import watch
from broker.console.output import Answer, Column, Output, ScanProgress, Table, column_widths, plain
from broker.testing import Kit
from dev.stack import ROOT

COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("COUNT", lambda row: texts.number(row["count"]), is_number=True, style=lambda row: "red"),
)
ROWS = [{"name": "a-name-that-is-long", "count": 1_000}, {"name": "b", "count": None}]


def answer(number: int = 0) -> Answer:
    return Answer("some", {"number": number}, [Table(COLUMNS, ROWS)], ["A line."])


def test_columns_are_aligned_and_no_value_is_cut_off() -> None:
    assert plain(answer()) == (
        "NAME                 COUNT\n"
        "a-name-that-is-long  1,000\n"
        "b                        -\n"
        "\n"
        "A line.\n"
    )  # fmt: skip


def test_a_watch_without_a_terminal_prints_an_answer_a_line(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _watched([answer(1), answer(2)]) == "end"
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]


def test_a_watch_goes_on_after_an_outage_and_says_since_when(
    kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    down = KafkaUnavailable("no server answered")
    began = texts.moment(kit.clock.wall_ms() + 1_000)
    assert _watched([answer(1), down, down, answer(2)]) == "end"
    told = capsys.readouterr()
    assert [json.loads(line)["number"] for line in told.out.splitlines()] == [1, 2]
    assert [line.startswith(f"Kafka does not answer since {began}: ") for line in told.err.splitlines()] == [
        True, True,
    ]  # fmt: skip
    # Without a first answer, as of a server that is named wrongly, the command ends.
    with pytest.raises(KafkaUnavailable):
        _watched([down])


class _End(Exception):
    pass


def _watched(answers: list[Answer | Exception]) -> str:
    """Watch these answers, until there is no other one."""
    left = iter([*answers, _End("end")])

    def ask() -> Answer:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    try:
        watch(Output(as_json=True), ask, interval_s=1.0)
    except _End as e:
        return str(e)
    raise AssertionError("the watch has ended by itself")


PROGRAM = """
from broker.console.output import Answer, Column, Output, Table
columns = [Column("NAME", lambda row: row, style=lambda row: "red")]
Output(as_json=False).show(Answer("some", {}, [Table(columns, ["x" * 60])]))
"""


#: A table with an id, a number and a text.
PROGRAM_WITH_ID = """
from broker.console.output import Answer, Column, Output, Table
columns = [
    Column("MESSAGE", lambda row: "7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51", is_id=True),
    Column("REDRIVES", lambda row: "0", is_number=True),
    Column("TEXT", lambda row: "the mail server has closed the connection " * 3),
]
Output(as_json=False).show(Answer("some", {}, [Table(columns, [1, 2])]))
"""


def on_a_terminal(program: str = PROGRAM, **env: str) -> str:
    """The output of a program on a terminal, by default of 40 columns."""
    parent, child = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        subprocess.run(
            [sys.executable, "-c", program],
            stdout=child,
            cwd=ROOT,
            check=True,
            env={**inherited, "TERM": "xterm", "COLUMNS": "40", **env},
        )
        return os.read(parent, 100_000).decode()
    finally:
        os.close(parent)
        os.close(child)


def test_a_terminal_gets_coloured_tables_in_which_a_long_value_is_folded() -> None:
    text = on_a_terminal()
    assert "\x1b[31m" in text
    assert text.count("x") == 60


@pytest.mark.parametrize("width", [200, 80, 50])
def test_an_id_and_each_title_stay_whole_on_a_narrow_terminal(width: int) -> None:
    lines = on_a_terminal(PROGRAM_WITH_ID, COLUMNS=str(width), NO_COLOR="1").splitlines()
    assert sum("7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51" in line for line in lines) == 2
    assert any("REDRIVES" in line for line in lines)
    assert all(len(re.sub("\x1b\\[[0-9;]*m", "", line)) <= width for line in lines)


def test_a_table_that_does_not_fit_is_a_block_of_lines_for_each_row() -> None:
    lines = on_a_terminal(PROGRAM_WITH_ID, COLUMNS="50", NO_COLOR="1")
    text = re.sub("\x1b\\[[0-9;]*m|\r", "", lines)
    block = "MESSAGE   7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51\nREDRIVES  0\nTEXT      the mail server"
    assert text.count(block) == 2


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 60)), min_size=1, max_size=8),
    st.integers(1, 200),
)
def test_columns_take_no_more_than_the_terminal_has_and_no_less_than_numbers_need(
    described: list[tuple[bool, int, int]], width: int
) -> None:
    columns = [Column("T" * title, str, is_number=is_number) for is_number, title, _ in described]
    cells = ["x" * length for _, _, length in described]
    widths = column_widths(columns, [cells], width)
    if widths is None:
        return
    assert sum(widths) <= width
    for column, cell, found in zip(columns, cells, widths, strict=True):
        assert found >= len(column.title)
        assert found <= max(len(column.title), len(cell))
        assert not column.is_number or found >= len(cell)


def test_no_color_turns_colours_off() -> None:
    assert "\x1b[31m" not in on_a_terminal(NO_COLOR="1")


def test_progress_is_silent_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = ScanProgress("reading", stream)
    progress(1, 2)
    progress.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0, "0.0s"), (9.94, "9.9s"), (12.4, "12s"), (59.6, "1m00s"), (185, "3m05s"),
        (7_620, "2h07m"), (273_600, "3d04h"),
    ],
)  # fmt: skip
def test_an_age_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert texts.age(seconds) == text


def test_a_time_is_a_duration_before_now_or_iso_8601() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert texts.parse_moment("2h", now) == now - timedelta(hours=2)
    assert texts.parse_moment("2026-11-28T11:00", now) == now - timedelta(hours=1)
    assert texts.parse_moment("2026-11-28T14:00+03:00", now) == now - timedelta(hours=1)
    with pytest.raises(ValueError, match="is no time"):
        texts.parse_moment("yesterday", now)
    with pytest.raises(ValueError, match="is no duration"):
        texts.parse_duration("-5m")


@pytest.mark.parametrize("text", ["99999999999h", "9" * 400, "800000d"])
def test_a_duration_beyond_measure_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text!r} is"):
        texts.parse_moment(text, datetime(2026, 11, 28, tzinfo=UTC))


@given(st.text(st.characters()))
def test_no_character_reaches_the_terminal_that_it_obeys(text: str) -> None:
    shown = texts.printable(text)
    shown.encode()
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in shown)
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert len(texts.printable("a\n\tb", lines=True)) == 4
