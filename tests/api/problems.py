"""The one shape that every error has."""

from http import HTTPStatus

import httpx


def assert_problem(response: httpx.Response, status: int) -> str:
    """Check that the response is a problem of this status; return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert list(body) == ["type", "title", "status", "detail"]
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert isinstance(body["title"], str)
    assert isinstance(body["detail"], str)
    assert body["detail"]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        assert int(response.headers["retry-after"]) > 0
    return str(body["detail"])
