"""docs/metrics.md has every metric."""

from __future__ import annotations

import re

import pytest

from broker.metrics.families import FAMILIES, Family, MetricKind
from dev.stack import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
TITLES = {MetricKind.COUNTER: "Counters", MetricKind.GAUGE: "Gauges", MetricKind.HISTOGRAM: "Histograms"}


def table(kind: MetricKind) -> str:
    following = PAGE.partition(f"\n### {TITLES[kind]}\n")[2]
    return re.split(r"^##+ ", following, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("kind", MetricKind)
def test_the_page_has_each_metric_and_no_other(kind: MetricKind) -> None:
    names = re.findall(r"^\| `(\w+)`", table(kind), flags=re.MULTILINE)
    assert names == [family.name for family in FAMILIES.values() if family.kind is kind]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_the_page_has_the_labels_and_the_meaning_of_a_metric(family: Family) -> None:
    (line,) = re.findall(rf"^\| `{family.name}` \| (.*) \|$", table(family.kind), flags=re.MULTILINE)
    labels, _, text = line.partition(" | ")
    assert re.findall(r"`(\w+)`", labels) == list(family.labels)
    assert text == family.text.rstrip(".")
