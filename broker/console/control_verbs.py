"""The verbs that control queues and workers: pause, resume, quiet, stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import Command, PauseResult, WorkerInfo, WorkerState
from . import texts
from .documents import CommandRow
from .exits import ExitCode
from .output import Answer
from .pauses import disobedience, unknown_members
from .session import Refused, Session, ending

#: After Kafka's acknowledgement of a pause, no worker begins a task without having read it after 11 s.
DEFAULT_WAIT_S = 15.0

Reason = Annotated[str, typer.Option(help="Why, for the log of each worker.")]
By = Annotated[str | None, typer.Option(help="Who; by default this user and host.")]
WorkerId = Annotated[str, typer.Argument(help="The worker's id, or a unique part of it.")]


def register(app: typer.Typer) -> None:
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("quiet")(quiet)
    app.command("stop")(stop)


def command_row(command: Command) -> CommandRow:
    return CommandRow(
        id=command.id,
        kind=command.kind.value,
        target=command.target,
        by=command.by,
        at_ms=command.at_ms,
        reason=command.reason,
    )


def pause(
    context: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue.")],
    reason: Annotated[str, typer.Option(help="Why, for the log of each worker. It is needed.")],
    by: By = None,
    wait: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="The time to wait until it is in force.")
    ] = DEFAULT_WAIT_S,
) -> None:
    """Let no task of a queue begin, on any worker, until resume. It outlives workers and Kafka's restarts.

    Running tasks continue, and the queue takes messages. Exit code 5: it stands, and may not be in force yet.

    \b
    Example:
      dkb shop.tasks pause mail --reason "the mail server is down"
    """
    with ending(context) as session:
        broker = session.declared(queue)
        session.warn_of_groups([queue])
        result = broker.pause(queue, reason=reason, by=by, timeout_s=wait)
        document = {
            "command": command_row(result.command),
            "in_force": result.in_force,
            "confirmed": list(result.confirmed),
            "unconfirmed": list(result.unconfirmed),
            "unknown": list(result.unknown),
            "members_known": result.members_known,
        }
        lines = [f"The queue {queue!r} is paused: {_effect(result)}."]
        if result.confirmed:
            lines.append(f"Confirmed by {', '.join(result.confirmed)}.")
        if result.unconfirmed:
            lines.append(
                f"Not confirmed by {', '.join(result.unconfirmed)}: silent workers begin nothing before they "
                "have read it."
            )
        session.output.show(Answer("pause", document, lines=lines))
        if result.unknown:
            raise Refused(disobedience(queue, result), ExitCode.UNDECIDED)
        if not result.members_known:
            raise Refused(f"{unknown_members(queue)}; see dkb --verbose pause.", ExitCode.UNDECIDED)
        if not result.in_force:
            raise typer.Exit(ExitCode.UNDECIDED)


def _effect(result: PauseResult) -> str:
    if not result.in_force:
        return "workers are about to apply it"
    if result.is_certain:
        return "no task of it begins any more"
    return "no task of it begins on a worker that reads commands"


def resume(
    context: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue.")],
    reason: Reason = "",
    by: By = None,
) -> None:
    """End the pause of a queue.

    \b
    Example:
      dkb shop.tasks resume mail --reason "it is back"
    """
    with ending(context) as session:
        broker = session.declared(queue)
        paused = broker.paused_queues()
        was_paused = queue in paused or queue in paused.unreadable
        command = broker.resume(queue, reason=reason, by=by)
        session.output.show(
            Answer(
                "resume",
                {"command": command_row(command), "was_paused": was_paused},
                lines=[f"The queue {queue!r} is resumed." if was_paused else f"{queue!r} was not paused."],
            )
        )


def quiet(context: typer.Context, worker: WorkerId, reason: Reason = "", by: By = None) -> None:
    """Let one worker process take no more work. Its running tasks continue, and it lives on.

    \b
    Example:
      dkb shop.tasks quiet web-1:4711
    """
    with ending(context) as session:
        _command(
            session,
            "quiet",
            worker,
            lambda name: session.broker.quiet(name, reason=reason, by=by, allow_unseen=True),
        )


def stop(context: typer.Context, worker: WorkerId, reason: Reason = "", by: By = None) -> None:
    """End one worker process in good order, as SIGTERM does.

    Dramatiq's command stops all its processes when one of them ends.

    \b
    Example:
      dkb shop.tasks stop web-1:4711
    """
    with ending(context) as session:
        _command(
            session,
            "stop",
            worker,
            lambda name: session.broker.stop(name, reason=reason, by=by, allow_unseen=True),
        )


def _command(session: Session, verb: str, wanted: str, give: Callable[[str], Command]) -> None:
    worker = find_worker(session.broker.workers(), wanted)
    command = give(worker.worker_id)
    lines = [f"{verb.capitalize()} of {worker.worker_id} is recorded."]
    if worker.state is WorkerState.SILENT:
        lines.append("It is silent: it obeys once it runs again, within a day.")
    session.output.show(
        Answer(verb, {"command": command_row(command), "worker_state": str(worker.state)}, lines=lines)
    )


def find_worker(workers: list[WorkerInfo], wanted: str) -> WorkerInfo:
    """The living worker of that id, or the only one with that part in its id.

    Raises:
      Refused: When no living worker matches, or more than one.
    """
    found = [worker for worker in workers if wanted == worker.worker_id] or [
        worker for worker in workers if wanted in worker.worker_id
    ]
    alive = [worker for worker in found if worker.state is not WorkerState.GONE]
    if len(alive) == 1:
        return alive[0]
    if not found:
        raise Refused(f"No worker has {wanted!r} in its id; see dkb workers.", ExitCode.FINDING)
    if not alive:
        raise Refused(f"{found[-1].worker_id} is gone: {texts.line(found[-1].reason)}.", ExitCode.FINDING)
    raise Refused(f"{wanted!r} is in the ids of {', '.join(worker.worker_id for worker in alive)}.")
