"""Writes answers to stdout and messages to stderr.

An answer is a JSON document, and tables of its rows. ``--json`` prints the document; a terminal gets tables;
anything else, as a pipe, gets columns of plain text with one line of titles, in which no value is cut off.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..process.strict_json import dumps
from .texts import NONE, printable

#: The version of the documents. A field may be added within a version; none is renamed or removed.
VERSION = 1

#: A longer word of a text may be folded to fit a terminal.
FOLD_AT = 24

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
      title: Its title.
      text: Returns the text of a row's cell.
      is_number: Whether it is aligned to the right.
      is_id: Whether a terminal shows it in one line, so that it can be copied.
      style: Returns rich's style of a row's cell on a terminal.
    """

    title: str
    text: Callable[[Any], str]
    is_number: bool = False
    is_id: bool = False
    style: Callable[[Any], str] = lambda row: ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a document as a person reads them.

    Attributes:
      title: The heading; none when empty.
      empty: The message when there are no rows.
    """

    columns: Sequence[Column]
    rows: Sequence[Any]
    title: str = ""
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a verb.

    Attributes:
      verb: Its name, as ``"dlq list"``.
      document: The fields of its JSON document beside ``v`` and ``verb``.
      tables: Its tables.
      lines: Lines of text, after the tables.
    """

    verb: str
    document: Mapping[str, Any]
    tables: Sequence[Table] = ()
    lines: Sequence[str] = field(default=())


class OutputFailed(Exception):
    """The answer could not be written to stdout, as on a full disk. The text is one sentence."""


class Output:
    """The standard streams of the command.

    Parameters:
      as_json: Whether answers are JSON documents.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the tables as they are printed."""
        return not self.as_json and sys.stdout.isatty()

    def show(self, answer: Answer) -> None:
        """Print an answer.

        Raises:
          OutputFailed: When stdout does not take it.
        """
        if self.as_json:
            self.write_json({"v": VERSION, "verb": answer.verb, **answer.document})
        elif self.is_terminal:
            self._show_tables(answer)
        else:
            write(plain(answer))
        for table in answer.tables:
            if not table.rows and table.empty and not self.as_json:
                self.say(table.empty)

    def write_json(self, document: Mapping[str, Any]) -> None:
        """Print a document on a line of its own.

        Raises:
          OutputFailed: When stdout does not take it.
        """
        text = dumps(document)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            # Only texts of JSON have such characters, and \x of Python's escapes is no JSON.
            text = "".join(one if one.isascii() else json.dumps(one)[1:-1] for one in text)
        write(text + "\n")

    def say(self, text: str) -> None:
        """Print a message to stderr."""
        print(printable(text, lines=True), file=sys.stderr, flush=True)  # noqa: T201

    def _show_tables(self, answer: Answer) -> None:
        from rich.console import Console

        console = Console(file=sys.stdout, highlight=False, no_color=no_color())
        for renderable in rich_tables(answer, console.width):
            console.print(renderable)

    def progress(self, what: str) -> ScanProgress:
        """A progress bar on stderr; it is silent when stderr is no terminal."""
        return ScanProgress(what, sys.stderr)


def write(text: str) -> None:
    """Write a text to stdout.

    Raises:
      OutputFailed: When stdout does not take it.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        # Python would write the rest at its end, and fail again.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        raise OutputFailed(f"The answer could not be written to standard output: {e.strerror}.") from e


def prepare_streams() -> None:
    """Let stdout take characters that its encoding lacks, and messages have a stream.

    Raises:
      OutputFailed: When stdout is closed.
    """
    if getattr(sys, "stderr", None) is None:
        # print(file=None) would write messages into the answer.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    if getattr(sys, "stdout", None) is None:
        raise OutputFailed("Standard output is closed: nothing was done.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class ScanProgress:
    """A line on stderr that says how far a scan is."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream
        self._is_shown = False

    def __call__(self, done: int, total: int) -> None:
        if not self._stream.isatty():
            return
        self._is_shown = True
        share = done / total if total else 1.0
        bar = ("#" * round(share * 30)).ljust(30, ".")
        self._stream.write(f"\r{self._what} [{bar}] {done:,} of {total:,}")
        self._stream.flush()

    def close(self) -> None:
        if self._is_shown:
            self._stream.write("\r\033[K")
            self._stream.flush()


def plain(answer: Answer) -> str:
    """An answer as columns of plain text."""
    blocks = []
    for table in answer.tables:
        if table.rows:
            head = f"{table.title}\n" if table.title and len(answer.tables) > 1 else ""
            blocks.append(head + _columns(table))
    if answer.lines:
        blocks.append("".join(f"{printable(text, lines=True)}\n" for text in answer.lines))
    return "\n".join(blocks)


def _columns(table: Table) -> str:
    cells = [[column.title for column in table.columns]]
    cells += [[printable(column.text(row)) or NONE for column in table.columns] for row in table.rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(table.columns))]
    lines = []
    for row in cells:
        padded = [
            text.rjust(width) if column.is_number else text.ljust(width)
            for text, width, column in zip(row, widths, table.columns, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def rich_tables(answer: Answer, width: int) -> Iterable[Any]:
    """An answer as rich's tables; one that does not fit the terminal has a block of lines for each row.

    Parameters:
      width: The columns of the terminal.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for table in answer.tables:
        if not table.rows:
            continue
        cells = [
            [printable(column.text(row), lines=True) or NONE for column in table.columns]
            for row in table.rows
        ]
        # Three characters between two columns, or one.
        is_tight = False
        widths = column_widths(table.columns, cells, width - 3 * len(table.columns) + 1)
        if widths is None:
            is_tight = True
            widths = column_widths(table.columns, cells, width - len(table.columns) + 1)
        if widths is None:
            yield from _blocks(table, cells)
            continue
        drawn = RichTable(
            title=table.title or None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=not is_tight,
            padding=(0, 0) if is_tight else (0, 1),
        )
        for column, column_width in zip(table.columns, widths, strict=True):
            justify: Any = "right" if column.is_number else "left"
            drawn.add_column(column.title, justify=justify, overflow="fold", width=column_width)
        for row, texts_of_row in zip(table.rows, cells, strict=True):
            drawn.add_row(
                *(
                    Text(text, style=column.style(row))
                    for column, text in zip(table.columns, texts_of_row, strict=True)
                )
            )
        yield drawn
    yield from (Text(printable(text, lines=True)) for text in answer.lines)


def column_widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """The widths of the columns of a table; None when it does not fit.

    Numbers and ids stay in one line, titles and short words whole. Longer texts are folded.

    Parameters:
      width: The characters for all columns, without those between them.
    """
    widths, wanted = [], []
    for index, column in enumerate(columns):
        lines = [line for row in cells for line in row[index].split("\n")]
        longest = max(map(len, [column.title, *lines]))
        words = [len(word) for line in lines for word in line.split()]
        least = min(max(words, default=0), FOLD_AT)
        title = max(map(len, column.title.split()), default=0)
        widths.append(longest if column.is_number or column.is_id else max(title, least))
        wanted.append(longest)
    left = width - sum(widths)
    if left < 0:
        return None
    # The columns that lack least get the rest first.
    folded = sorted(range(len(columns)), key=lambda index: wanted[index] - widths[index])
    for position, index in enumerate(folded):
        more = min(wanted[index] - widths[index], left // (len(folded) - position))
        widths[index] += more
        left -= more
    return widths


def _blocks(table: Table, cells: Sequence[Sequence[str]]) -> Iterable[Any]:
    """A table as one block of lines for each row."""
    from rich.text import Text

    if table.title:
        yield Text(table.title, style="italic")
    indent = max(len(column.title) for column in table.columns) + 2
    for row, texts_of_row in zip(table.rows, cells, strict=True):
        block = Text(overflow="fold")
        for column, text in zip(table.columns, texts_of_row, strict=True):
            block.append(column.title.ljust(indent), style="bold")
            block.append(text.replace("\n", "\n" + " " * indent), style=column.style(row))
            block.append("\n")
        yield block


def no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))
