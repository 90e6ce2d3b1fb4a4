"""The page of schedules, and their changes. Each change is in the audit before it is carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import ScheduleNotFound
from ...process import clock
from .actions import carry_out, reason_of
from .looks import Look, NotFound, Redirect, Unusable, View
from .store import Row


def schedules(look: Look) -> View:
    """All schedules: their times, the next and the last run, and how often one was missed."""
    known = _known(look)
    now_ms = clock.wall_ms()
    rows = [
        {**row, "overdue": not row["paused"] and row["next_ms"] is not None and row["next_ms"] < now_ms}
        for row in known["rows"]
    ]
    return View("schedules.html", "schedules", "Schedules", {"schedules": rows, "missing": known["missing"]})


def pause(look: Look) -> Redirect:
    """Let a schedule enqueue nothing until it is resumed."""
    schedule, reason, broker = _schedule(look), reason_of(look), look.console.broker
    name = schedule["schedule"]
    return _changed(
        look, "pause schedule", name, "schedule-paused",
        lambda: broker.schedules.pause(name, reason=reason, by=look.user.name),
    )  # fmt: skip


def resume(look: Look) -> Redirect:
    """End the pause of a schedule."""
    schedule, broker = _schedule(look), look.console.broker
    name, reason = schedule["schedule"], look.get("reason") or ""
    return _changed(
        look, "resume schedule", name, "schedule-resumed",
        lambda: broker.schedules.resume(name, reason=reason, by=look.user.name),
    )  # fmt: skip


def run_now(look: Look) -> Redirect:
    """Enqueue a message of a schedule now, beside its occurrences."""
    schedule, broker = _schedule(look), look.console.broker
    name = schedule["schedule"]
    # The message needs its queue, whose code this process may not have.
    broker.declare_queue(schedule["queue"])
    return _changed(look, "run schedule", name, "schedule-run", lambda: broker.schedules.run_now(name))


def delete(look: Look) -> Redirect:
    """Delete a schedule."""
    schedule, broker = _schedule(look), look.console.broker
    name = schedule["schedule"]
    reason_of(look)
    return _changed(look, "delete schedule", name, "schedule-deleted", lambda: broker.schedules.delete(name))


def _known(look: Look) -> dict[str, Any]:
    known: dict[str, Any] = look.console.store.get("schedules", {"rows": [], "missing": []})
    return known


def _schedule(look: Look) -> Row:
    name = look.get("name")
    if name is None:
        raise Unusable("Name a schedule.")
    found = next((row for row in _known(look)["rows"] if row["schedule"] == name), None)
    if found is None:
        raise NotFound(f"There is no schedule {name!r}.")
    return dict(found)


def _changed(look: Look, what: str, name: str, told: str, action: Callable[[], Any]) -> Redirect:
    try:
        result = carry_out(look, what, name, look.get("reason") or "", action)
    except ScheduleNotFound as e:
        look.console.collector.read_schedules()
        raise NotFound(str(e)) from e
    look.console.collector.read_schedules()
    document: dict[str, Any] = {"schedule": name}
    if what == "run schedule":
        document["message_id"] = result.message_id
    return Redirect(look.url("/schedules", told=told), document)
