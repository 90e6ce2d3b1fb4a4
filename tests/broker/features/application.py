"""The tests' end of the application in `app.py`: what it was given, and what it did."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from dramatiq import Message
from dramatiq.middleware import GroupCallbacks
from dramatiq.results import Results

from broker import KafkaBroker, default_middleware
from dev.stack import Stack
from tests.broker.features.command_line import CommandLine
from tests.broker.features.journal import Journal
from tests.broker.features.postgres_backends import PostgresRateLimits, PostgresResults
from tests.waiting import wait_until

#: The embedded broker answers a JoinGroup only after half of the session timeout.
SESSION_TIMEOUT_MS = 6_000
DEADLINE_S = 60


class Application:
    """One application with topics, consumer groups and a journal of its own.

    Parameters:
      home: Directory for its files.
    """

    def __init__(self, stack: Stack, *, namespace: str, home: Path) -> None:
        self._home = home
        self._runs = itertools.count(1)
        self.journal = Journal(home / "journal")
        self.env = {
            **os.environ,
            **stack.env(),
            "NAMESPACE": namespace,
            "JOURNAL": str(home / "journal"),
            "DELAY_INDEX_DIR": str(home / "delay-index"),
            "SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
            # Dramatiq's default of 3 s is what a consumer rests after an error.
            "dramatiq_restart_delay": "500",
        }
        self.broker = KafkaBroker(
            stack.bootstrap_servers,
            namespace=namespace,
            group_id=f"{namespace}workers",
            delay_index_dir=str(home / "delay-index"),
            middleware=[
                *default_middleware(),
                GroupCallbacks(PostgresRateLimits(stack.database_url)),
                Results(backend=PostgresResults(stack.database_url)),
            ],
        )
        for queue_name in ("default", "other"):
            self.broker.declare_queue(queue_name)

    def command_line(self, *options: str, program: str = "dramatiq") -> CommandLine:
        """A run of `dramatiq` on this application, not started."""
        log = self._home / f"dramatiq-{next(self._runs)}.log"
        return CommandLine("tests.broker.features.app", *options, env=self.env, log=log, program=program)

    def message(
        self, actor_name: str, *args: Any, queue_name: str = "default", **options: Any
    ) -> Message[Any]:
        return Message(queue_name, actor_name, args, {}, options)

    def send(self, actor_name: str, *args: Any, delay: int | None = None, **options: Any) -> Message[Any]:
        return self.broker.enqueue(self.message(actor_name, *args, **options), delay=delay)

    def wait_for(self, event: str, *, count: int = 1, **details: Any) -> list[dict[str, Any]]:
        """Wait until the journal has ``count`` entries of an event with these details; returns all it has."""

        def noted() -> list[dict[str, Any]] | None:
            entries = self.journal.entries(event, **details)
            return entries if len(entries) >= count else None

        return wait_until(noted, deadline_s=DEADLINE_S, what=f"{count} x {event!r} {details}")
