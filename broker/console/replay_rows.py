"""Rows about replays. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .. import Replay, ReplayState
from . import texts
from .documents import ReplayRow
from .output import Column


def replay_row(replay: Replay) -> ReplayRow:
    return ReplayRow(
        id=replay.id,
        queue=replay.queue_name,
        state=replay.state.value,
        by=replay.by,
        at_ms=replay.at_ms,
        reason=replay.reason,
        actor=replay.actor,
        from_ms=replay.since_ms,
        to_ms=replay.until_ms,
        limit=replay.limit,
        ids=replay.ids,
        selected=replay.selected,
        sent=replay.sent,
        ended_ms=replay.ended_ms,
        continued_by=replay.continued_by,
    )


REPLAY_COLUMNS: Sequence[Column] = (
    Column("AT", lambda r: texts.moment(r["at_ms"])),
    Column("QUEUE", lambda r: r["queue"]),
    Column(
        "STATE",
        lambda r: r["state"],
        style=lambda r: "yellow" if r["state"] == ReplayState.BEGUN.value else "",
    ),
    Column("SENT", lambda r: texts.number(r["sent"]), is_number=True),
    Column("OF", lambda r: texts.number(r["selected"]), is_number=True),
    Column("ACTOR", lambda r: r["actor"] or texts.NONE),
    Column("FROM", lambda r: texts.moment(r["from_ms"])),
    Column("TO", lambda r: texts.moment(r["to_ms"])),
    Column("BY", lambda r: r["by"]),
    Column("REASON", lambda r: texts.line(r["reason"])),
)
