"""Requests that are generated from the OpenAPI document meet answers that it describes."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from api.docs.openapi import document
from tests.service import Api

#: What no schema can say of a request, by a part of the detail: such a request may be refused.
NOT_IN_SCHEMA = {"Idempotency-Key was used for another request": "a key names one request"}

schema = schemathesis.openapi.from_dict(document())


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.filter_too_much,
    ],
)
@pytest.mark.usefixtures("client")
def test_a_generated_request_meets_an_answer_that_the_document_describes(case: Any, api: Api) -> None:
    response = case.call(base_url=api.url, timeout=60)
    refused = response.status_code == 422 and any(text in response.text for text in NOT_IN_SCHEMA)
    case.validate_response(
        response,
        checks=[
            check
            for check in checks.CHECKS.get_all()
            if not (refused and check.__name__ == "positive_data_acceptance")
        ],
    )
