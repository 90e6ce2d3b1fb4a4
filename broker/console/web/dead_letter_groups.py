"""The dead letters of the store by error, actor and queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...process import clock
from .store import StateCache

#: The groups of a page, the largest ones.
GROUPS = 50
#: The hours of the small charts.
SPARK_BUCKETS = 24


def groups_of(
    store: StateCache, source: str, where: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The groups of the dead letters that match, the largest first."""
    groups = store.query(
        "SELECT queue, actor, error_type, count(*) count, min(at_ms) first_ms, max(at_ms) last_ms"
        f" FROM {source} WHERE {where} GROUP BY error_type, actor, queue"
        f" ORDER BY count DESC, last_ms DESC LIMIT {GROUPS}",
        parameters,
    )
    return _with_sparks(store, source, where, parameters, groups)


def _with_sparks(
    store: StateCache, source: str, where: str, parameters: Mapping[str, Any], groups: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The groups, each with its number of dead letters in each hour of the last day."""
    now_ms = clock.wall_ms()
    begin_ms = now_ms - SPARK_BUCKETS * 3_600_000
    found = store.query(
        "SELECT queue, actor, error_type, cast((at_ms - :begin) / 3600000 AS INTEGER) hour, count(*) n"
        f" FROM {source} WHERE {where} AND at_ms >= :begin GROUP BY 1, 2, 3, 4",
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
