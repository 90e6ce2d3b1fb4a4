"""The previous release and this one, side by side on the schema of this one."""

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.stack import ROOT, Stack
from settings import Settings
from submissions.database import Database
from submissions.keys import ApiKeys
from tests.db.rows import execute, load_sample_ads
from tests.service import Api, Worker
from tests.waiting import wait_until

#: The last commit of the previous release: schema V06, without API keys.
PREVIOUS = "859f888ff4725fb1b52a7fadf993a341c40536cb"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the previous release."""
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("the history has no previous release")
    root = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(root, filter="data")
    return root


Start = Callable[[type[Api] | type[Worker], Path], Api | Worker]


@pytest.fixture
def start(stack: Stack, server_home: Callable[[], Path], namespace: str, database: Engine) -> Iterator[Start]:
    """Starts an API or a worker of a release."""
    load_sample_ads(database, 3)
    started: list[Api | Worker] = []

    def start(kind: type[Api] | type[Worker], root: Path) -> Api | Worker:
        env = {**stack.env(), "KAFKA_NAMESPACE": namespace, "MODEL_PATH": str(root / "model.pkl")}
        one = kind(server_home(), env, root=root)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.child.kill()


def verdict_of(client: httpx.Client, path: str, **headers: str) -> int:
    """Submit an ad, wait for its verdict, and return the task's id."""
    answer = client.post(path, headers=headers)
    assert answer.status_code == 200, answer.text
    task_id: int = answer.json()["task_id"]
    wait_until(
        lambda: client.get(f"/moderation_result/{task_id}").json()["status"] == "completed",
        deadline_s=90,
        what="a verdict",
    )
    return task_id


@pytest.mark.slow
@pytest.mark.parametrize("first", ["the worker", "the API"])
def test_worker_and_api_are_replaced_in_either_order(
    start: Start, previous: Path, database: Engine, first: str
) -> None:
    path, key = "/async_predict?item_id=1", {"idempotency-key": "of-the-previous-release"}
    old_api, old_worker = start(Api, previous), start(Worker, previous)
    assert isinstance(old_api, Api)
    with old_api.client() as client:
        task_id = verdict_of(client, path, **key)
    if first == "the worker":
        old_worker.child.stop(60)
        start(Worker, ROOT)
        with old_api.client() as client:
            verdict_of(client, path)
            assert client.get("/moderation_results").status_code == 200
    api = start(Api, ROOT)
    assert isinstance(api, Api)
    with api.client() as client:
        # What the previous release wrote still holds.
        assert client.post(path, headers=key).json()["task_id"] == task_id
        assert client.get(f"/submissions/{task_id}").json()["client_id"] is None
        verdict_of(client, path)
        secret, _ = ApiKeys(
            Database(Settings(database_url=database.url.render_as_string(hide_password=False)))
        ).create("shop", scopes=["submit", "read"], by="test")
        client.headers["authorization"] = f"Bearer {secret}"
        mine = verdict_of(client, path, **key)
        assert mine != task_id
    with old_api.client() as client:
        # The previous release beside it sees everything, and its own keys.
        assert client.get(f"/moderation_result/{mine}").json()["status"] == "completed"
        assert client.post(path, headers=key).json()["task_id"] == task_id
        assert client.post("/items", json=AD).status_code == 200
    pending = "SELECT count(*) FROM moderation_results WHERE status = 'pending'"
    wait_until(lambda: execute(database, pending) == [(0,)], deadline_s=90, what="all verdicts")


AD = {
    "item_id": 1,
    "seller_id": 1,
    "is_verified_seller": False,
    "name": "велосипед",
    "description": "почти новый",
    "category": 19,
    "images_qty": 2,
}
