"""The public names are the documented ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dramatiq.broker import Broker

import broker
from broker import KafkaBroker
from dev.stack import ROOT

README = Path(broker.__file__).with_name("README.md").read_text(encoding="utf-8")
REFERENCE = README[README.index("## Reference") :]


def documented() -> set[str]:
    """The names that begin a code span of the reference."""
    return set(re.findall(r"`(\w+)", REFERENCE))


def test_every_exported_name_is_in_the_reference() -> None:
    assert set(broker.__all__) <= documented() | {"KafkaBroker"}


def test_every_exported_name_can_be_imported() -> None:
    for name in broker.__all__:
        assert getattr(broker, name) is not None
    assert set(broker.__all__) <= set(dir(broker))


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'KafkaBrokr'"):
        broker.KafkaBrokr  # type: ignore[attr-defined]  # noqa: B018


def test_a_reaper_listens_before_it_imports_the_broker_and_kafka_python() -> None:
    look = "import sys, broker.reaper.process as p; print(*sys.modules.keys() & {'kafka', 'broker.broker'})"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_brokers_own_public_names_are_those_of_the_reference() -> None:
    instance = KafkaBroker(middleware=[])
    own = {name for name in dir(instance) if not name.startswith("_")} - set(dir(Broker()))
    table = REFERENCE[: REFERENCE.index("Middleware:")]
    assert own == set(re.findall(r"^\| `(\w+)", table, flags=re.MULTILINE))
