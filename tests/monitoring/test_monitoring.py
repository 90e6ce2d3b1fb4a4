"""The alerts, their tests and runbooks, and the dashboard name metrics that are exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from api.services.metrics import DATABASE_METRICS, ApiMetrics
from broker.metrics.families import FAMILIES
from dev.stack import ROOT
from tests.broker.console.test_command import commands

MONITORING = ROOT / "monitoring"
ALERTS = MONITORING / "prometheus" / "alerts.yml"
ALERT_TESTS = MONITORING / "prometheus" / "alerts_test.yml"
DASHBOARD = MONITORING / "grafana" / "dramatiq.json"
RUNBOOKS = ROOT / "docs" / "runbooks"
PROMTOOL = shutil.which("promtool")
#: The words of PromQL, and what Grafana replaces.
_WORDS = {
    "absent", "and", "by", "histogram_quantile", "increase", "label_values", "max", "offset", "on", "or",
    "rate", "sum", "unless",
}  # fmt: skip

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; apt-get install prometheus"
)


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def names(expression: str) -> set[str]:
    """The metrics that an expression names."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on) \([^)]*\)|, \w+\)$", " ", expression)
    return set(re.findall(r"\b[a-zA-Z_:][a-zA-Z0-9_:]{2,}\b", without_labels)) - _WORDS


def labels(expression: str) -> set[str]:
    """The labels that an expression names."""
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)(?:=~|!=|!~|=)\"", expression)
    return {name.strip() for group in grouped for name in group.split(",")} | set(matched)


def exported() -> dict[str, set[str]]:
    """The labels of each exported time series."""
    found = {name: {*family.labels, "le"} for family in FAMILIES.values() for name in family.series}
    registry = ApiMetrics().registry
    assert isinstance(registry, CollectorRegistry)
    for metric in registry.collect():
        kinds = ("_bucket", "_count", "_sum") if metric.type == "histogram" else ("_total",)
        for kind in kinds if metric.type in ("histogram", "counter") else ("",):
            found[f"{metric.name}{kind}"] = {
                "method",
                "route",
                "status",
                "operation",
                "is_violation",
                "reason",
                "le",
            }
    return found | {name: {"status", "decision"} for name in DATABASE_METRICS}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_an_expression_names_metrics_and_labels_that_are_exported(place: str, expression: str) -> None:
    known = exported()
    found = names(expression)
    assert found, expression
    assert found <= known.keys(), f"{place} names {found - known.keys()}"
    # Prometheus adds the job.
    assert labels(expression) <= set().union({"job"}, *(known[name] for name in found)), place


def test_a_wrong_name_is_noticed() -> None:
    assert names('sum by (queue_name) (rate(no_such_metric{state="stuck"}[5m])) > 0') == {"no_such_metric"}


def test_each_metric_of_the_exporter_is_on_the_dashboard_in_an_alert_or_a_detail() -> None:
    shown = set().union(*(names(expression) for _, expression in expressions()))
    details = {"kafka_consumergroup_current_offset", "kafka_consumergroup_lag_seconds"}
    details |= {
        name for name in FAMILIES if name.startswith(("dramatiq_kafka_read_", "dramatiq_kafka_history"))
    }
    details |= {"dramatiq_kafka_incomplete_messages", "dramatiq_kafka_oldest_incomplete_seconds"}
    missing = {name for name, family in FAMILIES.items() if not shown.intersection(family.series)}
    assert missing <= details


def test_each_alert_has_a_runbook_a_severity_and_a_test() -> None:
    alerts = {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == alerts
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+)\]", index, flags=re.MULTILINE)) == alerts
    tests = yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
    assert {test["name"] for test in tests} >= {f"{alert} fires" for alert in alerts} | {
        "no alert fires in a healthy system"
    }


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("Dramatiq*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_verbs_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    verbs = {" ".join(verb) for verb in commands()}
    for typed in re.findall(r"\bdkb ((?:dlq |task |topics |schedules )?[a-z]+)", text):
        assert typed in verbs, typed


@needs_promtool
def test_promtool_accepts_the_rules_and_the_example_configuration() -> None:
    assert PROMTOOL is not None
    for what, file in (("rules", ALERTS), ("config", MONITORING / "prometheus" / "prometheus.yml")):
        checked = subprocess.run([PROMTOOL, "check", what, file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
@needs_promtool
def test_each_alert_fires_when_it_should_and_none_in_a_healthy_system() -> None:
    assert PROMTOOL is not None
    tested = subprocess.run(
        [PROMTOOL, "test", "rules", ALERT_TESTS], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_page_has_each_metric_of_the_api() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = page.partition("## The API of the moderation service")[2].partition("\n**")[0]
    own = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in ApiMetrics().registry.collect()
    }
    own = {name for name in own if not name.startswith("process_")}
    lines = re.findall(r"^\| (`[^|]*) \|", table, flags=re.MULTILINE)
    assert {name for line in lines for name in re.findall(r"`(\w+)`", line)} == own | set(DATABASE_METRICS)
