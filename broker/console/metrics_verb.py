"""The verb metrics."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import ExitCode
from .output import write
from .session import Refused, Session, ending

if TYPE_CHECKING:
    from ..metrics.exporter import Exporter


#: The time for which the end waits for a Kafka that does not answer.
END_TIMEOUT_S = 0.5


def register(app: typer.Typer) -> None:
    app.command("metrics")(metrics)


def metrics(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 for a free one.")] = 9191,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",
    interval: Annotated[
        float, typer.Option(min=1.0, metavar="SECONDS", help="The time between two reads of Kafka.")
    ] = 15.0,
    is_once: Annotated[
        bool, typer.Option("--once", help="Print the metrics once to stdout instead of serving them.")
    ] = False,
) -> None:
    """Serve Prometheus metrics of all queues and workers of the namespace; one process is enough.

    It reads reports and commits from Kafka at an interval, and a scrape reads nothing. It also runs while
    Kafka does not answer: dramatiq_kafka_up says so. SIGTERM ends it.

    \b
    Examples:
      dkb --bootstrap kafka:9092 --namespace shop- --group shop metrics --port 9191
      dkb shop.tasks metrics --once
    """
    with ending(context) as session:
        if session.output.as_json:
            raise Refused("The metrics are text in Prometheus' format: leave out --json.")
        exporter = _exporter(session)
        if is_once:
            exporter.refresh()
            write(exporter.text())
            if not exporter.is_up:
                raise typer.Exit(ExitCode.FORBIDDEN if exporter.is_denied else ExitCode.UNREACHABLE)
            return
        with _stopped_by_sigterm() as stop:
            try:
                exporter.serve(
                    host,
                    port,
                    interval_s=interval,
                    stop=stop,
                    on_open=lambda opened: session.output.say(f"Metrics: http://{host}:{opened}/metrics"),
                )
                session.abandon(END_TIMEOUT_S)
            except OSError as e:
                raise Refused(f"The port {port} of {host} cannot be opened: {e}") from e


def _exporter(session: Session) -> Exporter:
    try:
        from ..metrics.exporter import Exporter
    except ModuleNotFoundError as e:
        if e.name != "prometheus_client":
            raise
        raise Refused(
            "It needs the package prometheus-client: pip install 'dramatiq-kafka-broker[metrics]'"
        ) from e
    # The command logs errors alone, and an exporter that runs for months says why Kafka cannot be read.
    logger = logging.getLogger(Exporter.__module__.rpartition(".")[0])
    if logger.getEffectiveLevel() > logging.WARNING:
        logger.setLevel(logging.WARNING)
    return Exporter(session.unasked_broker)


@contextmanager
def _stopped_by_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
