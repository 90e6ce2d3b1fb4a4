"""The page of all dead letters: groups, and the list of those that match a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...process import clock
from ..dead_letter_rows import DeadLetterFilter
from ..texts import BadText, parse_moment
from .dead_letter_groups import groups_of
from .looks import Look, Unusable, View, number_of
from .store import StateCache
from .stored_tracebacks import CONTAINS

#: The rows of a page of the list.
PAGE = 50


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter, as a URL has it. Its texts are the user's.

    Attributes:
      queue: The queue; None for all.
    """

    queue: str | None
    error: str | None
    actor: str | None
    text: str | None
    since: str | None
    until: str | None

    NAMES = ("queue", "error", "actor", "text", "since", "until")

    @classmethod
    def of(cls, look: Look) -> Filter:
        return cls(*(look.get(name) for name in cls.NAMES))

    def words(self) -> list[str]:
        """The conditions as sentences of a list."""
        texts = {
            "queue": "of the queue {}",
            "error": "whose error is {}",
            "actor": "of the actor {}",
            "text": "whose error or traceback contains “{}”",
            "since": "dead since {}",
            "until": "dead before {}",
        }
        return [text.format(getattr(self, name)) for name, text in texts.items() if getattr(self, name)]

    def query(self) -> dict[str, str]:
        return {name: value for name in self.NAMES if (value := getattr(self, name)) is not None}

    def on_kafka(self) -> DeadLetterFilter:
        """The same conditions, for the dead letters of a queue in Kafka.

        Raises:
          Unusable: When ``since`` or ``until`` is not a time.
        """
        return DeadLetterFilter(frozenset(), self.error, self.text, self.actor, *self._range())

    def _range(self) -> tuple[datetime | None, datetime | None]:
        now = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
        try:
            since = None if self.since is None else parse_moment(self.since, now)
            until = None if self.until is None else parse_moment(self.until, now)
        except BadText as e:
            raise Unusable(str(e)) from e
        return since, until

    def conditions(self) -> tuple[str, dict[str, Any]]:
        """The same conditions in SQL, with their parameters."""
        since, until = self._range()
        parts = {
            "queue": ("queue = :queue", self.queue),
            "error": ("error_type = :error", self.error),
            "actor": ("actor = :actor", self.actor),
            "text": (CONTAINS, self.text),
            "since": ("at_ms >= :since", since and since.timestamp() * 1000),
            "until": ("at_ms < :until", until and until.timestamp() * 1000),
        }
        used = {name: part for name, part in parts.items() if part[1] is not None}
        parameters = {name: part[1] for name, part in used.items()}
        where = [part[0] for part in used.values()]
        return " AND ".join(where) or "TRUE", parameters


def _selected(store: StateCache, wanted: Filter) -> tuple[str, str, dict[str, Any]]:
    """The table, the condition and its parameters for the queries of a page.

    The texts of errors have no index. They are read once, and the matches are kept for these queries.
    """
    where, parameters = wanted.conditions()
    if wanted.text is None:
        return "dead_letter", where, parameters
    columns = "queue, part, place, actor, error_type, at_ms"
    store.keep("hit", f"SELECT {columns} FROM dead_letter WHERE {where}", parameters)
    return "temp.hit", "TRUE", {}


def dead_letters(look: Look) -> View:
    """Dead letters: groups by error and actor, and those that match."""
    store, wanted = look.console.store, Filter.of(look)
    source, where, parameters = _selected(store, wanted)
    (counted,) = store.query(f"SELECT count(*) n FROM {source} WHERE {where}", parameters)
    before = _before(look.get("before"))
    page = f"{where} AND (at_ms, queue, part, place) < (:at, :name, :part, :place)" if before else where
    order = "ORDER BY at_ms DESC, queue DESC, part DESC, place DESC"
    # The index has all that selects and orders: only the shown rows are read.
    rows = store.query(
        "SELECT queue, part, place, message_id, actor, at_ms, error_type, substr(error, 1, 300) error,"
        " retries, redrives, not_redrivable FROM dead_letter WHERE (queue, part, place) IN"
        f" (SELECT queue, part, place FROM {source} WHERE {page} {order} LIMIT {PAGE + 1}) {order}",
        {**parameters, **before},
    )
    shown = rows[:PAGE]
    document = {
        "filter": {name: getattr(wanted, name) for name in Filter.NAMES},
        "is_filtered": bool(wanted.query()),
        "words": wanted.words(),
        "count": counted["n"],
        "groups": groups_of(store, source, where, parameters) if wanted.query() else store.get("groups", []),
        "dead_letters": shown,
        "next": _after(shown[-1]) if len(rows) > PAGE else None,
        "queues": [row["queue"] for row in store.get("queues", [])],
    }
    return View("dead_letters.html", "dead-letters", "Dead letters", document)


def _after(row: Mapping[str, Any]) -> str:
    return f"{row['at_ms']}:{row['part']}:{row['place']}:{row['queue']}"


def _before(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    parts = text.split(":", 3)
    if len(parts) != 4:
        raise Unusable(f"{text!r} is no place in the list.")
    at, part, place = map(number_of, parts[:3])
    return {"at": at, "part": part, "place": place, "name": parts[3]}
