"""Rows about the topics and rights that an application needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import ClientKind, PlannedRight, PlannedTopic, TopicDifference
from . import texts
from .documents import DifferenceRow, PlannedTopicRow, RightRow
from .output import Column


def planned_topic_row(topic: PlannedTopic) -> PlannedTopicRow:
    return PlannedTopicRow(
        topic=topic.name,
        role=topic.role,
        queue=topic.queue_name,
        partitions=topic.partitions,
        replication=topic.replication_factor,
        settings=dict(topic.settings),
        exists=topic.exists,
        differences=len(topic.differences),
    )


def difference_row(difference: TopicDifference) -> DifferenceRow:
    return DifferenceRow(
        topic=difference.topic,
        subject=difference.subject,
        planned=difference.planned,
        found=difference.found or None,
        command=difference.command or None,
    )


def right_rows(rights: Iterable[PlannedRight]) -> list[RightRow]:
    return [
        RightRow(
            client=right.client.value,
            operation=right.operation,
            kind=right.kind,
            name=right.name,
            optional=right.is_optional,
        )
        for right in rights
    ]


def principals_of(given: Iterable[str]) -> dict[str, str]:
    """The users of ``--principal web=shop-web``, by the kind of client.

    Raises:
      BadText: When a text is not of that form, or names no kind of client.
    """
    found: dict[str, str] = {}
    kinds = [client.value for client in ClientKind]
    for text in given:
        client, equals, user = text.partition("=")
        if not equals or not user or client not in kinds:
            raise texts.BadText(f"{text!r} is no CLIENT=USER with a client of {', '.join(kinds)}")
        if client in found:
            raise texts.BadText(f"{text!r} is the second user of {client}, after {found[client]!r}: name one")
        found[client] = user
    return found


def _state(row: PlannedTopicRow) -> str:
    if not row["exists"]:
        return "missing"
    return texts.plural(row["differences"], "difference") if row["differences"] else "as planned"


def _state_style(row: PlannedTopicRow) -> str:
    return "yellow" if row["differences"] else ""


def grouped(rows: Sequence[RightRow]) -> list[dict[str, Any]]:
    """The rows of RIGHT_COLUMNS: one for each client and resource."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["client"], row["kind"], row["name"])
        group = groups.setdefault(key, {**row, "operations": []})
        group["operations"].append(f"({row['operation']})" if row["optional"] else row["operation"])
    return list(groups.values())


PLANNED_TOPIC_COLUMNS: Sequence[Column] = (
    Column("TOPIC", lambda r: r["topic"]),
    Column("ROLE", lambda r: r["role"]),
    Column("PARTITIONS", lambda r: str(r["partitions"]), is_number=True),
    Column("REPLICAS", lambda r: texts.number(r["replication"]), is_number=True),
    Column("STATE", _state, style=_state_style),
    Column("SETTINGS", lambda r: " ".join(f"{k}={v}" for k, v in sorted(r["settings"].items()))),
)

DIFFERENCE_COLUMNS: Sequence[Column] = (
    Column("TOPIC", lambda r: r["topic"]),
    Column("SUBJECT", lambda r: r["subject"]),
    Column("PLANNED", lambda r: r["planned"]),
    Column("FOUND", lambda r: r["found"] or texts.NONE),
    Column("COMMAND", lambda r: r["command"] or texts.NONE),
)

#: An operation in parentheses is optional.
RIGHT_COLUMNS: Sequence[Column] = (
    Column("CLIENT", lambda r: r["client"]),
    Column("RESOURCE", lambda r: f"{r['kind']} {r['name']}"),
    Column("RIGHTS", lambda r: ", ".join(r["operations"])),
)
