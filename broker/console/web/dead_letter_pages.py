"""The page of all dead letters: groups, and the list of those that match a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...process import clock
from ..dead_letter_rows import DeadLetterFilter
from ..texts import parse_moment
from .looks import Look, Unusable, View
from .store import StateCache

#: The rows of a page of the list.
PAGE = 50
GROUPS = 200
SPARK_BUCKETS = 24


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
          Unusable: When a time of it is none.
        """
        return DeadLetterFilter(frozenset(), self.error, self.text, self.actor, *self._range())

    def _range(self) -> tuple[datetime | None, datetime | None]:
        now = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
        try:
            since = None if self.since is None else parse_moment(self.since, now)
            until = None if self.until is None else parse_moment(self.until, now)
        except ValueError as e:
            raise Unusable(str(e)) from e
        return since, until

    def conditions(self) -> tuple[str, dict[str, Any]]:
        """The same conditions in SQL, with their parameters."""
        since, until = self._range()
        parts = {
            "queue": ("queue = :queue", self.queue),
            "error": ("error_type = :error", self.error),
            "actor": ("actor = :actor", self.actor),
            "text": ("(instr(error, :text) OR instr(traceback, :text))", self.text),
            "since": ("at_ms >= :since", since and since.timestamp() * 1000),
            "until": ("at_ms < :until", until and until.timestamp() * 1000),
        }
        used = {name: part for name, part in parts.items() if part[1] is not None}
        where = " AND ".join(part[0] for part in used.values()) or "TRUE"
        return where, {name: part[1] for name, part in used.items()}


def count_of(store: StateCache, wanted: Filter) -> int:
    """The number of cached dead letters that match."""
    where, parameters = wanted.conditions()
    (row,) = store.query(f"SELECT count(*) n FROM dead_letter WHERE {where}", parameters)
    return int(row["n"])


def dead_letters(look: Look) -> View:
    """Dead letters: groups by error and actor, and those that match."""
    store, wanted = look.console.store, Filter.of(look)
    where, parameters = wanted.conditions()
    groups = store.query(
        "SELECT queue, actor, error_type, count(*) count, min(at_ms) first_ms, max(at_ms) last_ms"
        f" FROM dead_letter WHERE {where} GROUP BY queue, actor, error_type"
        f" ORDER BY count DESC, last_ms DESC LIMIT {GROUPS}",
        parameters,
    )
    count = count_of(store, wanted)
    before = _before(look.get("before"))
    page = f"{where} AND (at_ms, queue, part, place) < (:at, :name, :part, :place)" if before else where
    rows = store.query(
        "SELECT queue, part, place, message_id, actor, at_ms, error_type, substr(error, 1, 300) error,"
        f" retries, redrives, not_redrivable FROM dead_letter WHERE {page}"
        f" ORDER BY at_ms DESC, queue DESC, part DESC, place DESC LIMIT {PAGE + 1}",
        {**parameters, **before},
    )
    shown = rows[:PAGE]
    document = {
        "filter": {name: getattr(wanted, name) for name in Filter.NAMES},
        "is_filtered": bool(wanted.query()),
        "words": wanted.words(),
        "count": count,
        "groups": _with_sparks(store, where, parameters, groups),
        "dead_letters": shown,
        "next": _after(shown[-1]) if len(rows) > PAGE else None,
        "queues": [row["queue"] for row in store.get("queues", [])],
    }
    return View("dead_letters.html", "dead-letters", "Dead letters", document)


def _with_sparks(
    store: StateCache, where: str, parameters: Mapping[str, Any], groups: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The groups, each with its number of dead letters in each hour of the last day."""
    now_ms = clock.wall_ms()
    begin_ms = now_ms - SPARK_BUCKETS * 3_600_000
    found = store.query(
        "SELECT queue, actor, error_type, cast((at_ms - :begin) / 3600000 AS INTEGER) hour, count(*) n"
        f" FROM dead_letter WHERE {where} AND at_ms >= :begin GROUP BY 1, 2, 3, 4",
        {**parameters, "begin": begin_ms},
    )
    sparks: dict[tuple[Any, ...], list[int]] = {}
    for row in found:
        hours = sparks.setdefault((row["queue"], row["actor"], row["error_type"]), [0] * SPARK_BUCKETS)
        hours[min(row["hour"], SPARK_BUCKETS - 1)] += row["n"]
    none = [0] * SPARK_BUCKETS
    return [
        {**row, "hours": sparks.get((row["queue"], row["actor"], row["error_type"]), none)} for row in groups
    ]


def _after(row: Mapping[str, Any]) -> str:
    return f"{row['at_ms']}:{row['part']}:{row['place']}:{row['queue']}"


def _before(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    parts = text.split(":", 3)
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[:3]):
        raise Unusable(f"{text!r} is no place in the list.")
    return {"at": int(parts[0]), "part": int(parts[1]), "place": int(parts[2]), "name": parts[3]}
