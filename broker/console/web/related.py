"""The messages that a message followed from, and those that follow it, as far as the console knows. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

#: The option of a message that was sent again.
ORIGIN = "origin_message_id"
#: The action of the audit, and its subject.
SENT_AGAIN = "send again"
SENT_AS = "{} as {}"


class Related(TypedDict):
    """A message beside another.

    Attributes:
      relation: Its relation, in words that go before it.
      message_id: Its id; None when it does not exist yet.
      actor: Its actor; empty when that is not known.
    """

    relation: str
    message_id: str | None
    actor: str


def related(
    message_id: str, dead_letters: Iterable[Mapping[str, Any]], audit: Iterable[Mapping[str, Any]]
) -> list[Related]:
    """The messages beside one.

    Parameters:
      dead_letters: The dead letters of the message, whose options name follow-ups and the origin.
      audit: The entries of the audit, which know what was sent again.
    """
    found = [one for row in dead_letters for one in _of_options(row)]
    for entry in audit:
        origin, _, new = str(entry["subject"]).partition(" as ")
        if entry["what"] != SENT_AGAIN or entry["outcome"] != "done":
            continue
        if origin == message_id:
            found.append(Related(relation="sent again as", message_id=new, actor=""))
        elif new == message_id:
            found.append(Related(relation="sent again from", message_id=origin, actor=""))
    return list({(one["relation"], one["message_id"], one["actor"]): one for one in found}.values())


def _of_options(row: Mapping[str, Any]) -> Iterator[Related]:
    message = None if row["message"] is None else json.loads(row["message"])
    options = (message or {}).get("options") or {}
    if (origin := options.get(ORIGIN)) is not None:
        yield Related(relation="sent again from", message_id=str(origin), actor="")
    targets = options.get("pipe_target")
    for target in targets if isinstance(targets, list) else [targets]:
        if isinstance(target, dict):
            yield _named("its pipeline continues with", target)
    for target in options.get("group_callbacks") or ():
        if isinstance(target, dict):
            yield _named("its group ends with", target)
    for option, relation in (("on_success", "its success calls"), ("on_failure", "its failure calls")):
        if isinstance(options.get(option), str):
            yield Related(relation=relation, message_id=None, actor=options[option])


def _named(relation: str, message: Mapping[str, Any]) -> Related:
    message_id = message.get("message_id")
    return Related(
        relation=relation,
        message_id=None if message_id is None else str(message_id),
        actor=str(message.get("actor_name") or ""),
    )
