"""The findings of ``doctor``: what is wrong, or may be, and the remedy. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .. import IndexFileFinding, PauseResult, QueueState, TopicState, WorkerInfo, WorkerState
from . import texts
from .documents import FindingRow, TopicRow
from .output import Column
from .pauses import disobedience
from .queue_rows import Served

ERROR, WARNING = "error", "warning"
#: A record that was taken so long ago is worth a look: the longest tasks should be shorter.
LONG_RUN_S = 3_600.0
#: A worker's clock that differs from Kafka's by more makes due times and ages wrong.
CLOCK_S = 5.0
#: A delayed message that is due for longer was not forwarded.
LATE_FORWARD_S = 30.0
#: A message that has waited for this share of its queue's retention is about to be deleted.
RETENTION_SHARE = 0.5
#: The workers that a finding about a queue names.
SHOWN_WORKERS = 3
#: The remedies for a worker that does not do its work, by its state.
ILL = {
    WorkerState.STUCK: "look at the task; restart the worker if the task cannot end",
    WorkerState.SILENT: "look at its process and its network; Kafka gives its work to others after the "
    "session timeout",
}
LONG_PAUSE_S = 24 * 3_600.0
#: A partition with so many unfinished records below its highest one is about to pause: its commit metadata,
#: which lists them, may have 4,096 characters.
MANY_INCOMPLETE = 1_000
#: The packages that read compressed records, by the setting compression.type.
CODEC_MODULES = {"zstd": "zstandard", "snappy": "snappy", "lz4": "lz4"}


def finding(check: str, severity: str, subject: str, text: str, remedy: str) -> FindingRow:
    return FindingRow(check=check, severity=severity, subject=subject, finding=text, remedy=remedy)


def of_no_queue(target: str) -> FindingRow:
    """The finding about a namespace without a queue: its name may be misspelt.

    Parameters:
      target: The name of the application, or of the namespace.
    """
    return finding(
        "queues",
        ERROR,
        target,
        "the namespace has no queue",
        "check the namespace; the first message or worker creates the topics of a queue",
    )


def of_groups(others: Mapping[str, Sequence[str]]) -> Iterator[FindingRow]:
    """The findings about queues whose workers have another ``group_id``; see ``KafkaBroker.other_groups``."""
    queues: dict[tuple[str, ...], list[str]] = {}
    for queue, ids in sorted(others.items()):
        queues.setdefault(tuple(ids), []).append(queue)
    for ids, names in queues.items():
        yield finding(
            "group", ERROR, ", ".join(names), group_text(ids), f"name --group {ids[0]}, {OR_IN_URL}"
        )


#: Where a group_id is told instead.
OR_IN_URL = "DKB_GROUP, or group_id in the URL"


def group_text(ids: Sequence[str]) -> str:
    return (
        f"its workers have the group_id {' and '.join(map(repr, ids))}, which is not this command's: what "
        "waits and what is complete is not known"
    )


def group_warnings(others: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The same as sentences."""
    for row in of_groups(others):
        yield f"{row['subject']}: {row['finding']}; {row['remedy']}."


def of_topics(topics: Iterable[TopicState]) -> Iterator[FindingRow]:
    for topic in topics:
        if topic.leaderless:
            yield finding(
                "replication",
                ERROR,
                topic.name,
                f"partitions {_numbers(topic.leaderless)} have no leader: nothing is read or written there",
                "start the Kafka nodes that hold them",
            )
        if topic.under_replicated:
            yield finding(
                "replication",
                WARNING,
                topic.name,
                f"partitions {_numbers(topic.under_replicated)} have fewer replicas in sync than replicas",
                "start the missing Kafka nodes, or wait until they have caught up",
            )
        if not topic.settings:
            yield finding(
                "rights",
                WARNING,
                topic.name,
                "its settings may not be read, so nobody knows whether they lose messages",
                f"grant DESCRIBE_CONFIGS on the topic {topic.name!r}",
            )
        for one in topic.findings:
            text = f"{one.setting}={one.value}, {one.effect}"
            yield finding("policy", ERROR if one.is_certain else WARNING, topic.name, text, one.command)


def of_codecs(topics: Iterable[TopicState], is_installed: Callable[[str], bool]) -> Iterator[FindingRow]:
    """The topics whose records are compressed by a codec that is not installed here.

    Parameters:
      is_installed: Whether a module can be imported.
    """
    for topic in topics:
        codec = topic.settings.get("compression.type", "")
        if codec in CODEC_MODULES and not is_installed(CODEC_MODULES[codec]):
            yield finding(
                "codecs",
                WARNING,
                topic.name,
                f"its records are compressed with {codec}, and this machine cannot read them",
                f"pip install 'dramatiq-kafka-broker[{codec}]' here, and on each worker that lacks it",
            )


def of_replication(topics: Sequence[TopicState]) -> Iterator[FindingRow]:
    single = sorted(topic.name for topic in topics if topic.replication == 1)
    if single:
        yield finding(
            "replication",
            WARNING,
            f"{len(single)} of {len(topics)} topics",
            "have one replica: a lost disk loses their messages",
            "on a cluster of three nodes, raise it with kafka-reassign-partitions.sh",
        )


def of_queue(
    state: QueueState, workers: Sequence[WorkerInfo], retention_ms: int | None
) -> Iterator[FindingRow]:
    """The findings about one queue."""
    if (unserved := of_unserved(state, workers)) is not None:
        yield unserved
    if state.counts.difference:
        yield finding(
            "ledger",
            ERROR,
            state.name,
            f"{texts.plural(state.counts.difference, 'record')} were deleted before they were known to be "
            "complete",
            "raise retention.ms of the topic above the longest backlog",
        )
    yield from _of_partitions(state)
    if state.lag_s is not None and retention_ms and state.lag_s * 1000 > retention_ms * RETENTION_SHARE:
        yield finding(
            "retention",
            ERROR,
            state.name,
            f"the oldest message waits for {texts.age(state.lag_s)}, and Kafka deletes it after "
            f"{texts.age(retention_ms / 1000)}",
            f"raise retention.ms of the topic {state.topic!r}, then work the backlog off",
        )
    yield from of_overdue_delays(state)
    yield from of_commits(state)


def of_unserved(state: QueueState, workers: Sequence[WorkerInfo]) -> FindingRow | None:
    """The finding about a queue whose messages no worker takes, or runs, with what its workers do instead."""
    own = [w for w in workers if w.report and state.name in w.report.queues]
    alive = [w for w in own if w.state is not WorkerState.GONE]
    able = [w for w in alive if w.state in (WorkerState.BUSY, WorkerState.IDLE)]
    if any(not w.is_quiet for w in able):
        return None
    found = Served(own).of_queue(state)
    waiting, running = found.waiting, found.running
    if waiting:
        text = f"{texts.plural(waiting, 'message')} {'waits' if waiting == 1 else 'wait'}"
    elif running and not able:
        text = f"{texts.plural(running, 'message')} {'is' if running == 1 else 'are'} taken and not complete"
    else:
        return None
    reasons = [f"{w.worker_id} is {_unable(w)}" for w in alive]
    if not reasons:
        reasons = ["its workers of the last hour are gone" if own else "no worker of it has reported"]
    if len(reasons) > SHOWN_WORKERS:
        reasons = [*reasons[:SHOWN_WORKERS], f"{len(reasons) - SHOWN_WORKERS:,} more workers do not, either"]
    remedy = "start a worker of the queue"
    if alive:
        remedy += ", or restart those: dkb workers, dkb top"
    text += f", and no worker of the queue is busy or idle and takes work: {'; '.join(reasons)}"
    return finding("workers", ERROR, state.name, text, remedy)


def _unable(worker: WorkerInfo) -> str:
    """Why a worker does not take messages."""
    return "quiet" if worker.is_quiet else f"{worker.state} ({worker.reason})"


def of_ill_workers(workers: Iterable[WorkerInfo]) -> Iterator[FindingRow]:
    """The stuck and silent workers."""
    for worker in workers:
        if worker.state in ILL:
            severity = ERROR if worker.state is WorkerState.STUCK else WARNING
            text = f"{worker.state}: {worker.reason}"
            yield finding("workers", severity, worker.worker_id, text, ILL[worker.state])


def of_commits(state: QueueState) -> Iterator[FindingRow]:
    """The finding about commits without metadata, as those that the embedded Kafka returns."""
    if count := sum(not p.has_metadata for p in state.partitions):
        yield finding(
            "commits",
            WARNING,
            state.name,
            f"the commits of {texts.plural(count, 'partition')} come without the metadata that workers "
            "write, as on the embedded Kafka: holes and suspects of crashes are not known, and after a crash "
            "more messages run again",
            "use Apache Kafka where that matters; a commit that another program has set is replaced by the "
            "next",
        )


def of_overdue_delays(state: QueueState) -> Iterator[FindingRow]:
    """The finding about delayed messages that nobody forwards."""
    if state.overdue_s is not None and state.overdue_s > LATE_FORWARD_S:
        yield finding(
            "delays",
            ERROR,
            state.name,
            overdue_text(state.overdue_s),
            "start a worker of the namespace, or restart a quiet one; its log says why it forwards nothing",
        )


def overdue_text(overdue_s: float) -> str:
    return f"a delayed message is due for {texts.age(overdue_s)} and was not forwarded"


def _of_partitions(state: QueueState) -> Iterator[FindingRow]:
    for p in state.partitions:
        subject = f"{state.name}, partition {p.partition}"
        if p.lost_tail:
            yield finding(
                "ledger",
                ERROR,
                subject,
                f"its log has lost {texts.plural(p.lost_tail, 'record')} at its end that workers have had: "
                "an unclean election, or a topic that was recreated",
                "a worker of the queue takes the partition over again; keep three replicas, "
                "min.insync.replicas=2 and unclean.leader.election.enable=false",
            )
        for suspect in p.suspects:
            running = ", and runs" if suspect.is_running else ""
            yield finding(
                "crashes",
                WARNING,
                subject,
                f"the record at offset {suspect.offset} may have killed "
                f"{texts.plural(suspect.crashes, 'worker')}{running}",
                "look at the death notes in dkb workers; it becomes a dead letter when it kills again",
            )
        if p.counts.incomplete >= MANY_INCOMPLETE:
            yield finding(
                "stuck",
                WARNING,
                subject,
                f"{texts.plural(p.counts.incomplete, 'record')} are unfinished: consumption pauses when its "
                "commit can list no more",
                "dkb top shows the task that holds it; give the actor a time_limit, or add partitions",
            )
        if p.oldest_incomplete_s is not None and p.oldest_incomplete_s > LONG_RUN_S:
            yield finding(
                "stuck",
                WARNING,
                subject,
                f"its oldest unfinished record (offset {p.next_offset}) is "
                f"{texts.age(p.oldest_incomplete_s)} old, with "
                f"{texts.plural(p.holes, 'completed record')} behind it",
                "dkb top shows what runs; give the actor a time_limit",
            )


def of_workers(workers: Sequence[WorkerInfo], now_ms: int) -> Iterator[FindingRow]:
    yield from of_ill_workers(workers)
    for worker in workers:
        if worker.state not in ILL and worker.overdue:
            yield of_overdue(worker)
        if worker.is_quiet and worker.state is not WorkerState.GONE:
            yield of_quiet(worker)
        if worker.signal is not None and worker.signal not in (2, 15):
            yield finding(
                "crashes",
                WARNING,
                worker.worker_id,
                worker.reason,
                "SIGKILL often means that the memory limit was reached; see the log of the system",
            )
    yield from _of_reports([w for w in workers if w.state is not WorkerState.GONE], now_ms)


def of_overdue(worker: WorkerInfo) -> FindingRow:
    """The finding about a worker whose tasks are past their time limits while others end."""
    task = worker.overdue[0]
    threads = worker.report.threads if worker.report else 0
    return finding(
        "overdue",
        WARNING,
        worker.worker_id,
        f"{len(worker.overdue)} of its {texts.plural(threads, 'thread')} cannot take tasks: "
        f"{task.actor_name} {task.message_id} is past its limit of {texts.age((task.limit_ms or 0) / 1000)}",
        "dkb top shows them; give their calls timeouts, and stop the worker to get its threads back",
    )


def of_quiet(worker: WorkerInfo) -> FindingRow:
    """The finding about a worker that takes no more work."""
    return finding(
        "workers",
        WARNING,
        worker.worker_id,
        "it is quiet: it takes no more work, and forwards no delayed messages, until it is restarted",
        f"dkb stop {worker.worker_id}, or restart it",
    )


def _of_reports(workers: Sequence[WorkerInfo], now_ms: int) -> Iterator[FindingRow]:
    for worker in workers:
        report = worker.report
        if report is None:
            continue
        # The report's time by Kafka's clock, less its time by the worker's.
        ahead_s = report.at_ms / 1000 - (now_ms / 1000 - worker.silent_s)
        if abs(ahead_s) > CLOCK_S:
            yield finding(
                "clocks",
                WARNING,
                worker.worker_id,
                f"its clock differs from Kafka's by {texts.age(abs(ahead_s))}",
                "synchronise the clocks of both machines",
            )
        if report.control.pauses_unknown:
            yield finding(
                "rights",
                ERROR,
                worker.worker_id,
                "it cannot read commands, so it runs tasks of paused queues",
                "grant it READ on the topic dramatiq_control of the namespace",
            )
        if report.history.dropped:
            yield finding(
                "history",
                WARNING,
                worker.worker_id,
                f"{texts.plural(report.history.dropped, 'event')} of its history were lost",
                "Kafka did not take them in time; look at its load",
            )
    for name in ("broker", "app", "dramatiq"):
        found = Counter(w.report.versions.get(name, "") for w in workers if w.report)
        if len(found) > 1:
            counts = ", ".join(f"{version or 'unknown'}: {n}" for version, n in sorted(found.items()))
            yield finding(
                "versions",
                WARNING,
                f"version of {name}",
                f"workers have different ones ({counts})",
                "finish the deployment",
            )


def of_index_files(faults: Iterable[IndexFileFinding]) -> Iterator[FindingRow]:
    for fault in faults:
        text = f"it {fault.problem}"
        if fault.stops_forwarding:
            text += ": workers of this machine forward no delayed message of its partitions"
        severity = ERROR if fault.stops_forwarding else WARNING
        yield finding("index files", severity, fault.path, text, fault.remedy)


def of_pauses(pauses: Mapping[str, PauseResult], now_ms: int) -> Iterator[FindingRow]:
    for name, pause in sorted(pauses.items()):
        command = pause.command
        if pause.unknown:
            remedy = "grant them READ on the topic dramatiq_control, or run this version there"
            yield finding("pauses", ERROR, name, disobedience(name, pause), remedy)
        age_s = (now_ms - command.at_ms) / 1000
        if age_s > LONG_PAUSE_S:
            yield finding(
                "pauses",
                WARNING,
                name,
                f"it is paused for {texts.age(age_s)} by {command.by}: {command.reason}",
                f"dkb resume {name}",
            )


def topic_row(topic: TopicState) -> TopicRow:
    settings = topic.settings
    return TopicRow(
        topic=topic.name,
        role=topic.role,
        partitions=topic.partitions,
        replication=topic.replication,
        leaderless=list(topic.leaderless),
        under_replicated=list(topic.under_replicated),
        cleanup_policy=settings.get("cleanup.policy"),
        retention_ms=_int(settings.get("retention.ms")),
        max_message_bytes=_int(settings.get("max.message.bytes")),
        findings=list(of_topics([topic])),
    )


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _retention(row: TopicRow) -> str:
    if row["cleanup_policy"] == "compact" or row["retention_ms"] is None:
        return texts.NONE
    return "forever" if row["retention_ms"] < 0 else texts.age(row["retention_ms"] / 1000)


FINDING_COLUMNS: Sequence[Column] = (
    Column(
        "SEVERITY",
        lambda r: r["severity"],
        style=lambda r: "bold red" if r["severity"] == ERROR else "yellow",
    ),
    Column("CHECK", lambda r: r["check"]),
    Column("SUBJECT", lambda r: r["subject"]),
    Column("FINDING", lambda r: texts.line(r["finding"])),
    Column("REMEDY", lambda r: texts.line(r["remedy"])),
)

TOPIC_COLUMNS: Sequence[Column] = (
    Column("TOPIC", lambda r: r["topic"]),
    Column("ROLE", lambda r: r["role"]),
    Column("PARTITIONS", lambda r: str(r["partitions"]), is_number=True),
    Column("REPLICAS", lambda r: texts.number(r["replication"]), is_number=True),
    Column("CLEANUP", lambda r: r["cleanup_policy"] or texts.NONE),
    Column("RETENTION", _retention, is_number=True),
    Column("MAX BYTES", lambda r: texts.number(r["max_message_bytes"]), is_number=True),
    Column(
        "FINDINGS",
        lambda r: str(len(r["findings"])) if r["findings"] else "none",
        style=lambda r: "red" if r["findings"] else "",
    ),
)
