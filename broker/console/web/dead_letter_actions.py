"""Redrives and discards: of one dead letter, of selected ones, or of all that a filter shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import KafkaBroker, Resolved
from .. import texts
from ..dead_letter_rows import Counted, Place
from .dead_letter_pages import Filter
from .looks import Look, NotFound, Redirect, Unusable, View, number_of

#: The places of selected dead letters have this form in forms: partition, offset, queue.
SEPARATOR = ":"
DEFAULT_RATE_PER_S = 100
#: More are redriven in parts. Their places take about 150 bytes each.
MAX_AT_ONCE = 200_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """The dead letters that a form means.

    Attributes:
      words: The filter as sentences of a list.
      places: The places, by queue.
      by_error: Their number, by the type of their error.
    """

    words: list[str]
    places: dict[str, set[Place]]
    by_error: Counter[str]

    @property
    def count(self) -> int:
        return sum(len(places) for places in self.places.values())


def _chosen(look: Look, before_ms: int) -> Chosen:
    """The dead letters of the cache that the form means.

    Parameters:
      before_ms: Later ones are left out: nobody has seen them.

    Raises:
      Unusable: When the form means none in particular.
    """
    store, selected = look.console.store, look.all("place")
    places: dict[str, set[Place]] = {}
    by_error: Counter[str] = Counter()
    if selected:
        words = ["that are selected"]
        rows: list[dict[str, Any]] = []
        for text in selected:
            partition, offset, queue = _place(text)
            rows += store.query(
                "SELECT queue, part, place, error_type FROM dead_letter"
                " WHERE queue = ? AND part = ? AND place = ?",
                (queue, partition, offset),
            )
    else:
        wanted = Filter.of(look)
        if not wanted.query():
            raise Unusable("An empty filter means all dead letters of all queues: narrow it.")
        where, parameters = wanted.conditions()
        words = wanted.words()
        rows = store.query(
            f"SELECT queue, part, place, error_type FROM dead_letter WHERE {where} AND at_ms < :before"
            f" LIMIT {MAX_AT_ONCE + 1}",
            {**parameters, "before": before_ms},
        )
        if len(rows) > MAX_AT_ONCE:
            raise Unusable(f"More than {MAX_AT_ONCE:,} dead letters match: narrow the filter.")
    for row in rows:
        places.setdefault(row["queue"], set()).add((row["part"], row["place"]))
        by_error[row["error_type"]] += 1
    return Chosen(words, places, by_error)


def _place(text: str) -> tuple[int, int, str]:
    parts = text.split(SEPARATOR, 2)
    if len(parts) != 3:
        raise Unusable(f"{text!r} is no place of a dead letter.")
    return number_of(parts[0]), number_of(parts[1]), parts[2]


def confirm(look: Look) -> View:
    """The page that repeats filter and count before a redrive or a discard."""
    action = look.get("action")
    if action not in ("redrive", "discard"):
        raise Unusable("The action is redrive or discard.")
    # Not its end: a dead letter that came during the round may not be in the store yet.
    as_of_ms = look.console.collector.condition.as_of_ms
    if as_of_ms is None:
        raise Unusable("The first reading is under way: try again in a moment.")
    before_ms = as_of_ms + 1
    chosen = _chosen(look, before_ms)
    if not chosen.count:
        raise NotFound("No dead letter matches any more.")
    wanted = Filter.of(look)
    document = {
        "action": action,
        "words": chosen.words,
        "count": chosen.count,
        "queues": {queue: len(places) for queue, places in chosen.places.items()},
        "by_error": dict(chosen.by_error.most_common()),
        "filter": {} if look.all("place") else wanted.query(),
        "places": look.all("place"),
        "before_ms": before_ms,
        "rate": DEFAULT_RATE_PER_S,
    }
    return View("resolve.html", "dead-letters", f"{action.capitalize()} dead letters", document)


def redrive(look: Look) -> Redirect:
    """Put dead letters back on their queues."""
    rate = look.get("rate")
    try:
        rate_per_s = None if rate is None else float(rate)
    except ValueError as e:
        raise Unusable(f"{rate!r} is no rate.") from e
    if rate_per_s is not None and not rate_per_s > 0:
        raise Unusable("The rate is a positive number, or empty for no limit.")
    who, reason = look.user.name, look.get("reason") or ""

    def act(broker: KafkaBroker, queue: str, where: Counted) -> Resolved:
        return broker.redrive(queue, dry_run=False, reason=reason, by=who, rate_per_s=rate_per_s, where=where)

    return _resolve(look, "redrive", act)


def discard(look: Look) -> Redirect:
    """Discard dead letters."""
    who, reason = look.user.name, look.get("reason") or ""

    def act(broker: KafkaBroker, queue: str, where: Counted) -> Resolved:
        return broker.discard(queue, dry_run=False, reason=reason, by=who, where=where)

    return _resolve(look, "discard", act)


def _resolve(look: Look, action: str, act: Callable[[KafkaBroker, str, Counted], Resolved]) -> Redirect:
    """Check the typed number against the present one, and begin."""
    before, typed, reason = look.get("before_ms"), look.get("count"), look.get("reason")
    if before is None:
        raise Unusable("The form is incomplete: open it again.")
    if reason is None:
        raise Unusable("A reason is needed: the audit keeps it.")
    chosen = _chosen(look, number_of(before))
    if typed is None or typed.replace(",", "") != str(chosen.count):
        raise Unusable(
            f"{texts.plural(chosen.count, 'dead letter')} match now, and {typed or 'nothing'} was typed. "
            "Nothing was done."
        )
    if not chosen.count:
        raise NotFound("No dead letter matches any more.")
    broker, total = look.console.broker, chosen.count

    def work(progress: Callable[[int], None]) -> str:
        handled, refused = 0, Counter[str]()
        for queue, places in chosen.places.items():
            before_queue = handled

            def seen(done: int, _: int, before_queue: int = before_queue) -> None:
                progress(before_queue + done)

            broker.declare_queue(queue)
            resolved = act(broker, queue, Counted(places, seen))
            refused.update(resolved.refused)
            handled += resolved.selected
        return _outcome(action, handled, total, refused)

    subject = f"{texts.plural(total, 'dead letter')} {', '.join(chosen.words)}"
    job = look.console.jobs.start(look.user.name, action, subject, reason, total, work)
    return Redirect(f"/jobs/{job.id}", {"job": job.id, "count": total})


def _outcome(action: str, handled: int, total: int, refused: Counter[str]) -> str:
    done = {"redrive": "redriven", "discard": "discarded"}[action]
    text = f"{handled - refused.total():,} {done}"
    if refused:
        text += ", " + ", ".join(f"{count:,} stayed: {why}" for why, count in refused.items())
    if handled < total:
        text += f", {total - handled:,} were resolved by others meanwhile"
    return text


def job(look: Look) -> View:
    """The progress and the end of a redrive or a discard."""
    found = look.console.jobs.get(look.path["id"])
    if found is None:
        raise NotFound("This job is not known: the audit has what became of it.")
    return View("job.html", "dead-letters", f"{found['action'].capitalize()}", dict(found))
