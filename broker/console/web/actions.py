"""Changes of queues, workers and single messages. Each is in the audit before it is carried out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ... import AbortOutcome, Command, Outcome
from ..control_verbs import command_row
from ..message_verbs import message_to
from ..output import Output
from ..session import Session
from ..target import Target
from .looks import Look, NotFound, Redirect, Unusable, View, number_of
from .masking import MASK, without_secrets
from .records import content_of, place_of, record_of
from .related import ORIGIN, SENT_AGAIN, SENT_AS
from .store import Row

#: The time within which a worker decides about one message.
DECISION_S = 8.0
#: The sentences after a change, by their key in the URL.
TOLD = {
    "paused": "The pause is recorded: within seconds, no further task begins. Running tasks continue, and so "
    "do workers of an earlier version, which do not read it.",
    "resumed": "The queue is resumed.",
    "quiet": "The command is recorded: the worker takes no more work, and its running tasks continue.",
    "stop": "The command is recorded: the worker ends in good order.",
    "cancelled": "The message is cancelled.",
    "forwarded": "The message runs now.",
    "too_late": "It was too late: the message has run or is about to.",
    "unknown": "No worker knows the message as a delayed one.",
    "undecided": "No worker has decided yet. The request stands.",
    "aborted": "The abort stands: a message that waits does not run, and a running task is ended. The "
    "timeline shows when a worker has done so.",
    "sent": "The message is sent, as a new one.",
    "schedule-paused": "The schedule is paused: it enqueues nothing until it is resumed.",
    "schedule-resumed": "The schedule is resumed. The occurrences of the pause do not run.",
    "schedule-run": "A message of the schedule is enqueued, beside its occurrences.",
    "schedule-deleted": "The schedule is deleted. A worker writes one of code again.",
}


def reason_of(look: Look) -> str:
    """The reason of a change, which the audit keeps.

    Raises:
      Unusable: When the form has none.
    """
    reason = look.get("reason")
    if reason is None:
        raise Unusable("A reason is needed: the audit keeps it.")
    return reason


def _known_queue(look: Look, name: str | None) -> str:
    if name is None or all(row["queue"] != name for row in look.console.store.get("queues", [])):
        raise NotFound(f"There is no queue {name!r}.")
    look.console.broker.declare_queue(name)
    return name


def carry_out(look: Look, what: str, subject: str, why: str, action: Callable[[], Any]) -> Any:
    """Carry out a change whose beginning and end are in the audit."""
    audit, who = look.console.audit, look.user.name
    audit.note(who, what, subject, why=why, outcome="begun")
    try:
        result = action()
    except Exception as e:
        audit.note(who, what, subject, why=why, outcome=f"failed: {e}"[:500])
        raise
    audit.note(who, what, subject, why=why)
    look.console.collector.read_soon()
    return result


def pause(look: Look) -> Redirect:
    """Let no task of a queue begin."""
    queue, reason, broker = _known_queue(look, look.path["queue"]), reason_of(look), look.console.broker
    result = carry_out(
        look, "pause", queue, reason, lambda: broker.pause(queue, reason=reason, by=look.user.name)
    )
    look.console.collector.read_pauses()
    return Redirect(_queue_url(queue, "paused"), {"command": command_row(result.command)})


def resume(look: Look) -> Redirect:
    """End the pause of a queue."""
    queue, reason = _known_queue(look, look.path["queue"]), look.get("reason") or ""
    broker = look.console.broker
    command: Command = carry_out(
        look, "resume", queue, reason, lambda: broker.resume(queue, reason=reason, by=look.user.name)
    )
    look.console.collector.read_pauses()
    return Redirect(_queue_url(queue, "resumed"), {"command": command_row(command)})


def _queue_url(queue: str, told: str) -> str:
    return f"/queues/{queue}?told={told}"


def quiet(look: Look) -> Redirect:
    """Let a worker take no more work."""
    return _command(look, "quiet", look.console.broker.quiet)


def stop(look: Look) -> Redirect:
    """End a worker in good order."""
    return _command(look, "stop", look.console.broker.stop)


def _command(look: Look, what: str, give: Callable[..., Command]) -> Redirect:
    worker, reason = look.get("id"), reason_of(look)
    if all(row["worker"] != worker for row in look.console.store.get("workers", [])):
        raise NotFound(f"No worker {worker!r} has reported within the last hour.")
    command = carry_out(
        look, what, str(worker), reason, lambda: give(worker, reason=reason, by=look.user.name)
    )
    return Redirect(look.url("/worker", id=str(worker), told=what), {"command": command_row(command)})


# Single messages


def cancel(look: Look) -> Redirect:
    """Drop a delayed message, or one that waits for its retry."""
    broker, message_id = look.console.broker, _message_id(look)
    outcome = carry_out(
        look, "cancel", message_id, look.get("reason") or "",
        lambda: broker.cancel(
            message_id, reason=look.get("reason") or "", by=look.user.name, timeout_s=DECISION_S
        ),
    )  # fmt: skip
    return _decided(look, outcome)


def run_now(look: Look) -> Redirect:
    """Run a delayed message, or one that waits for its retry, now."""
    broker, message_id = look.console.broker, _message_id(look)
    outcomes = carry_out(
        look, "run now", message_id, look.get("reason") or "",
        lambda: broker.run_now(message_id, timeout_s=DECISION_S),
    )  # fmt: skip
    return _decided(look, outcomes[message_id])


def abort(look: Look) -> Redirect:
    """Let a message not run, wherever it is, or end its run."""
    broker, message_id, reason = look.console.broker, _message_id(look), reason_of(look)
    outcome: AbortOutcome = carry_out(
        look, "abort", message_id, reason, lambda: broker.abort(message_id, reason=reason, by=look.user.name)
    )
    return Redirect(look.url("/tasks", id=message_id, told="aborted"), {"outcome": outcome.value})


def _message_id(look: Look) -> str:
    message_id = look.get("id")
    if message_id is None:
        raise Unusable("Name a message.")
    return message_id


def _decided(look: Look, outcome: Outcome | None) -> Redirect:
    told = "undecided" if outcome is None else outcome.value.replace(" ", "_")
    return Redirect(look.url("/tasks", told=told), {"outcome": told})


def edit(look: Look) -> View:
    """The form with the arguments of a message, to send it again as a new one."""
    row, message = _original(look)
    look.console.audit.note(look.user.name, "see arguments", row["message_id"] or str(row["record"]))
    shown = without_secrets(message)
    document = {
        "queue": row["queue"],
        "partition": row["part"],
        "offset": row["place"],
        "actor": row["actor"],
        "message_id": row["message_id"],
        "is_dead": row["is_dead"],
        "args": shown["args"],
        "kwargs": shown["kwargs"],
    }
    return View("send_again.html", "dead-letters", "Send again", document)


def send_again(look: Look) -> Redirect:
    """Send a message again, as a new one that names its origin. A dead letter stays."""
    row, message = _original(look)
    args, kwargs = _edited(look.get("args"), list, "[]"), _edited(look.get("kwargs"), dict, "{}")
    # A masked secret is the one of the original.
    args, kwargs = _unmasked(args, message["args"]), _unmasked(kwargs, message["kwargs"])
    queue, broker = _known_queue(look, row["queue"]), look.console.broker
    session = Session(Target(), Output(as_json=True), 10.0, broker)
    options = {ORIGIN: row["message_id"]}
    if (key := message["options"].get("partition_key")) is not None:
        options["partition_key"] = key
    new = message_to(session, str(row["actor"]), args, kwargs, queue, options)
    sent = carry_out(
        look, SENT_AGAIN, SENT_AS.format(row["message_id"], new.message_id), look.get("reason") or "",
        lambda: broker.enqueue(new),
    )  # fmt: skip
    return Redirect(look.url("/tasks", told="sent"), {"message_id": sent.message_id})


def _original(look: Look) -> tuple[Row, dict[str, Any]]:
    """Where the message is, and its content: a dead letter, by its place, or else by its id the last record
    of the message in the log of its queue.

    Raises:
      NotFound: When the cache has no such dead letter, or the log no such message.
      Unusable: When the user may not see its arguments, or the cache does not have them.
    """
    if not look.user.may_see_arguments:
        raise Unusable("To send a message again needs the right to see arguments.")
    if (message_id := look.get("id")) is not None:
        record = record_of(look, message_id)
        if record is None:
            raise NotFound("The log of its queue does not have the message any more.")
        return {
            "queue": record.queue_name, "part": record.partition, "place": record.offset,
            "actor": record.message.actor_name, "message_id": message_id, "record": place_of(record),
            "is_dead": False,
        }, content_of(record)  # fmt: skip
    place = (look.get("queue"), number_of(look.get("partition") or ""), number_of(look.get("offset") or ""))
    found = look.console.store.query(
        "SELECT * FROM whole_dead_letter WHERE queue = ? AND part = ? AND place = ?", place
    )
    if not found:
        raise NotFound("There is no such dead letter: it was redriven or discarded, or Kafka has deleted it.")
    (row,) = found
    message = None if row["message"] is None else json.loads(row["message"])
    if message is None or message.get("is_cut"):
        raise Unusable("Its message cannot be read, or is too large for this form.")
    return {**row, "is_dead": True}, message


def _edited(text: str | None, kind: type, empty: str) -> Any:
    try:
        value = json.loads(text or empty)
    except (ValueError, RecursionError) as e:
        raise Unusable(f"The arguments are no JSON: {e}") from e
    if not isinstance(value, kind):
        raise Unusable("Arguments are a JSON list, and keyword arguments a JSON object.")
    return value


def _unmasked(edited: Any, original: Any) -> Any:
    """The edited value, in which each mask is the original's value at its place."""
    if edited == MASK:
        return original
    if isinstance(edited, dict) and isinstance(original, dict):
        return {name: _unmasked(one, original.get(name)) for name, one in edited.items()}
    if isinstance(edited, list) and isinstance(original, list):
        padded = [*original, *[None] * len(edited)]
        return [_unmasked(one, padded[index]) for index, one in enumerate(edited)]
    return edited
