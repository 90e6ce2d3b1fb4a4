"""The command on a Kafka in memory."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dramatiq
import pytest
from typer.testing import CliRunner

from broker import KafkaBroker
from broker.console.command import app
from broker.console.output import ScanProgress
from broker.testing import Kit
from tests.broker.console.documents_schema import check


@dataclass(frozen=True, slots=True)
class Ran:
    """The end of a call of the command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document, whose form was checked."""
        document: dict[str, Any] = json.loads(self.out)
        check(document)
        return document


Dkb = Callable[..., Ran]


@pytest.fixture
def kit() -> Iterator[Kit]:
    broker = KafkaBroker(namespace="shop-", partitions=1)
    with Kit(broker).use() as kit:
        before = vars(dramatiq.broker)["global_broker"]
        dramatiq.set_broker(broker)
        yield kit
        vars(dramatiq.broker)["global_broker"] = before


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets Ctrl-C come when the progress of a change has reached that number."""
    # A shell without job control lets its background processes ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt_after(count: int) -> None:
        def call(progress: ScanProgress, done: int, total: int) -> None:
            if done >= count:
                monkeypatch.undo()
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(ScanProgress, "__call__", call)

    yield interrupt_after
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def dkb(kit: Kit) -> Dkb:
    """Runs the command on the broker of ``kit``."""

    def run(*arguments: str, typed: str | None = None) -> Ran:
        result = CliRunner().invoke(app, list(arguments), obj=kit.broker, input=typed, prog_name="dkb")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
