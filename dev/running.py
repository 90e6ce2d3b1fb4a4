"""The processes of `python -m dev`: started in order, watched, stopped in order."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from db.engine import make_engine, transaction
from db.items import load_ads
from db.outbox import publish_pending_again
from dev.child import Child
from dev.console import say, step
from dev.embedded_kafka import EmbeddedKafkaServer
from dev.first_run import ApiClient, verdict_table
from dev.local_servers import CannotRun, LocalServers
from dev.ports import HOST, free_port, is_listening, is_taken
from dev.stack import EMBEDDED_ENV, ROOT, embedded_postgres, migrate
from dev.waiting import wait_until
from settings import get_settings
from submissions.database import Database
from submissions.keys import ApiKeys, KeyLimits
from training.sample_ads import sample_ads

SAMPLE_ADS = 300
SAMPLE_SEED = 1
SHOWN_ADS = 12
#: The web console's own default.
CONSOLE_PORT = 9180
#: An ad to try the web console with. No sample ad has its id.
TRIED_AD = {
    "item_id": 1001, "seller_id": 1, "is_verified_seller": False, "name": "Bicycle",
    "description": "Almost new", "category": 19, "images_qty": 2,
}  # fmt: skip
CONSOLE_TIMEOUT_S = 60.0

#: Ctrl-C ends everything within 10 s: first the API and the worker, then the servers.
SERVICE_STOP_TIMEOUT_S = 6.0
SERVERS_STOP_TIMEOUT_S = 2.5


class Running:
    """PostgreSQL, Kafka, the worker, the API and the web console, as children of this process."""

    def __init__(self, servers: LocalServers) -> None:
        self._servers = servers
        self._logs = servers.dev_dir / "logs"
        programs = Path(sys.executable).parent
        self._postgres = embedded_postgres(servers.dev_dir / "postgres", port=servers.postgres_port)
        self._kafka = EmbeddedKafkaServer(servers.dev_dir / "kafka", port=servers.kafka_port)
        self._worker = Child(
            "the worker",
            [programs / "dramatiq", "tasks", "--processes", "1", "--threads", "8"],
            log=self._logs / "worker.log",
            env={**EMBEDDED_ENV, **os.environ},
            cwd=ROOT,
        )
        self._console_port = _console_port()
        self._console_url = f"http://{HOST}:{self._console_port}/"
        self._api = Child(
            "the API",
            [sys.executable, "main.py"],
            log=self._logs / "api.log",
            env={**os.environ, "CONSOLE_URL": self._console_url},
            cwd=ROOT,
        )
        self._console_password = secrets.token_urlsafe(9)
        self._console = Child(
            "the web console",
            [
                *(sys.executable, "-m", "broker.console", "--app", "tasks", "console"),
                *("--port", str(self._console_port), "--data", servers.dev_dir / "console"),
                *("--pages", "submissions.console.pages:API_KEYS"),
            ],
            log=self._logs / "console.log",
            env={**EMBEDDED_ENV, **os.environ, "DKB_CONSOLE_PASSWORD": self._console_password},
            cwd=ROOT,
        )
        self._database_url = self._postgres.url(servers.database)
        self._client = ApiClient(servers.api_url, self.check)
        self._key: str | None = None
        self._ads = sample_ads(SAMPLE_ADS, SAMPLE_SEED)

    def start(self) -> None:
        """Start everything. Raises `ChildDied` when a child ends meanwhile."""
        say(f"Starting; data is kept in {_shown(self._postgres.home)}, logs in {_shown(self._logs)}")
        with step(f"PostgreSQL on port {self._postgres.port}"):
            self._postgres.start()
            self._postgres.ensure_database(self._servers.database)
        with step(f"Kafka on port {self._kafka.port}"):
            self._kafka.start()
        with step("migrations"):
            migrate(self._database_url)
        with step(f"{SAMPLE_ADS} sample ads"):
            waiting = self._fill_database()
        if waiting:
            say(f"  tasks that still waited and are published again: {waiting}")
        with step("worker, API and web console"):
            self._worker.start()
            self._api.start()
            self._console.start()
            self._client.wait_until_ready()
            wait_until(self._console_listens, deadline_s=CONSOLE_TIMEOUT_S, what="the web console")
            if self._servers.needs_keys:
                self._key = self._new_key()
                self._client.use_key(self._key)

    def show(self) -> None:
        """Submit a few ads, print their verdicts and the next commands."""
        with step(f"{SHOWN_ADS} ads handed in over HTTP, through Kafka, moderated"):
            submitted = self._client.submit(self._ads[:SHOWN_ADS])
            results = self._client.verdicts(submitted)
        say()
        say(verdict_table(submitted, results))
        url = self._servers.api_url
        say()
        say(f"Serving  {url}  (described at {url}/docs)")
        header = ""
        if self._key:
            say(f"  KEY={self._key}")
            header = ' -H "Authorization: Bearer $KEY"'
        say(f"  curl{header} -X POST '{url}/async_predict?item_id={SHOWN_ADS + 1}'")
        say(f"  curl{header} {url}/moderation_result/{submitted[-1].task_id + 1}")
        if self._servers.needs_keys:
            say("API keys are on; KEY is valid for an hour. More: python -m submissions.keys create --help")
        else:
            say("API keys are off: whoever reaches this address may use all of it. API_KEYS=on needs them.")
        self._show_console(header)
        say("Ctrl-C stops everything and keeps the data.")

    def _show_console(self, header: str) -> None:
        """Print the web console's address and what to try there.

        Parameters:
          header: The option of curl that has the API's key.
        """
        number, python = TRIED_AD["item_id"], _shown(Path(sys.executable))
        say()
        say(f"Web console  {self._console_url}")
        say(f"  Log in as admin with the password {self._console_password}")
        say(f"Break it, see the dead letter, redrive it: moderate ad {number}, which does not exist,")
        say(f"    {python} -m broker.console --app tasks enqueue moderate_item '[{number}]'")
        say("  open its dead letter in the web console, store the ad,")
        say(f"    curl{header} {self._servers.api_url}/items --json '{json.dumps(TRIED_AD)}'")
        say("  and redrive the dead letter.")

    def _console_listens(self) -> bool:
        self._console.check()
        return is_listening(self._console_port)

    def watch(self) -> None:
        """Watch the children for ever. Raises `ChildDied` when a child ends."""
        while True:
            self.check()
            time.sleep(0.2)

    def check(self) -> None:
        """Raise `ChildDied` when a started child has ended."""
        for child in (self._postgres.child, self._kafka.child, self._worker, self._api, self._console):
            child.check()

    def stop(self) -> None:
        """Stop all processes."""
        with step("Stopping"):
            for children, timeout_s in (
                ((self._api, self._worker, self._console), SERVICE_STOP_TIMEOUT_S),
                ((self._kafka.child, self._postgres.child), SERVERS_STOP_TIMEOUT_S),
            ):
                for child in children:
                    child.ask_to_stop()
                with contextlib.suppress(TimeoutError):  # those are killed
                    _wait_for_end(children, timeout_s)
                for child in children:
                    child.kill()

    def _new_key(self) -> str:
        """Create a key for the ads that this command shows, and for the next commands."""
        keys = ApiKeys(Database(get_settings().model_copy(update={"database_url": self._database_url})))
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        return keys.create(
            "make run", scopes=["submit", "read", "items"], limits=KeyLimits(expires_at=expires_at)
        )[0]

    def _fill_database(self) -> int:
        """Load the sample ads, and publish pending tasks again: the embedded Kafka lost their messages."""
        engine = make_engine(self._database_url)
        try:
            with transaction(engine) as connection:
                load_ads(connection, self._ads)
                return publish_pending_again(connection)
        finally:
            engine.dispose()


def _console_port() -> int:
    """The port that CONSOLE_PORT names. Without it the default one, or any other while that is taken."""
    named = os.environ.get("CONSOLE_PORT")
    if named is None:
        return free_port() if is_taken(CONSOLE_PORT) else CONSOLE_PORT
    if not named.isdecimal():
        raise CannotRun("CONSOLE_PORT must be a port's number here: change or unset it")
    return int(named)


def _wait_for_end(children: Sequence[Child], timeout_s: float) -> None:
    wait_until(
        lambda: not any(child.is_running for child in children),
        deadline_s=timeout_s,
        what="the children's end",
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
