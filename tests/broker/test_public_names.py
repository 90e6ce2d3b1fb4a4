"""The public names are the documented ones."""

from __future__ import annotations

import re
from pathlib import Path

from dramatiq.broker import Broker

import broker
from broker import KafkaBroker

README = Path(broker.__file__).with_name("README.md").read_text(encoding="utf-8")
REFERENCE = README[README.index("## Reference") :]


def documented() -> set[str]:
    """The names that begin a code span of the reference."""
    return set(re.findall(r"`(\w+)", REFERENCE))


def test_every_exported_name_is_in_the_reference() -> None:
    assert set(broker.__all__) <= documented() | {"KafkaBroker"}


def test_the_brokers_own_public_names_are_those_of_the_reference() -> None:
    instance = KafkaBroker(middleware=[])
    own = {name for name in dir(instance) if not name.startswith("_")} - set(dir(Broker()))
    table = REFERENCE[: REFERENCE.index("Middleware:")]
    assert own == set(re.findall(r"^\| `(\w+)", table, flags=re.MULTILINE))
