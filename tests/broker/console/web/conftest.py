"""The web console on a Kafka in memory, asked as a browser does, without a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
import httpx
import pytest

from broker import KafkaBroker
from broker.console.web.app import Identification, create_app
from broker.console.web.audit import Audit
from broker.console.web.collector import Collector
from broker.console.web.jobs import Jobs
from broker.console.web.looks import Console
from broker.console.web.sections import Section
from broker.console.web.serving import listener_of, served
from broker.console.web.sessions import COOKIE, Sessions
from broker.console.web.store import StateCache
from broker.console.web.users import User, UserRole, Users
from broker.testing import Kit

USERS = Users(
    {
        "vera": User("vera", UserRole.VIEWER),
        "otto": User("otto", UserRole.OPERATOR),
        "anna": User("anna", UserRole.ADMIN, may_see_arguments=True),
    }
)


@dataclass(slots=True)
class Browser:
    """Asks the console as a browser does.

    Attributes:
      headers: The headers of each request.
    """

    client: httpx.Client
    headers: dict[str, str]

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        sent = {name: value for name, value in headers.items() if value is not None}
        return self.client.request(method, path, headers=sent, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
        return self.ask("POST", path, data=data or {}, **options)

    def document(self, path: str) -> Any:
        answer = self.get(path, headers={"Accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def kit() -> Iterator[Kit]:
    broker = KafkaBroker(namespace="shop-", partitions=1)
    with Kit(broker).use() as kit:
        before = vars(dramatiq.broker)["global_broker"]
        dramatiq.set_broker(broker)
        yield kit
        vars(dramatiq.broker)["global_broker"] = before


@pytest.fixture
def console(kit: Kit, tmp_path: Path) -> Iterator[Console]:
    store, audit = StateCache(tmp_path / "cache.sqlite"), Audit(tmp_path / "audit.jsonl")
    collector = Collector(kit.broker, store)
    jobs = Jobs(audit, collector.read_soon)
    yield Console(kit.broker, store, collector, audit, "shop.tasks", jobs)
    jobs.wait()
    store.close()
    audit.close()


Open = Callable[..., Browser]


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def open_as(console: Console, loop: asyncio.AbstractEventLoop) -> Iterator[Open]:
    """Opens a browser in which a user has logged in; None for nobody."""
    sessions = Sessions(b"k" * 32)
    clients: dict[str, httpx.Client] = {}
    with ExitStack() as ending:

        def serve(of: Console, how: Identification, sections: Sequence[Section]) -> httpx.Client:
            listener = listener_of("127.0.0.1", 0)
            url = "http://{}:{}".format(*listener.getsockname()[:2])
            serving = served(create_app(of, how, sections), listener)
            asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
            ending.callback(
                lambda: asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
            )
            return ending.enter_context(httpx.Client(base_url=url, timeout=20))

        def open_as(
            user: str | None,
            of: Console = console,
            sections: Sequence[Section] = (),
            **identification: Any,
        ) -> Browser:
            key = f"{id(of)} {identification} {[section.name for section in sections]}"
            if key not in clients:
                how = Identification(**{"users": USERS, "sessions": sessions, **identification})
                clients[key] = serve(of, how, sections)
            client = clients[key]
            headers = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
            if user is not None:
                headers["Cookie"] = f"{COOKIE}={sessions.begin(user)}"
            return Browser(client, headers)

        yield open_as
