"""The verbs that check: healthcheck, doctor."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Annotated, TypeVar

import typer

from .. import NotAuthorized, QueueState, TopicMisconfigured, WorkerInfo, WorkerState
from ..process import clock
from . import findings, texts
from .documents import FindingRow
from .exits import ExitCode
from .findings import ERROR, FINDING_COLUMNS, WARNING, finding
from .output import Answer, Table
from .session import Session, ending, served_queues

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    app.command("healthcheck")(healthcheck)
    app.command("doctor")(doctor)


def healthcheck(
    context: typer.Context,
    is_worker: Annotated[
        bool, typer.Option("--worker", help="Check the workers of one host instead of the queues.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="The host for --worker; by default this one.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="The queues; by default all.")] = None,
    max_age: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Unhealthy when a message waits for longer.")
    ] = None,
    max_dead: Annotated[int | None, typer.Option(min=0, help="Unhealthy with more dead letters.")] = None,
) -> None:
    """Answer an orchestrator by the exit code: 0 healthy, 1 unhealthy, 3 Kafka does not answer.

    Without --worker: there is a queue, and none has waiting messages without a living worker, or a delayed
    message that is due for 30 s, or exceeds a limit. A stuck or silent worker of a queue that others serve is
    a warning. With --worker: this host has a busy or idle worker, and none that is stuck or silent. A worker
    with some threads in tasks past their limits, or that is quiet, is healthy, with a warning.

    \b
    Examples:
      dkb shop.tasks healthcheck --max-age 10m --max-dead 100
      dkb shop.tasks healthcheck --worker
    """
    with ending(context) as session:
        if is_worker:
            found = _unhealthy_workers(session.broker.workers(), host or socket.gethostname())
        else:
            age_s = None if max_age is None else texts.parse_duration(max_age).total_seconds()
            found = _unhealthy_queues(session, queue, age_s, max_dead)
        is_healthy = all(row["severity"] == WARNING for row in found)
        lines = ["healthy"] if is_healthy else []
        document = {"healthy": is_healthy, "findings": found}
        session.output.show(Answer("healthcheck", document, [Table(FINDING_COLUMNS, found)], lines))
        if not is_healthy:
            raise typer.Exit(ExitCode.FINDING)


def _unhealthy_workers(workers: Iterable[WorkerInfo], host: str) -> list[FindingRow]:
    here = [
        worker
        for worker in workers
        if worker.state is not WorkerState.GONE and worker.report and worker.report.host == host
    ]
    if not here:
        return [finding("workers", ERROR, host, "no living worker of this host has reported", "start one")]
    ill = [worker for worker in here if worker.state in (WorkerState.STUCK, WorkerState.SILENT)]
    return [
        finding("workers", ERROR, worker.worker_id, f"{worker.state}: {worker.reason}", "restart it")
        for worker in ill
    ] + [
        found
        for worker in here
        if worker not in ill
        for found in (
            *([findings.of_overdue(worker)] if worker.overdue else []),
            *([findings.of_quiet(worker)] if worker.is_quiet else []),
        )
    ]


def _unhealthy_queues(
    session: Session, wanted: list[str] | None, max_age_s: float | None, max_dead: int | None
) -> list[FindingRow]:
    names = session.queue_names(wanted)
    states = session.broker.queues(*names) if names else []
    workers = session.broker.workers()
    if not wanted:
        session.check_served(names, workers)
    if not names:
        return [findings.of_no_queue(session.target.name)]
    others = session.broker.other_groups(workers)
    found = list(findings.of_groups({name: others[name] for name in names if name in others}))
    for state in states:
        if (unserved := findings.of_unserved(state, workers)) is not None:
            found.append(unserved)
        age_s = max(state.lag_s or 0.0, state.oldest_incomplete_s or 0.0)
        if max_age_s is not None and age_s > max_age_s:
            text = f"its oldest message is {texts.age(age_s)} old, above {texts.age(max_age_s)}"
            found.append(finding("age", ERROR, state.name, text, "see dkb status and dkb top"))
        if max_dead is not None and state.dead > max_dead:
            text = f"it has {texts.plural(state.dead, 'dead letter')}, above {max_dead:,}"
            found.append(finding("dead letters", ERROR, state.name, text, "see dkb dlq errors"))
        found += findings.of_overdue_delays(state)
    of_these = [w for w in workers if w.report and not set(names).isdisjoint(w.report.queues)]
    # Whether a queue suffers from them, the findings about queues tell.
    found += [row | {"severity": WARNING} for row in findings.of_ill_workers(of_these)]
    return found


def doctor(
    context: typer.Context,
    is_strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings, too.")] = False,
) -> None:
    """Check rights, topics, clocks, versions, workers, queues and delays. Each finding has a remedy.

    The files of the delay indexes are those of this machine: run it on the host of a worker, too.

    \b
    Example:
      dkb shop.tasks doctor
    """
    with ending(context) as session:
        examination = Examination(session)
        found = examination.run()
        order = {ERROR: 0, WARNING: 1}
        found.sort(key=lambda row: (order[row["severity"]], row["check"]))
        passed = ", ".join(examination.passed)
        session.output.show(
            Answer(
                "doctor",
                {"findings": found, "checked": examination.passed},
                [Table(FINDING_COLUMNS, found)],
                [f"Checked: {passed}."] if passed else [],
            )
        )
        if any(row["severity"] == ERROR or is_strict for row in found):
            raise typer.Exit(ExitCode.FINDING)


class Examination:
    """One call of ``doctor``.

    Attributes:
      passed: The parts that could be checked.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._found: list[FindingRow] = []
        self.passed: list[str] = []

    def run(self) -> list[FindingRow]:
        broker = self._session.broker
        now_ms = clock.wall_ms()
        topics = self._ask("topics", broker.check_topics) or []
        self._found += findings.of_topics(topics)
        self._found += findings.of_replication(topics)
        self._found += findings.of_codecs(topics, lambda name: find_spec(name) is not None)
        workers = self._ask("workers", broker.workers) or []
        self._found += findings.of_workers(workers, now_ms)
        self._found += findings.of_groups(broker.other_groups(workers))
        self._ask("history", lambda: broker.history(limit=1, scan_limit=1))
        if pauses := self._ask("pauses", broker.pauses):
            self._found += findings.of_pauses(pauses, now_ms)
        if (faults := broker.check_index_files()) is not None:
            self._found += findings.of_index_files(faults)
            self.passed.append("index files of this machine")
        retention = {topic.name: topic.settings.get("retention.ms") for topic in topics}
        found = self._ask("queues", self._session.queue_names)
        names = found or []
        if found == [] and not served_queues(workers):
            self._found.append(findings.of_no_queue(self._session.target.name))
        for state in self._states_of(names):
            kept_ms = int(retention.get(state.topic) or 0)
            self._found += findings.of_queue(state, workers, kept_ms)
        for name in sorted(served_queues(workers).difference(names)):
            self._ask(f"queue {name}", partial(broker.queue_names, name))
        return self._found

    def _states_of(self, names: list[str]) -> list[QueueState]:
        """The states of the queues that can be read. A refusal about one of them is a finding about it."""
        broker = self._session.broker
        try:
            states = broker.queues(*names) if names else []
        except (NotAuthorized, TopicMisconfigured):
            answers = [self._ask(f"queue {name}", partial(broker.queues, name)) for name in names]
            return [state for answer in answers for state in answer or ()]
        self.passed += [f"queue {name}" for name in names]
        return states

    def _ask(self, part: str, question: Callable[[], T]) -> T | None:
        """The answer; a missing right is a finding, and the other parts are checked nevertheless."""
        try:
            answer = question()
        except NotAuthorized as e:
            self._found.append(finding("rights", ERROR, part, str(e), "grant the right that the text names"))
            return None
        except TopicMisconfigured as e:
            self._found.append(finding("policy", ERROR, part, str(e), "correct the topic"))
            return None
        self.passed.append(part)
        return answer
