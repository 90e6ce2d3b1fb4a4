"""The table of rights in docs/security.md is that of the plan."""

from __future__ import annotations

import re

from broker import KafkaBroker
from broker.kafka.topic_plan import plan_topics
from dev.stack import ROOT

ROW = re.compile(r"^\| (\w+) \| ([A-Z_]+) \| (topic|group) `([^`]+)` \| .+ \|$", re.MULTILINE)
PLACES = {"{ns}": "ns-", "{queue}": "mail", "{group}": "shop"}


def planned(*, is_optional: bool) -> set[tuple[str, str, str, str]]:
    broker = KafkaBroker(namespace="ns-", group_id="shop")
    plan = plan_topics(
        broker.parts.topics,
        ["mail"],
        (),
        group_id="shop",
        servers=["kafka:9092"],
        layout=broker.parts.topics.layout,
    )
    broker.close()
    return {
        (right.client.value, right.operation, right.kind, right.name)
        for right in plan.rights
        if right.is_optional is is_optional
    }


def test_the_table_has_each_right_of_the_plan_once_and_no_other_one() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    text = page.partition("## The table")[2].partition("\n## ")[0]
    for place, name in PLACES.items():
        text = text.replace(place, name)
    rows = ROW.findall(text)
    assert len(rows) == len(set(rows))
    assert set(rows) == planned(is_optional=False)


def test_the_optional_rights_are_those_to_settings_schedules_and_flush_markers() -> None:
    optional = planned(is_optional=True)
    assert {right for right in optional if right[1] != "DESCRIBE_CONFIGS"} == {
        ("worker", "READ", "topic", "ns-dramatiq_schedules"),
        ("worker", "WRITE", "topic", "ns-dramatiq_schedules"),
        ("worker", "READ", "group", "ns-dramatiq_schedules.owners"),
        ("operator", "READ", "topic", "ns-dramatiq_schedules"),
        ("operator", "WRITE", "topic", "ns-dramatiq_schedules"),
        ("console", "READ", "topic", "ns-dramatiq_schedules"),
        ("console", "DESCRIBE", "group", "shop.ns-mail.flushed"),
    }
    settings = {(right[0], right[3]) for right in optional if right[1] == "DESCRIBE_CONFIGS"}
    topics = {name for _, name in settings}
    assert settings == {(client, name) for client in ("worker", "operator", "console") for name in topics}
    assert {name for *_, kind, name in planned(is_optional=False) if kind == "topic"} == topics
