"""The unit style: Dramatiq's StubBroker with this distribution's default middleware."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest
import tenacity
from dramatiq.brokers.stub import StubBroker

from broker import PartitionKeyRefused, PermanentError, default_middleware, retry_if_temporary
from tests.broker.testing.conftest import Runs


@pytest.fixture
def stub() -> StubBroker:
    return StubBroker(middleware=default_middleware())


@pytest.fixture
def stub_worker(stub: StubBroker) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(stub, worker_timeout=50, worker_threads=1)
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.usefixtures("stub_worker")
def test_a_retry_policy_works_on_dramatiqs_stub(stub: StubBroker, runs: Runs) -> None:
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), retry=retry_if_temporary)

    @dramatiq.actor(broker=stub, retry=policy)
    def work(error: str) -> None:
        runs.append(error)
        raise ConnectionError if error == "temporary" else PermanentError(error)

    work.send("temporary")
    stub.join("default", fail_fast=False, timeout=60_000)
    work.send("permanent")
    stub.join("default", fail_fast=False, timeout=60_000)
    assert runs == ["temporary"] * 3 + ["permanent"]


def test_a_partition_key_is_made_and_checked_on_dramatiqs_stub(stub: StubBroker) -> None:
    @dramatiq.actor(broker=stub, partition_key=lambda user: f"user-{user}" if user else "")
    def work(user: int) -> None:
        """Nothing to do."""

    assert work.send(7).options["partition_key"] == "user-7"
    with pytest.raises(PartitionKeyRefused):
        work.send(0)
