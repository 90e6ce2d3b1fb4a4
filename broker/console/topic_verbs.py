"""The verbs about topics and rights: topics plan, topics apply, topics check."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import TopicPlan
from . import texts
from .confirm import confirm_count
from .documents import DifferenceRow
from .exits import ExitCode
from .findings import ERROR, FINDING_COLUMNS, TOPIC_COLUMNS, topic_row
from .output import Answer, Table
from .queue_verbs import NO_QUEUE
from .session import Session, ending
from .topic_rows import (
    DIFFERENCE_COLUMNS,
    PLANNED_TOPIC_COLUMNS,
    RIGHT_COLUMNS,
    difference_row,
    grouped,
    planned_topic_row,
    principals_of,
    right_rows,
)

Queues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE...]", help="The queues; by default the application's, and those with topics."
    ),
]
Partitions = Annotated[
    int | None, typer.Option(min=1, help="The partitions of a topic; by default the application's.")
]
Replication = Annotated[
    int | None, typer.Option(min=1, help="The copies of a partition; by default the application's.")
]
Retention = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="The retention of queues; by default the application's."),
]
Principals = Annotated[
    list[str] | None,
    typer.Option(
        "--principal",
        metavar="CLIENT=USER",
        help="The Kafka user of web, worker, operator or console; may be repeated.",
    ),
]


class Form(StrEnum):
    """The form of a plan: tables, or the commands of Kafka's tools."""

    TABLE = "table"
    COMMANDS = "commands"


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Plan, create and check topics.")
    group.command("plan")(plan)
    group.command("apply")(apply)
    group.command("check")(check)
    app.add_typer(group, name="topics")


def _plan(
    session: Session,
    queues: list[str] | None,
    partitions: int | None,
    replication: int | None,
    retention: str | None,
) -> TopicPlan:
    kept = None if retention is None else int(texts.parse_duration(retention).total_seconds() * 1000)
    found = session.broker.plan_topics(
        *(queues or ()), partitions=partitions, replication_factor=replication, retention_ms=kept
    )
    told = session.target.settings
    return found.as_found(
        partitions=partitions is None and "partitions" not in told,
        retention=retention is None and "retention_ms" not in told,
    )


def _document(found: TopicPlan, principals: dict[str, str]) -> dict[str, Any]:
    return {
        "topics": [planned_topic_row(topic) for topic in found.topics],
        "differences": [difference_row(one) for one in found.differences],
        "rights": right_rows(found.rights),
        "topic_commands": found.topic_commands(),
        "acl_commands": found.acl_commands(principals),
    }


def plan(
    context: typer.Context,
    queues: Queues = None,
    partitions: Partitions = None,
    replication: Replication = None,
    retention: Retention = None,
    principals: Principals = None,
    form: Annotated[
        Form, typer.Option("--as", help="Tables, or a script of kafka-topics, kafka-configs and kafka-acls.")
    ] = Form.TABLE,
) -> None:
    """Show the topics and the least rights that an application needs, and how the cluster differs.

    For clusters where applications create nothing. Nothing is changed. Without the application, the
    partitions and the retention of an existing queue are as planned, unless --partitions or --retention tells
    others.

    \b
    Examples:
      dkb shop.tasks topics plan
      dkb --bootstrap kafka:9092 --namespace shop- --group shop topics plan mail --as commands
    """
    with ending(context) as session:
        session.warn_of_groups(queues)
        found = _plan(session, queues, partitions, replication, retention)
        document = _document(found, principals_of(principals or ()))
        if form is Form.COMMANDS:
            lines = [*document["topic_commands"], *document["acl_commands"]]
            session.output.show(Answer("topics plan", document, lines=lines))
            return
        session.output.show(Answer("topics plan", document, _tables(document)))


def _tables(document: dict[str, Any]) -> list[Table]:
    changes = [row for row in document["differences"] if row["subject"] != "topic"]
    return [
        Table(PLANNED_TOPIC_COLUMNS, document["topics"], title="Topics"),
        Table(DIFFERENCE_COLUMNS, changes, title="Differences of existing topics"),
        Table(RIGHT_COLUMNS, grouped(document["rights"]), title="Rights (those in parentheses are optional)"),
    ]


def apply(
    context: typer.Context,
    queues: Queues = None,
    partitions: Partitions = None,
    replication: Replication = None,
    retention: Retention = None,
    is_applied: Annotated[bool, typer.Option("--apply", help="Do it. Without, it is a dry run.")] = False,
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask for the number of topics.")] = False,
) -> None:
    """Create the missing topics of a plan. A dry run, unless --apply is given.

    Existing topics are not changed, and no right is granted: topics plan prints the commands for that.

    \b
    Example:
      dkb shop.tasks topics apply --partitions 12 --replication 3 --apply
    """
    with ending(context) as session:
        found = _plan(session, queues, partitions, replication, retention)
        missing = [topic.name for topic in found.missing]
        if is_applied and missing:
            if not is_confirmed:
                confirm_count(session.output, len(missing), f"create {texts.plural(len(missing), 'topic')}")
            found = session.broker.apply_topics(found)
        document = {
            "dry_run": not is_applied,
            "created": missing if is_applied else [],
            **_document(found, {}),
        }
        would = "Created" if is_applied else "Would create"
        line = f"{would} {texts.plural(len(missing), 'topic')}" + (
            f": {', '.join(missing)}." if missing else "."
        )
        session.output.show(Answer("topics apply", document, _tables(document)[:2], [line]))
        if missing and not is_applied:
            session.output.say("A dry run: nothing was changed. --apply does it.")


def check(
    context: typer.Context,
    queues: Queues = None,
    partitions: Partitions = None,
    replication: Replication = None,
    retention: Retention = None,
    is_strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 for any difference from the plan, too.")
    ] = False,
) -> None:
    """Show the topics with their settings, which of these lose messages, and each difference from the plan.

    Nothing is changed. Exit code 1: a setting certainly loses messages.

    \b
    Example:
      dkb shop.tasks topics check
    """
    with ending(context) as session:
        rows = [topic_row(topic) for topic in session.broker.check_topics()]
        found = [one for row in rows for one in row["findings"]]
        differences: list[DifferenceRow] = []
        if rows or queues or session.broker.queues:
            planned = _plan(session, queues, partitions, replication, retention)
            differences = [difference_row(one) for one in planned.differences]
        session.output.show(
            Answer(
                "topics check",
                {"topics": rows, "differences": differences},
                [
                    Table(TOPIC_COLUMNS, rows, title="Topics", empty=NO_QUEUE),
                    Table(FINDING_COLUMNS, found, title="Findings"),
                    Table(DIFFERENCE_COLUMNS, differences, title="Differences from the plan"),
                ],
            )
        )
        if any(one["severity"] == ERROR for one in found) or (is_strict and differences):
            raise typer.Exit(ExitCode.FINDING)
