"""Requests that are generated from the OpenAPI document meet answers that it describes.

Schemathesis makes cases when its tests are collected, for half a minute of processor time. So this file is
not collected with the others, in each of their processes: test_generated_requests.py runs it.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import checks
from sqlalchemy import Engine

from api.docs.openapi import document
from dev.stack import Stack
from settings import Settings
from submissions.database import Database
from submissions.keys import ApiKeys
from tests.db.rows import load_sample_ads
from tests.service import Api

#: What no schema can say of a request, by a part of the detail: such a request may be refused.
NOT_IN_SCHEMA = {"Idempotency-Key was used for another request": "a key names one request"}

schema = schemathesis.openapi.from_dict(document())
guarded_schema = schemathesis.openapi.from_dict(document(needs_keys=True))

_UNHURRIED = [
    hypothesis.HealthCheck.function_scoped_fixture,
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.filter_too_much,
]


@schema.parametrize()
@hypothesis.settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=_UNHURRIED,
)
@pytest.mark.usefixtures("client")
def test_a_generated_request_meets_an_answer_that_the_document_describes(case: Any, api: Api) -> None:
    _check(case, case.call(base_url=api.url, timeout=60))


@pytest.fixture(scope="module")
def guarded_api(
    stack: Stack, server_home: Callable[[], Path], new_namespace: Callable[[], str]
) -> Iterator[Api]:
    """An API that needs keys."""
    env = {**stack.env(), "KAFKA_NAMESPACE": new_namespace(), "API_KEYS": "on"}
    api = Api(server_home(), env)
    api.start()
    yield api
    api.child.stop()


@pytest.fixture
def key(database: Engine) -> str:
    load_sample_ads(database, 3)
    keys = ApiKeys(Database(Settings(database_url=database.url.render_as_string(hide_password=False))))
    return keys.create("shop", scopes=["admin"], by="test")[0]


@guarded_schema.parametrize()
@hypothesis.settings(max_examples=8, deadline=None, suppress_health_check=_UNHURRIED)
def test_with_keys_a_generated_request_meets_an_answer_that_the_document_describes(
    case: Any, guarded_api: Api, key: str
) -> None:
    headers = {"authorization": f"Bearer {key}"}
    # The valid key of the call replaces what was generated, so nothing invalid was accepted.
    _check(case, case.call(base_url=guarded_api.url, timeout=60, headers=headers), excluded={"ignored_auth"})


def _check(case: Any, response: Any, *, excluded: Collection[str] = ()) -> None:
    refused = response.status_code == 422 and any(text in response.text for text in NOT_IN_SCHEMA)
    case.validate_response(
        response,
        checks=[
            check
            for check in checks.CHECKS.get_all()
            if not (refused and check.__name__ == "positive_data_acceptance")
            and check.__name__ not in excluded
        ],
    )
