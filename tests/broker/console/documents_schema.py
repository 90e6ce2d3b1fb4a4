"""Checks a JSON document of the command against its type: each field, and no other one."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from broker.console import documents

RESOLVED: dict[str, Any] = {
    "queue": str,
    "dry_run": bool,
    "operation": str | None,
    "selected": int,
    "sent": int,
    "sent_before": int,
    "error_types": dict[str, int],
    "refused": dict[str, int],
    "repeated": int,
}
PLANNED: dict[str, Any] = {
    "topics": list[documents.PlannedTopicRow],
    "differences": list[documents.DifferenceRow],
    "rights": list[documents.RightRow],
    "topic_commands": list[str],
    "acl_commands": list[str],
}
#: The documents by verb: the fields beside ``v`` and ``verb``.
DOCUMENTS: dict[str, dict[str, Any]] = {
    "status": {
        "at_ms": int,
        "sample_s": float | None,
        "queues": list[documents.QueueRow],
        "workers": dict[str, int],
        "missing": list[str],
    },
    "queues": {"partitions": list[documents.PartitionRow]},
    "workers": {"workers": list[documents.WorkerRow]},
    "actors": {"actors": list[documents.ActorRow]},
    "task show": {
        "message_id": str,
        "status": str,
        "actor": str | None,
        "queue": str | None,
        "message": documents.MessageRow | None,
        "events": list[documents.EventRow],
        "running": list[documents.RunningRow],
        "dead_letters": list[documents.DeadLetterDetail],
        "missing": list[str],
    },
    "tasks": {"tasks": list[documents.TaskRow], "count": int, "missing": list[str]},
    "dlq list": {"dead_letters": list[documents.DeadLetterRow], "count": int},
    "dlq show": {"dead_letters": list[documents.DeadLetterDetail]},
    "dlq errors": {"errors": list[documents.ErrorRow], "count": int},
    "dlq history": {"resolutions": list[documents.ResolutionRow]},
    "dlq redrive": RESOLVED,
    "dlq discard": RESOLVED,
    "dlq import": {
        "queue": str,
        "dry_run": bool,
        "operation": str | None,
        "given": int,
        "to_write": int,
        "written": int,
        "error_types": dict[str, int],
        "skipped": dict[str, int],
    },
    "replay": {
        "queue": str,
        "dry_run": bool,
        "id": str | None,
        "ids": str,
        "selected": int,
        "to_send": int,
        "sent": int,
        "sent_before": int,
        "actors": dict[str, int],
        "first_ms": int | None,
        "last_ms": int | None,
        "skipped": dict[str, int],
        "log_starts_ms": int | None,
        "interrupted": list[str],
    },
    "replays": {"replays": list[documents.ReplayRow]},
    "pause": {
        "command": documents.CommandRow,
        "in_force": bool,
        "confirmed": list[str],
        "unconfirmed": list[str],
        "unknown": list[str],
        "members_known": bool,
    },
    "resume": {"command": documents.CommandRow, "was_paused": bool},
    "quiet": {"command": documents.CommandRow, "worker_state": str},
    "stop": {"command": documents.CommandRow, "worker_state": str},
    "enqueue": {"message_id": str, "actor": str, "queue": str, "delay_s": float | None},
    "schedules list": {"schedules": list[documents.ScheduleRow]},
    "schedules pause": {"schedule": documents.ScheduleRow},
    "schedules resume": {"schedule": documents.ScheduleRow},
    "schedules run": {"schedule": str, "message_id": str, "actor": str, "queue": str},
    "schedules delete": {"schedule": documents.ScheduleRow},
    "retry": {"messages": list[documents.RetryRow]},
    "abort": {"messages": list[documents.AbortRow]},
    "cancel": {"message_id": str, "outcome": str},
    "purge": {
        "queue": str,
        "dry_run": bool,
        "waiting": int,
        "running": int,
        "delayed": int,
        "in_lanes": int,
        "completed": int,
    },
    "healthcheck": {"healthy": bool, "findings": list[documents.FindingRow]},
    "doctor": {"findings": list[documents.FindingRow], "checked": list[str]},
    "topics check": {
        "topics": list[documents.TopicRow],
        "differences": list[documents.DifferenceRow],
    },
    "topics plan": PLANNED,
    "topics apply": {"dry_run": bool, "created": list[str], **PLANNED},
    "plan": {
        "sizes": list[documents.SizeRow],
        "backlog": int | None,
        "drain_s": float | None,
        "queue": str | None,
        "measured": documents.MeasuredRow | None,
        "drain_now_s": float | None,
    },
    "top": {"at_ms": int, "running": list[documents.RunningRow], "count": int},
}


def check(document: dict[str, Any]) -> None:
    """Raise AssertionError unless the document has exactly the fields of its verb, with their types."""
    fields = dict(document)
    assert fields.pop("v") == 1
    verb = fields.pop("verb")
    expected = DOCUMENTS[verb]
    assert fields.keys() == expected.keys(), verb
    for name, kind in expected.items():
        _check(fields[name], kind, f"{verb}.{name}")


def _check(value: Any, kind: Any, where: str) -> None:
    origin = get_origin(kind)
    if kind is Any:
        return
    if origin is UnionType:
        if value is None:
            assert NoneType in get_args(kind), where
            return
        (kind,) = [one for one in get_args(kind) if one is not NoneType]
        _check(value, kind, where)
    elif origin is list:
        assert isinstance(value, list), where
        for one in value:
            _check(one, get_args(kind)[0], f"{where}[]")
    elif origin is dict:
        assert isinstance(value, dict), where
        for one in value.values():
            _check(one, get_args(kind)[1], f"{where}.*")
    elif is_typeddict(kind):
        hints = get_type_hints(kind, vars(documents))
        assert value.keys() == hints.keys(), where
        for name, hint in hints.items():
            _check(value[name], hint, f"{where}.{name}")
    elif kind is float:
        assert isinstance(value, float | int), (where, value)
        assert not isinstance(value, bool), where
    else:
        assert type(value) is kind, (where, value)
