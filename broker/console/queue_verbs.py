"""The verbs about queues: status, queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import typer

from .. import NotAuthorized, PauseResult, Pauses, QueueState, WorkerInfo, WorkerState
from ..process import clock
from . import texts
from .findings import LATE_FORWARD_S, group_warnings, overdue_text
from .live import watch
from .output import Answer, Table
from .pauses import disobedience, unknown_members
from .queue_rows import (
    PARTITION_COLUMNS,
    QUEUE_COLUMNS,
    LedgerWatch,
    Sample,
    partition_rows,
    queue_rows,
)
from .session import Session, ending

NO_QUEUE = (
    "The namespace has no queue yet: its topics are created with the first message or worker. Or its name is "
    "not the application's: see --namespace, DKB_NAMESPACE and DKB_URL."
)


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("queues")(queues)


def status(
    context: typer.Context,
    queue: Annotated[list[str] | None, typer.Argument(help="The queues; by default all.")] = None,
    sample: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="SECONDS", help="The time over which rates are measured; 0 for no rates."
        ),
    ] = 2.0,
    is_watched: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Repeat it every SECONDS of --sample until Ctrl-C, also beyond outages."
        ),
    ] = False,
) -> None:
    """Show how the queues are: waiting, running, delayed and dead messages, rates, and the time to drain.

    \b
    Examples:
      dkb shop.tasks status
      dkb --bootstrap kafka:9092 --group shop status mail --watch
    """
    with ending(context) as session:
        statuses = _Statuses(session, queue)
        if is_watched:
            watch(session.output, statuses.answer, sample or 2.0)
            return
        if sample:
            statuses.take_sample()
            clock.sleep(sample)
        session.output.show(statuses.answer())


class _Statuses:
    """The answers of ``status``. Each compares with the sample before, if there was one."""

    def __init__(self, session: Session, wanted: list[str] | None) -> None:
        self._session = session
        self._wanted = wanted
        self._ledgers = LedgerWatch()
        self._before: Sample | None = None

    def take_sample(self) -> None:
        self._before = _sample(self._session, self._wanted)

    def answer(self) -> Answer:
        session, wanted, before = self._session, self._wanted, self._before
        now = _sample(session, wanted)
        workers = session.broker.workers()
        missing = [] if wanted else list(_unseen(session, now, workers))
        try:
            pauses: Pauses[PauseResult] | None = session.broker.pauses()
        except NotAuthorized as e:
            pauses = None
            missing.append(str(e).rstrip("."))
        if pauses is not None and not pauses.is_complete:
            names = ", ".join(sorted(pauses.unreadable))
            missing.append(f"this version cannot read the last command about {names}: it may be paused")
        rows = queue_rows(before, now, workers, self._ledgers, pauses)
        states = Counter(str(worker.state) for worker in workers)
        elapsed_s = None if before is None else (now.at_ms - before.at_ms) / 1000
        self._before = now
        return Answer(
            "status",
            {
                "at_ms": now.at_ms,
                "sample_s": elapsed_s,
                "queues": rows,
                "workers": dict(states),
                "missing": missing,
            },
            [Table(QUEUE_COLUMNS, rows, empty=NO_QUEUE)],
            [
                _workers_line(states, sum(w.is_quiet for w in workers if w.state is not WorkerState.GONE)),
                *(f"Warning: {line}" for line in group_warnings(session.broker.other_groups(workers))),
                *_pause_lines(pauses or {}),
                *_overdue_lines(now.states),
                *_purge_lines(now.states),
                *_tail_lines(now.states),
                *_ledger_lines(rows),
                *(f"Incomplete: {sentence}." for sentence in missing),
            ],
        )


def _sample(session: Session, wanted: list[str] | None) -> Sample:
    names = session.queue_names(wanted)
    at_ms = clock.wall_ms()
    return Sample(at_ms, session.broker.queues(*names) if names else ())


def _unseen(session: Session, sample: Sample, workers: Sequence[WorkerInfo]) -> Iterator[str]:
    """A sentence about the queues of living workers that this client may not see."""
    try:
        session.check_served([state.name for state in sample.states], workers)
    except NotAuthorized as e:
        yield str(e).rstrip(".")


def _pause_lines(pauses: Mapping[str, PauseResult]) -> Iterator[str]:
    for name, pause in sorted(pauses.items()):
        command = pause.command
        yield f"{name} is paused by {command.by} since {texts.moment(command.at_ms)}: {command.reason}"
        if pause.unknown:
            yield disobedience(name, pause)
        elif not pause.members_known:
            yield f"{unknown_members(name)}."


def _workers_line(states: Counter[str], quiet: int) -> str:
    order = ("busy", "idle", "stuck", "silent", "gone")
    parts = [f"{states[name]} {name}" for name in order if states[name]]
    among = f"; {quiet:,} of them quiet, which take no more work" if quiet else ""
    return "Workers of the last hour: " + (", ".join(parts) or "none") + among


def _overdue_lines(states: Iterable[QueueState]) -> Iterator[str]:
    for state in states:
        if state.overdue_s is not None and state.overdue_s > LATE_FORWARD_S:
            yield f"{state.name}: {overdue_text(state.overdue_s)}."


def _tail_lines(states: Iterable[QueueState]) -> Iterator[str]:
    for state in states:
        if lost := sum(p.lost_tail for p in state.partitions):
            yield (
                f"{state.name}: its logs have lost {texts.plural(lost, 'record')} at their ends that workers "
                "have had; see dkb doctor."
            )


def _purge_lines(states: Iterable[QueueState]) -> Iterator[str]:
    for state in states:
        if state.counts.purged:
            by = ""
            if (note := state.purge) is not None:
                by = f" by {note.by} at {texts.moment(note.at_ms)}" + (f": {note.reason}" * bool(note.reason))
            yield f"{state.name}: a purge deleted {texts.plural(state.counts.purged, 'record')}{by}."


def _ledger_lines(rows: Sequence[object]) -> Iterator[str]:
    for row in rows:
        assert isinstance(row, dict)
        if row["ledger_difference"]:
            since = row["ledger_since_ms"]
            seen = f", the last of them at {texts.moment(since)}" if since else ""
            before = row["ledger_before_ms"]
            older = f" They were enqueued before {texts.moment(before)}." if before else ""
            yield (
                f"{row['queue']}: {texts.plural(row['ledger_difference'], 'record')} were deleted before "
                f"they were known to be complete (retention){seen}.{older}"
            )


def queues(
    context: typer.Context,
    queue: Annotated[list[str] | None, typer.Argument(help="The queues; by default all.")] = None,
) -> None:
    """Show each partition of the queues: its offsets, the oldest records, its owner, and suspects of crashes.

    \b
    Example:
      dkb shop.tasks queues mail
    """
    with ending(context) as session:
        names = session.queue_names(queue)
        session.warn_of_groups(names)
        states = session.broker.queues(*names) if names else []
        try:
            workers = session.broker.workers()
        except NotAuthorized as e:
            session.output.say(f"Incomplete: the owners are not known: {e}")
            workers = []
        rows = partition_rows(states, workers)
        session.output.show(
            Answer("queues", {"partitions": rows}, [Table(PARTITION_COLUMNS, rows, empty=NO_QUEUE)])
        )
