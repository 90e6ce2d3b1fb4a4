"""What broker/kafka relies on of kafka-python's insides; a test fails when a version has changed it."""

from __future__ import annotations

import inspect
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import CompletedFetch, ExceptionMetadata, Fetcher
from kafka.coordinator.base import BaseCoordinator, Generation
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import MemberIdRequiredError
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.producer.sender import Sender
from kafka.protocol.consumer import OffsetSpec
from kafka.protocol.metadata import CoordinatorType, MetadataRequest
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import MemberState
from kafka.structs import OffsetAndMetadata as KafkaOffset
from kafka.structs import TopicPartition as KafkaPartition

from broker.kafka import internals
from broker.kafka.connections import Connection
from broker.kafka.consumer_client import Consumer
from broker.kafka.errors import (
    CorruptRecordError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    UnknownMemberIdError,
    is_unknown_partition,
)
from broker.kafka.producer_client import Producer
from broker.kafka.protocol import RebalanceListener
from broker.kafka.rebalance import ForgetfulCooperativeStickyAssignor
from broker.kafka.types import OffsetAndMetadata, TopicPartition

WORK = TopicPartition("work", 0)
DEADLINE_MS = 10_000


@pytest.fixture
def silent() -> Iterator[dict[str, Any]]:
    """Settings of clients of a server that never answers. A client that is given a version asks nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"bootstrap_servers": f"127.0.0.1:{server.getsockname()[1]}", "api_version": (3, 9)}


@pytest.fixture
def consumer(silent: dict[str, Any]) -> Iterator[Any]:
    made = Consumer(group_id="workers", auto_offset_reset="none", **silent)
    yield made
    made.close(autocommit=False, timeout_ms=0)


@pytest.fixture
def producer(silent: dict[str, Any]) -> Iterator[Any]:
    made = Producer(max_block_ms=1, **silent)
    yield made
    internals.force_close(made)
    made._sender.join(DEADLINE_MS / 1000)


def test_the_metadata_of_a_consumer_that_has_heard_nothing_is_empty(consumer: Any) -> None:
    cluster = internals.cluster(consumer)
    assert cluster.topic_id("work") is None
    assert cluster.partitions_for_topic("work") is None
    assert cluster.leader_for_partition(WORK) is None
    assert cluster.leader_epoch_for_partition(WORK) is None
    assert not [node for node in cluster.brokers() if str(node.node_id).isdecimal()]
    assert callable(cluster.add_topic)
    assert not cluster.request_update().is_done


def test_a_request_for_metadata_can_be_sent_to_any_node(consumer: Any) -> None:
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name="work")],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )
    assert request.topics[0].name == "work"
    assert {"request", "node_id"} <= set(inspect.signature(KafkaConnectionManager.send).parameters)
    assert callable(KafkaConnectionManager.least_loaded_node)


def test_a_coroutine_runs_on_the_io_thread_with_the_connections(consumer: Any) -> None:
    async def answer(manager: Any, number: int) -> tuple[Any, int, str]:
        await internals.sleep(0.001)
        return manager.cluster, number, threading.current_thread().name

    found = internals.wait(consumer, internals.start(consumer, answer, 7), DEADLINE_MS)
    assert found[:2] == (internals.cluster(consumer), 7)
    assert found[2] != threading.current_thread().name


def test_an_error_of_a_coroutine_is_raised_where_it_is_waited_for(consumer: Any) -> None:
    async def fail(manager: Any) -> None:
        raise KafkaTimeoutError("nobody answers")

    with pytest.raises(KafkaTimeoutError, match="nobody answers"):
        internals.wait(consumer, internals.start(consumer, fail), DEADLINE_MS)


def test_a_wait_for_something_that_does_not_end_ends_with_its_time(consumer: Any) -> None:
    async def sleep(manager: Any) -> None:
        await internals.sleep(3_600)

    with pytest.raises(KafkaTimeoutError):
        internals.wait(consumer, internals.start(consumer, sleep), 1)


def test_a_position_keeps_the_leader_epoch_that_it_is_set_with(consumer: Any) -> None:
    consumer.assign([WORK])
    consumer.seek(WORK, 5, 3)
    assert internals.position_epoch(consumer, WORK) == 3
    assert consumer._subscription.assignment[WORK].position == KafkaOffset(5, "", 3)
    consumer.seek(WORK, 5)
    assert internals.position_epoch(consumer, WORK) == -1


def test_a_position_of_a_partition_that_is_not_assigned_cannot_be_set(consumer: Any) -> None:
    with pytest.raises(ValueError, match="Unassigned"):
        internals.seek_with_epoch(consumer, WORK, 5, 3)
    assert internals.position_epoch(consumer, WORK) == -1


def test_committed_offsets_are_asked_for_with_kafka_pythons_types(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = inspect.signature(ConsumerCoordinator.fetch_committed_offsets)
    assert list(signature.parameters) == ["self", "partitions", "timeout_ms"]

    def fetch(partitions: list[KafkaPartition], timeout_ms: float) -> dict[Any, Any]:
        assert all(type(partition) is KafkaPartition for partition in partitions)
        return {partitions[0]: KafkaOffset(7, "text", 2)}

    monkeypatch.setattr(consumer._coordinator, "fetch_committed_offsets", fetch)
    assert internals.committed_offsets(consumer, [WORK], 5_000) == {WORK: OffsetAndMetadata(7, "text", 2)}


@pytest.mark.parametrize(
    ("ask", "spec"),
    [(internals.ask_beginnings, OffsetSpec.EARLIEST), (internals.ask_ends, OffsetSpec.LATEST)],
)
def test_offsets_are_asked_for_without_a_wait(
    consumer: Any, monkeypatch: pytest.MonkeyPatch, ask: Any, spec: Any
) -> None:
    signature = inspect.signature(Fetcher._fetch_offsets_by_times_async)
    assert list(signature.parameters) == ["self", "timestamps", "timeout_ms"]

    async def fetch(timestamps: dict[Any, Any], timeout_ms: float) -> Any:
        return timestamps, timeout_ms

    monkeypatch.setattr(consumer._fetcher, "_fetch_offsets_by_times_async", fetch)
    pending = ask(consumer, [WORK], 5_000)
    internals.wait(consumer, pending, DEADLINE_MS)
    assert pending.is_done
    assert pending.succeeded()
    assert pending.value == ({WORK: spec}, 5_000)


def test_an_error_that_waits_for_the_next_poll_can_be_taken_back(consumer: Any) -> None:
    fetcher = consumer._fetcher
    consumer.assign([WORK])
    consumer.seek(WORK, 5)
    assert internals.held_error(consumer) is None
    kept = ExceptionMetadata(KafkaPartition(*WORK), 5, CorruptRecordError("damaged"))
    fetcher._next_in_line_exception_metadata = kept
    assert internals.held_error(consumer) is kept.exception
    with pytest.raises(CorruptRecordError):
        fetcher.fetched_records(10)
    fetcher._next_in_line_exception_metadata = kept
    internals.forget_held_error(consumer)
    assert fetcher.fetched_records(10) == ({}, False)


def test_a_damaged_batch_names_its_partition_and_can_be_dropped(consumer: Any) -> None:
    fetcher = consumer._fetcher
    consumer.assign([WORK])
    consumer.seek(WORK, 5)
    assert internals.drop_unreadable_batch(consumer) is None
    fetcher._completed_fetches.append(_fetched(_damaged(_batch())))
    with pytest.raises(CorruptRecordError):
        fetcher.fetched_records(10)
    assert fetcher._next_partition_records  # which the next call would turn in a circle over, for ever
    assert internals.drop_unreadable_batch(consumer) == WORK
    assert fetcher.fetched_records(10) == ({}, False)


def _fetched(batch: bytes) -> CompletedFetch:
    """The answer to a fetch from offset 5."""
    answer = SimpleNamespace(
        error_code=0, high_watermark=9, diverging_epoch=None, aborted_transactions=None, records=batch,
        last_stable_offset=9, log_start_offset=0, preferred_read_replica=-1,
    )  # fmt: skip
    aggregator = SimpleNamespace(record=lambda *numbers: None)
    return CompletedFetch(KafkaPartition(*WORK), 5, 12, answer, aggregator)


def _batch() -> bytes:
    """A batch of one record at offset 5."""
    builder = MemoryRecordsBuilder(2, 0, 1 << 20, offset=5)
    builder.append(timestamp=0, key=None, value=b"a value")
    builder.close()
    return bytes(builder.buffer())


def _damaged(batch: bytes) -> bytes:
    """The batch with a wrong last byte."""
    return batch[:-1] + bytes([batch[-1] ^ 0xFF])


def test_the_answers_to_heartbeats_are_known(consumer: Any) -> None:
    before = internals.heartbeat(consumer)
    assert before.last_answer_s == -math.inf
    assert math.isfinite(before.last_reset_s)
    consumer._coordinator.heartbeat.received_heartbeat()
    assert math.isfinite(internals.heartbeat(consumer).last_answer_s)


def test_an_extra_heartbeat_is_sent_by_a_stable_member_only(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = consumer._coordinator
    # The conditions of its own loop, and the call that sends one heartbeat and handles its errors.
    loop = inspect.getsource(BaseCoordinator._heartbeat_loop)
    assert "if not self._heartbeat_enabled:" in loop
    assert "elif not self.stable():" in loop
    assert "await self._do_heartbeat()" in loop
    sent: list[str] = []

    async def beat() -> None:
        sent.append(threading.current_thread().name)

    monkeypatch.setattr(coordinator, "_do_heartbeat", beat)

    async def nothing(manager: Any) -> None: ...

    def send() -> int:
        internals.heartbeat_soon(consumer)
        internals.wait(consumer, internals.start(consumer, nothing), DEADLINE_MS)
        return len(sent)

    assert send() == 0
    coordinator.state = MemberState.STABLE
    assert send() == 0
    coordinator._heartbeat_enabled = True
    assert send() == 1
    coordinator.state = MemberState.REBALANCING
    assert send() == 1
    assert sent[0].startswith("kafka-io")
    coordinator.state = MemberState.UNJOINED


def test_each_new_member_id_is_noted_before_its_join(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = consumer._coordinator
    refused = inspect.getsource(BaseCoordinator._process_join_group_response)
    assert "self.reset_generation(response.member_id)" in refused
    noted: list[str] = []
    seen: list[list[str]] = []

    async def join() -> bytes:
        seen.append(list(noted))
        if len(seen) == 1:
            coordinator.reset_generation("first")
            raise MemberIdRequiredError
        return b"assignment"

    monkeypatch.setattr(coordinator, "_do_join_and_sync_async", join)
    internals.watch_member_id(consumer, noted.append)

    async def joins(manager: Any) -> None:
        with pytest.raises(MemberIdRequiredError):
            await coordinator._do_join_and_sync_async()
        assert await coordinator._do_join_and_sync_async() == b"assignment"
        coordinator.reset_generation("second")  # after it was removed from its group
        await coordinator._do_join_and_sync_async()

    internals.wait(consumer, internals.start(consumer, joins), DEADLINE_MS)
    assert seen == [[], ["first"], ["first", "second"]]
    assert noted == ["first", "second"]


def test_the_connection_to_the_coordinator_is_one_of_its_own(consumer: Any) -> None:
    assert internals.coordinator_node(consumer) is None
    found = SimpleNamespace(error_code=0, node_id=1, host="127.0.0.1", port=1)
    node_id = internals.cluster(consumer).add_coordinator(found, CoordinatorType.GROUP, "workers")
    consumer._coordinator.coordinator_id = node_id
    assert internals.coordinator_node(consumer) == node_id != 1


def test_a_join_whose_outcome_nobody_has_taken_is_not_repeated(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # kafka-python looks them up on the coordinator each time.
    joining = inspect.getsource(BaseCoordinator)
    assert "call_soon(self._do_join_and_sync_async)" in joining
    assert "await self._on_join_complete_async(" in joining
    coordinator = consumer._coordinator
    joins, completed = [], []

    async def join() -> bytes:
        joins.append(coordinator._generation)
        return b"assignment"

    async def complete(*args: object) -> None:
        completed.append(args)

    monkeypatch.setattr(coordinator, "_do_join_and_sync_async", join)
    monkeypatch.setattr(coordinator, "_on_join_complete_async", complete)
    internals.keep_join_outcomes(consumer)

    async def twice(manager: Any) -> list[bytes]:
        found = [await coordinator._do_join_and_sync_async() for _ in range(2)]
        await coordinator._on_join_complete_async(1, "member", "protocol", found[1])
        return [*found, await coordinator._do_join_and_sync_async()]

    found = internals.wait(consumer, internals.start(consumer, twice), DEADLINE_MS)
    assert found == [b"assignment"] * 3
    assert len(joins) == 2  # the first, and the one after its outcome was taken
    assert completed == [(1, "member", "protocol", b"assignment")]


def test_a_join_that_has_begun_is_a_reason_to_join(consumer: Any) -> None:
    coordinator = consumer._coordinator
    assert coordinator.rejoining is False
    internals.keep_join_outcomes(consumer)
    coordinator.rejoining = True
    assert coordinator.need_rejoin()


def test_every_reason_to_join_again_is_noted(consumer: Any) -> None:
    for call in ("self.request_rejoin()", "self.reset_generation("):  # looked up on the coordinator
        assert call in inspect.getsource(BaseCoordinator._handle_heartbeat_response)
    noted: list[str] = []
    internals.watch_group(consumer, lambda: noted.append("news"))
    consumer._coordinator.request_rejoin()
    consumer._coordinator.reset_generation(member_id="member")
    assert len(noted) == 2
    assert consumer._coordinator.need_rejoin is not None
    listeners = internals.cluster(consumer)._listeners
    for listener in listeners:
        listener(internals.cluster(consumer))
    assert len(noted) == 3


def test_a_member_that_finds_no_coordinator_takes_no_part_and_does_not_wait(consumer: Any) -> None:
    KafkaConsumer.subscribe(consumer, ["work"])
    assert not internals.knows_coordinator(consumer)
    assert internals.take_part(consumer) is False
    assert internals.keeps_reading(consumer) is False
    look_up: Any = Future()
    consumer._coordinator._find_coordinator_future = look_up
    assert internals.group_requests(consumer) == [look_up]
    assert internals.look_up_coordinator(consumer) is look_up


def test_a_look_up_of_the_coordinator_tells_of_its_failure(consumer: Any) -> None:
    async def look_up() -> None:
        raise GroupAuthorizationFailedError("workers")

    consumer._coordinator._send_group_coordinator_request = look_up
    with pytest.raises(GroupAuthorizationFailedError):
        internals.wait(consumer, internals.look_up_coordinator(consumer), DEADLINE_MS)


def _know_coordinator(consumer: Any, node_id: int) -> Any:
    """Let a consumer be connected to its group's coordinator, and wait there for the end of a join."""
    coordinator, manager = consumer._coordinator, consumer._manager
    found = SimpleNamespace(error_code=0, node_id=node_id, host="127.0.0.1", port=1)
    coordinator.coordinator_id = manager.cluster.add_coordinator(found, CoordinatorType.GROUP, "workers")
    coordinator._join_task = Future()
    closed: Any = Future()
    manager._conns[coordinator.coordinator_id] = SimpleNamespace(
        closed=False, connected=True, close=lambda error=None: closed.success(error)
    )
    return closed


def test_a_join_at_a_coordinator_that_has_left_the_cluster_fails(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = _know_coordinator(consumer, 1)
    monkeypatch.setattr(
        consumer._manager.cluster, "brokers", lambda: [SimpleNamespace(node_id=2), SimpleNamespace(node_id=3)]
    )
    node_id = consumer._coordinator.coordinator_id
    internals.drop_dead_coordinator(consumer)
    assert isinstance(internals.wait(consumer, closed, DEADLINE_MS), KafkaConnectionError)
    assert not internals.knows_coordinator(consumer)
    del consumer._manager._conns[node_id]


@pytest.mark.parametrize("nodes", [[], [1, 2]])
def test_a_coordinator_that_is_in_the_cluster_or_whose_cluster_is_unknown_stays_connected(
    consumer: Any, monkeypatch: pytest.MonkeyPatch, nodes: list[int]
) -> None:
    closed = _know_coordinator(consumer, 1)
    monkeypatch.setattr(
        consumer._manager.cluster, "brokers", lambda: [SimpleNamespace(node_id=node) for node in nodes]
    )
    internals.drop_dead_coordinator(consumer)
    assert consumer._coordinator.coordinator_id is not None
    internals.wait(consumer, internals.start(consumer, _nothing), DEADLINE_MS)
    assert not closed.is_done
    del consumer._manager._conns[consumer._coordinator.coordinator_id]


async def _nothing(manager: Any) -> None:
    """End after everything that the I/O thread was given before."""


def test_a_member_that_is_removed_while_it_joins_loses_its_partitions(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[list[TopicPartition]] = []
    listener = RebalanceListener(
        on_assigned=lambda partitions: None,
        on_revoked=lambda partitions: None,
        on_lost=lambda partitions: lost.append(list(partitions)),
        is_busy=lambda partitions: False,
        on_membership=lambda membership: None,
    )
    coordinator, never = consumer._coordinator, Future()
    refusals: list[Exception] = [UnknownMemberIdError()]

    async def join() -> bytes:
        if refusals:
            await internals.sleep(0.001)
            coordinator.reset_generation()
            raise refusals.pop()
        await never
        return b""

    monkeypatch.setattr(coordinator, "coordinator_unknown", lambda: False)
    monkeypatch.setattr(coordinator, "_do_join_and_sync_async", join)
    monkeypatch.setattr(coordinator, "_maybe_start_heartbeat_loop", lambda: None)
    consumer.subscribe([WORK.topic], listener=listener)
    consumer._subscription.assign_from_subscribed([KafkaPartition(*WORK)])
    coordinator._generation = Generation(3, "member", "cooperative-sticky")
    consumer.poll(timeout_ms=0)
    with pytest.raises(UnknownMemberIdError):
        internals.wait(consumer, coordinator._join_task, DEADLINE_MS)
    assert lost == []
    consumer.poll(timeout_ms=0)
    assert lost == [[WORK]]
    assert consumer.assignment() == set()
    never.success(None)


def test_a_join_under_way_is_not_waited_for(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    KafkaConsumer.subscribe(consumer, ["work"])
    coordinator = consumer._coordinator
    monkeypatch.setattr(coordinator, "coordinator_unknown", lambda: False)
    never: Any = Future()

    async def join() -> bytes:
        await never
        return b""

    monkeypatch.setattr(coordinator, "_do_join_and_sync_async", join)
    assert internals.take_part(consumer) is False
    joining = coordinator._join_task
    assert internals.group_requests(consumer) == [joining]
    assert internals.take_part(consumer) is False
    assert coordinator._join_task is joining
    coordinator._generation = Generation(3, "member", "cooperative-sticky")
    assert internals.keeps_reading(consumer)
    never.success(None)


def test_the_error_of_a_join_that_nobody_waited_for_is_taken_once(consumer: Any) -> None:
    assert internals.take_join_failure(consumer) is None
    failed: Any = Future()
    consumer._coordinator._join_task = failed
    assert internals.take_join_failure(consumer) is None
    failed.failure(KafkaTimeoutError("nobody answers"))
    assert isinstance(internals.take_join_failure(consumer), KafkaTimeoutError)
    assert internals.take_join_failure(consumer) is None


def test_a_read_returns_fetched_records_and_waits_for_none(consumer: Any) -> None:
    consumer.assign([WORK])
    consumer.seek(WORK, 5)
    assert internals.read(consumer, 10, timeout_ms=0, fetch_wait_ms=7) == ({}, None)
    assert "max_wait_ms=self.config['fetch_max_wait_ms']" in inspect.getsource(Fetcher._create_fetch_requests)
    assert consumer._fetcher.config["fetch_max_wait_ms"] == 7
    consumer._fetcher._completed_fetches.append(_fetched(_batch()))
    found, _ = internals.read(consumer, 10, timeout_ms=0, fetch_wait_ms=7)
    assert [record.value for record in found[KafkaPartition(*WORK)]] == [b"a value"]


def test_fetched_records_do_not_wait_for_the_next_request(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.assign([WORK])
    consumer.seek(WORK, 5)
    consumer._fetcher._completed_fetches.append(_fetched(_batch()))
    monkeypatch.setattr(internals, "cluster", lambda client: SimpleNamespace(brokers=lambda: [0]))
    may_send, sent = threading.Event(), []

    async def send_fetches() -> None:
        may_send.wait(10)
        sent.append(threading.current_thread().name)

    monkeypatch.setattr(consumer._fetcher, "_send_fetches_async", send_fetches)
    found, sending = internals.read(consumer, 10, timeout_ms=0, fetch_wait_ms=7)
    assert found
    assert sent == []
    may_send.set()
    internals.wait(consumer, sending, timeout_ms=10_000)
    assert len(sent) == 1


def test_a_paused_partition_is_not_read(consumer: Any) -> None:
    consumer.assign([WORK])
    consumer.seek(WORK, 5)
    assert internals.reads_all(consumer)
    consumer.pause(WORK)
    assert not internals.reads_all(consumer)


def test_the_requests_that_may_bring_records_are_known(consumer: Any) -> None:
    assert internals.reads_under_way(consumer) == []
    fetcher, futures = consumer._fetcher, [Future(), Future(), Future()]
    fetcher._fetch_futures.append(futures[0])
    fetcher._reset_task, fetcher._validation_task = futures[1:]
    assert internals.reads_under_way(consumer) == futures


def test_a_fetch_that_waits_for_records_is_dropped_with_its_connection(consumer: Any) -> None:
    closed: list[int] = []
    fetcher, manager = consumer._fetcher, consumer._manager
    assert "_nodes_with_pending_fetch_requests.add(node_id)" in inspect.getsource(Fetcher)
    for node_id, is_open in ((1, True), (2, False), (3, True)):
        manager._conns[node_id] = SimpleNamespace(
            connected=is_open, close=lambda node_id=node_id: closed.append(node_id)
        )
    fetcher._nodes_with_pending_fetch_requests.update({1, 2, 7})
    internals.drop_waiting_fetches(consumer)
    assert closed == [1]
    for node_id in (1, 2, 3):
        del manager._conns[node_id]


def test_heartbeats_keep_the_pace_that_they_are_given(consumer: Any) -> None:
    assert "self.heartbeat.time_to_next_heartbeat()" in inspect.getsource(BaseCoordinator._heartbeat_loop)
    heartbeat = consumer._coordinator.heartbeat
    asked: list[tuple[float, float]] = []

    def pace(sent_s: float, joined_s: float) -> float:
        asked.append((sent_s, joined_s))
        return 3_600.0

    internals.pace_heartbeats(consumer, pace)
    heartbeat.sent_heartbeat()
    assert heartbeat.time_to_next_heartbeat() > 3_000
    assert asked == [(heartbeat.last_send, heartbeat.last_reset)]
    assert not heartbeat.should_heartbeat()
    heartbeat.fail_heartbeat()  # kafka-python's own pause
    assert heartbeat.time_to_next_heartbeat() < 1


def test_an_assignor_that_forgets_claims_nothing() -> None:
    assignor = ForgetfulCooperativeStickyAssignor()
    fresh = assignor.metadata(["work"]).encode()
    assignor.on_assignment(SimpleNamespace(partitions=lambda: [KafkaPartition(*WORK)]), -1)
    assert assignor.metadata(["work"]).encode() != fresh
    assignor.forget()
    assert assignor.metadata(["work"]).encode() == fresh


def test_a_wait_for_a_topic_has_a_time_of_its_own(producer: Any) -> None:
    with pytest.raises(KafkaTimeoutError):
        internals.wait_for_topic(producer, "work", 1)


def test_a_producer_that_has_heard_nothing_knows_no_partitions(producer: Any) -> None:
    assert internals.known_partitions(producer, "work") is None
    assert internals.producer_leader_epoch(producer, WORK) is None


def test_the_next_metadata_of_a_producer_is_told(producer: Any) -> None:
    told = threading.Event()
    internals.request_producer_metadata(producer, lambda _: told.set())
    producer._metadata.request_update().success(producer._metadata)  # the same one: nothing was answered
    assert told.wait(DEADLINE_MS / 1000)


def test_a_record_on_its_way_names_its_partition() -> None:
    sent = FutureRecordMetadata(FutureProduceResult(KafkaPartition(*WORK)), 0, 0, None, 0, 0, 0)
    assert internals.partition_of(sent) == WORK
    assert type(internals.partition_of(sent)) is TopicPartition


def test_an_unknown_partition_is_recognised_by_the_error_about_it(producer: Any) -> None:
    producer._metadata.topics = lambda: {"work"}
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        producer._partition("work", 7, None, b"", None, b"")
    assert is_unknown_partition(raised.value)


def test_an_error_about_a_batch_is_noted_and_still_dispatched(
    producer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(inspect.signature(Sender._dispatch_error).parameters) == [
        "self", "batch", "exception", "partition_response",
    ]  # fmt: skip
    assert inspect.getsource(Sender).count("self._dispatch_error(") >= 2
    noted: list[Any] = []
    dispatched: list[Any] = []
    monkeypatch.setattr(
        producer._sender, "_dispatch_error", lambda *args, **kwargs: dispatched.append((args, kwargs))
    )
    internals.watch_batch_errors(producer, lambda partition, error: noted.append((partition, error)))
    batch, error = SimpleNamespace(topic_partition=KafkaPartition(*WORK)), CorruptRecordError()
    producer._sender._dispatch_error(batch, error, partition_response=None)
    assert noted == [(WORK, error)]
    assert dispatched == [((batch, error), {"partition_response": None})]


def test_a_producer_is_not_closed_when_python_ends(silent: dict[str, Any]) -> None:
    theirs = KafkaProducer(**silent)
    try:
        assert theirs._cleanup is not None
        internals.keep_beyond_atexit(theirs)
        assert theirs._cleanup is None
    finally:
        internals.force_close(theirs)


def test_a_forced_close_ends_the_thread_of_a_producer(silent: dict[str, Any]) -> None:
    made: Any = Producer(**silent)
    internals.force_close(made)
    made._sender.join(DEADLINE_MS / 1000)
    assert not made._sender.is_alive()
    made.close(timeout=0)  # there is nothing left to close


def test_a_question_to_a_producer_that_another_thread_has_closed_is_an_illegal_state(producer: Any) -> None:
    def request_update() -> None:
        raise RuntimeError("NetworkSelector closed!")  # as net/selector.py:377 has it

    producer._metadata.request_update = request_update
    with pytest.raises(IllegalStateError):
        producer.wait_for_topic("work", 1)
    with pytest.raises(IllegalStateError):
        producer.refresh_metadata(timeout_s=0.0)


def test_a_look_up_of_the_cluster_asks_for_the_topics_that_it_is_given() -> None:
    with closing(Connection(topics=["work"], bootstrap_servers=["127.0.0.1:1"])) as connection:
        request = connection.cluster.metadata_request()
        assert [topic.name for topic in request.topics] == ["work"]


def test_an_operation_that_kafka_python_does_not_know_fails_no_description() -> None:
    described = {"authorized_operations": [3, 15]}
    admin = object.__new__(KafkaAdminClient)
    with pytest.raises(ValueError, match="15 is not a valid ACLOperation"):
        admin._process_acl_operations(dict(described))
    internals.keep_operations_undecoded(admin)
    assert admin._process_acl_operations(described) == {"authorized_operations": [3, 15]}
    for describing in (
        KafkaAdminClient._describe_groups_process_response,
        KafkaAdminClient._describe_cluster,
    ):
        assert "self._process_acl_operations(" in inspect.getsource(describing)


def test_a_connection_knows_how_many_servers_it_was_given() -> None:
    with closing(Connection(bootstrap_servers=["127.0.0.1:1", "127.0.0.1:2"])) as connection:
        assert internals.bootstrap_server_count(connection._manager) == 2


def test_a_connection_is_known_from_when_it_is_begun(consumer: Any) -> None:
    assert not internals.is_connected_to(consumer._manager, 7)
    assert internals.is_connected_to(SimpleNamespace(_conns={7: None}), 7)
    assert "self._conns[node_id] = " in inspect.getsource(KafkaConnectionManager.get_connection)


def test_every_transport_reads_its_socket_with_the_function_that_is_wrapped() -> None:
    reading = inspect.getsource(KafkaTCPTransport._read_from_sock)
    assert "self._sock_recv()" in reading
    transport = SimpleNamespace(_sock_recv=lambda: (b"answer", None))
    internals.wrap_receive(transport, lambda receive: lambda: (receive()[0].upper(), None))
    assert transport._sock_recv() == (b"ANSWER", None)


def test_a_selector_of_the_parent_is_closed_without_its_sockets() -> None:
    net = NetworkSelector()
    files = [key.fileobj for key in net._selector.get_map().values()]
    assert files
    internals.close_selector_in_child(net)
    net._wakeup_w.close()
    assert all(file.fileno() == -1 for file in files)
    assert net._selector.get_map() is None
    net.close()  # which does nothing any more
