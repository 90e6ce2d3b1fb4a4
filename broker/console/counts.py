"""Numbers of messages by a name: of an actor, an error, or a reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import texts
from .output import Column


@dataclass(frozen=True, slots=True)
class Count:
    """A number of messages by a name: of an actor, or a reason."""

    name: str
    count: int


def counts(by_name: Mapping[str, int]) -> list[Count]:
    """The largest first."""
    return [Count(*item) for item in sorted(by_name.items(), key=lambda item: (-item[1], item[0]))]


def _counted(title: str) -> Sequence[Column]:
    return (
        Column("COUNT", lambda r: texts.number(r.count), is_number=True),
        Column(title, lambda r: texts.line(r.name)),
    )


#: The columns of counts, by the name of what is counted.
COUNT_COLUMNS: Mapping[str, Sequence[Column]] = {
    "actor": _counted("ACTOR"),
    "error": _counted("ERROR"),
    "skipped": _counted("REASON"),
}
