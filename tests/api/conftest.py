"""A real API process that the tests of this package share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.stack import Stack
from tests.db.rows import load_sample_ads
from tests.service import Api

#: A URL with characters that HTML escapes.
CONSOLE_URL = "http://console.example/?a='1'&b=<2>"


@pytest.fixture(scope="package")
def api(stack: Stack, server_home: Callable[[], Path], new_namespace: Callable[[], str]) -> Iterator[Api]:
    """``python main.py`` on the session's servers."""
    env = {**stack.env(), "KAFKA_NAMESPACE": new_namespace(), "CONSOLE_URL": CONSOLE_URL}
    api = Api(server_home(), env)
    api.start()
    yield api
    api.child.stop()


@pytest.fixture
def client(api: Api, database: Engine) -> Iterator[httpx.Client]:
    """A client of the API over an otherwise empty database with the ads 1, 2 and 3."""
    load_sample_ads(database, 3)
    with api.client() as client:
        yield client
