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
    """The groups of the dead letters that match, the largest first, each with its number of dead letters in
    each hour of the last day.
    """
    begin_ms = clock.wall_ms() - SPARK_BUCKETS * 3_600_000
    # One pass: a sort of all that match is what it costs.
    by_hour = store.query(
        "SELECT queue, actor, error_type, count(*) n,"
        " CASE WHEN at_ms < :begin THEN -1 ELSE (at_ms - :begin) / 3600000 END hour,"
        f" min(at_ms) first_ms, max(at_ms) last_ms FROM {source} WHERE {where} GROUP BY 3, 2, 1, 5",
        {**parameters, "begin": begin_ms},
    )
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in by_hour:
        names = {name: row[name] for name in ("queue", "actor", "error_type")}
        new = {"count": 0, "first_ms": row["first_ms"], "last_ms": row["last_ms"]}
        group = groups.setdefault((*names.values(),), {**names, **new, "hours": [0] * SPARK_BUCKETS})
        group["count"] += row["n"]
        group["first_ms"] = min(group["first_ms"], row["first_ms"])
        group["last_ms"] = max(group["last_ms"], row["last_ms"])
        if row["hour"] >= 0:
            group["hours"][min(row["hour"], SPARK_BUCKETS - 1)] += row["n"]
    largest = sorted(groups.values(), key=lambda group: (group["count"], group["last_ms"]), reverse=True)
    return largest[:GROUPS]
