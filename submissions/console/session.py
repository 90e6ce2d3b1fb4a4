"""One call of a command: its settings, its output, and how errors end it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import typer
from dramatiq.errors import BrokerConnectionError

from broker import KafkaBroker, NotAuthorized
from broker.console.exits import ExitCode
from broker.console.output import Output
from broker.console.session import Refused
from db.errors import DatabaseError, DatabaseRefused
from settings import Settings, SettingsRefused, get_settings
from submissions.broker_factory import make_broker
from submissions.database import Database


@dataclass(slots=True)
class Session:
    """One call of a command. Nothing connects before the first use."""

    output: Output
    settings: Settings
    _database: Database | None = field(default=None)
    _broker: KafkaBroker | None = field(default=None)

    @property
    def database(self) -> Database:
        if self._database is None:
            self._database = Database(self.settings)
        return self._database

    @property
    def broker(self) -> KafkaBroker:
        if self._broker is None:
            self._broker = make_broker(self.settings)
        return self._broker

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()


#: The exit codes of expected errors; the first kind that an error is of counts.
_CODES: dict[type[BaseException], ExitCode] = {
    SettingsRefused: ExitCode.USAGE,
    NotAuthorized: ExitCode.FORBIDDEN,
    BrokerConnectionError: ExitCode.UNREACHABLE,
    DatabaseRefused: ExitCode.USAGE,
    DatabaseError: ExitCode.UNREACHABLE,
    ValueError: ExitCode.USAGE,
}
_EXPECTED: tuple[type[BaseException], ...] = (Refused, *_CODES)


@contextmanager
def ending(context: typer.Context) -> Iterator[Session]:
    """Run a command: an expected error ends it with one sentence on stderr and an exit code."""
    output: Output = context.find_root().obj
    session = None
    try:
        session = Session(output, get_settings())
        yield session
    except _EXPECTED as error:
        output.say(f"submissions: {error}")
        raise typer.Exit(_code_of(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        if session is not None:
            session.close()


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, Refused):
        return error.code
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), ExitCode.USAGE)


def configure_logging(*, verbose: bool) -> None:
    """Send nothing of the clients to stderr unless ``verbose``: the sentence that ends a command says it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("submissions: %(message)s"))
    # The level of the handler, since the broker sets one of kafka-python's loggers.
    handler.setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
