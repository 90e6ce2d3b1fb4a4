"""The first run: a few ads are submitted over HTTP and their verdicts printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from dev.console import table
from dev.waiting import wait_until
from scoring import Ad

READY_TIMEOUT_S = 60.0
VERDICTS_TIMEOUT_S = 90.0
NAME_WIDTH = 34


@dataclass(frozen=True, slots=True)
class Submitted:
    ad: Ad
    task_id: int


class ApiClient:
    """A client of the service.

    Parameters:
      check: Called while waiting; it raises when a process has ended.
    """

    def __init__(self, url: str, check: Callable[[], None]) -> None:
        # A proxy of the environment must not be used for this machine.
        self._http = httpx.Client(base_url=url, timeout=10.0, trust_env=False)
        self._check = check

    def use_key(self, key: str) -> None:
        """Send an API key with each request."""
        self._http.headers["authorization"] = f"Bearer {key}"

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, deadline_s=READY_TIMEOUT_S, what="the API to be ready")

    def submit(self, ads: Sequence[Ad]) -> list[Submitted]:
        return [Submitted(ad, self._submit(ad.item_id)) for ad in ads]

    def verdicts(self, submitted: Sequence[Submitted]) -> list[dict[str, Any]]:
        """Wait until every task has an outcome, and return the API's results."""
        return [
            wait_until(partial(self._outcome, one), deadline_s=VERDICTS_TIMEOUT_S, what=f"task {one.task_id}")
            for one in submitted
        ]

    def _is_ready(self) -> bool:
        self._check()
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def _submit(self, item_id: int) -> int:
        response = self._http.post("/async_predict", params={"item_id": item_id}).raise_for_status()
        task_id: int = response.json()["task_id"]
        return task_id

    def _outcome(self, submitted: Submitted) -> dict[str, Any] | None:
        self._check()
        result: dict[str, Any] = (
            self._http.get(f"/moderation_result/{submitted.task_id}").raise_for_status().json()
        )
        return None if result["status"] == "pending" else result


def verdict_table(submitted: Sequence[Submitted], results: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            str(one.task_id),
            str(one.ad.item_id),
            _shortened(one.ad.name),
            "verified" if one.ad.is_verified_seller else "",
            _verdict(result),
            "" if result["probability"] is None else f"{result['probability']:.2f}",
        ]
        for one, result in zip(submitted, results, strict=True)
    ]
    return table(["task", "item", "ad", "seller", "verdict", "probability"], rows)


def _verdict(result: dict[str, Any]) -> str:
    if result["status"] == "failed":
        return f"failed: {result['error']}"
    return "violation" if result["is_violation"] else "fine"


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"
