"""The migrations on a large database under load: ``python -m bench.migrations``.

A PostgreSQL of its own gets the schema before ids of 64 bits and ten million submissions. While the API of
that version answers requests and outcomes are written, ``yoyo apply`` applies the other migrations: operators
apply them before they start the new version. The output is the
duration of the migrations and the slowest request of each kind, and for the slowest of all what PostgreSQL
waited for meanwhile; the exit code is 1 when one took a second or failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import Engine, text

from bench.plans import LOAD_TIMEOUT_S, load
from db.engine import make_engine, transaction
from dev.child import Child
from dev.earlier_version import extract_version
from dev.ports import HOST, free_port, is_listening
from dev.stack import MIGRATIONS, migrate, system_postgres
from dev.waiting import wait_until

#: The migrations of the schema that is there when the load begins, and a commit whose API knows no others.
APPLIED_BEFORE = 6
EARLIER = "859f888f"
THREADS = 4
#: The pause of a thread between two requests.
PAUSE_S = 0.02
#: The load runs for so long before and after the migrations, for comparison.
MARGIN_S = 5.0
TOO_SLOW_S = 1.0
#: The interval at which the sessions of PostgreSQL are looked at.
SAMPLE_INTERVAL_S = 0.05
SLOWEST_SHOWN = 5

AD = {
    "seller_id": 1,
    "is_verified_seller": False,
    "name": "a bicycle",
    "description": "as good as new",
    "category": 19,
    "images_qty": 3,
}


#: As a worker of any version writes them.
WRITE_OUTCOMES = text("""
    UPDATE moderation_results
    SET status = 'completed', is_violation = true, probability = 0.5, processed_at = now(),
        publish_after = NULL
    WHERE id = ANY (:task_ids) AND status = 'pending'
""")


class Waits:
    """What the sessions of PostgreSQL wait for, looked at several times a second."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._samples: list[tuple[float, list[tuple[str, str]]]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._connection.close()

    def between(self, began_s: float, ended_s: float) -> list[tuple[tuple[str, str], int]]:
        """Return the wait events and statements that were seen most often in that time."""
        seen = [one for at_s, rows in self._samples if began_s <= at_s <= ended_s for one in rows]
        return Counter(seen).most_common(6)

    def _look(self) -> None:
        with self._connection.cursor() as cursor:
            while not self._stopping.wait(SAMPLE_INTERVAL_S):
                cursor.execute(
                    "SELECT COALESCE(wait_event_type || ' ' || wait_event, 'runs'),"
                    " COALESCE("
                    "  NULLIF(left(regexp_replace(query, '^(SET LOCAL [^;]*; *)+', ''), 70), ''),"
                    "  backend_type"
                    " )"
                    " FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND (state = 'active' OR backend_type = 'checkpointer' AND wait_event_type = 'IO')"
                )
                self._samples.append((time.monotonic(), cursor.fetchall()))


class Load:
    """Requests to the API, and outcomes as a worker writes them, until it is stopped."""

    def __init__(self, port: int, engine: Engine) -> None:
        self.took_s: dict[tuple[bool, str], list[float]] = {}
        self.slowest: list[tuple[float, str, float]] = []  # the duration, the kind and the begin
        self.is_migrating = False
        self.failures: list[str] = []
        self._port = port
        self._engine = engine
        self._task_ids: list[int] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._request, args=(n,)) for n in range(THREADS)]
        self._threads.append(threading.Thread(target=self._write_outcomes))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _request(self, number: int) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=60)
        ad = json.dumps(AD | {"item_id": 1 + number})
        while not self._stopping.is_set():
            with self._timed("submit"):
                answer = self._ask(connection, "POST", f"/async_predict?item_id={1 + number}")
            task_id = answer["task_id"]
            self._task_ids.append(task_id)
            with self._timed("submit ten"):
                ids = json.dumps({"item_ids": [*range(1, 11)]})
                answer = self._ask(connection, "POST", "/async_predict/bulk", ids)
            with self._timed("result"):
                self._ask(connection, "GET", f"/moderation_result/{task_id}")
            with self._timed("page"):
                self._ask(connection, "GET", "/moderation_results?limit=20")
            with self._timed("store ad"):
                self._ask(connection, "POST", "/items", ad)
            with self._timed("cancel"):
                self._ask(connection, "POST", f"/moderation_result/{answer['results'][0]['task_id']}/cancel")

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
    ) -> Any:
        headers = {"content-type": "application/json"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            self.failures.append(f"{method} {path}: {response.status} {content.decode()}")
        return json.loads(content)

    def _write_outcomes(self) -> None:
        while not self._stopping.is_set():
            time.sleep(PAUSE_S)
            task_ids, self._task_ids = self._task_ids, []
            with self._timed("outcomes"), transaction(self._engine) as connection:
                connection.execute(WRITE_OUTCOMES, {"task_ids": task_ids})

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        time.sleep(PAUSE_S)
        began_s = time.monotonic()
        yield  # a failure of the statement ends the thread, and the run
        took_s = time.monotonic() - began_s
        self.took_s.setdefault((self.is_migrating, kind), []).append(took_s)
        self.slowest = sorted([*self.slowest, (took_s, kind, began_s)], reverse=True)[:SLOWEST_SHOWN]


def measure(url: str, home: Path) -> tuple[float, Load, Waits]:
    """Apply the migrations under load; return their duration in seconds, the load, and PostgreSQL's waits."""
    port = free_port()
    earlier = home / "earlier"
    extract_version(EARLIER, earlier)
    environment = {
        "DATABASE_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",  # nobody: submissions wait in their rows
        "API_PORT": str(port),
        "MODEL_PATH": str(earlier / "model.pkl"),
    }
    api = Child("the API", [sys.executable, "main.py"], log=home / "api.log", cwd=earlier, env=environment)
    api.start()
    engine = make_engine(url)
    try:
        wait_until(lambda: is_listening(port), deadline_s=60, what="the API to listen")
        wait_until(lambda: _has_model(port), deadline_s=120, what="the API to load its model")
        load, waits = Load(port, engine), Waits(url)
        load.start()
        time.sleep(MARGIN_S)
        load.is_migrating = True
        began_s = time.monotonic()
        migrate(url)
        took_s = time.monotonic() - began_s
        load.is_migrating = False
        time.sleep(MARGIN_S)
        load.stop()
        waits.stop()
        return took_s, load, waits
    finally:
        engine.dispose()
        api.kill()


def _has_model(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("POST", "/simple_predict?item_id=1")
    return connection.getresponse().status == HTTPStatus.OK


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.migrations", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="submissions; 10,000,000 by default")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-migrations-"))
    home.chmod(0o755)
    server = system_postgres(home / "postgres", port=free_port(), options={"max_wal_size": "8GB"})
    try:
        server.start()
        url = server.ensure_database("migrations")
        for file in sorted(MIGRATIONS.glob("V*.sql"))[:APPLIED_BEFORE]:
            with psycopg2.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute(file.read_text(encoding="utf-8"))
        print(f"loading {given.rows:,} submissions ...", flush=True)
        engine = make_engine(url, statement_timeout_s=LOAD_TIMEOUT_S)
        load(engine, given.rows)
        engine.dispose()
        took_s, under, waits = measure(url, home)
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)
    print(f"the migrations took {took_s:.0f} s")
    for (is_migrating, kind), took in sorted(under.took_s.items()):
        when = "during" if is_migrating else "without"
        print(f"{when:8} {kind:12} {len(took):8,} times, the slowest {max(took) * 1000:7.0f} ms")
    for took_s, kind, began_s in under.slowest:
        print(f"{kind} took {took_s * 1000:.0f} ms, while sessions of PostgreSQL were seen so often in")
        for (event, statement), count in waits.between(began_s, began_s + took_s):
            print(f"    {count:3}  {event:28} {' '.join(statement.split())}")
    for failure in under.failures[:10]:
        print(failure, file=sys.stderr)
    return 1 if under.failures or max(map(max, under.took_s.values())) >= TOO_SLOW_S else 0


if __name__ == "__main__":
    sys.exit(main())
