"""Every private part of kafka-python that the broker relies on, in one place.

Each docstring names the location of that part in kafka-python 3.0.12, as file:line below the package
``kafka``, or the issue of https://github.com/dpkp/kafka-python that the function works around.
``tests/broker/kafka/test_internals.py`` has a test for each, which fails with a version that changes the
part.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from kafka.net.selector import KernelEvent
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import OffsetAndMetadata as KafkaOffset
from kafka.structs import TopicPartition as KafkaPartition

from ..process import clock
from .errors import KafkaConnectionError, KafkaTimeoutError
from .types import Heartbeat, OffsetAndMetadata, TopicPartition

#: kafka-python's clients are untyped.
Client = Any
#: Reads a socket: the available bytes, and the reason for the end of the stream.
Receive = Callable[[], tuple[bytes, BaseException | None]]
#: Records of a queue that is not busy. A worker that has many to run gains nothing from their earlier return.
FEW_RECORDS = 16


# Metadata


def cluster(client: Client) -> Any:
    """The metadata that a consumer has received, with the methods that its public interface lacks.

    They are topic_id, leader_for_partition, leader_epoch_for_partition, partitions_for_topic, brokers,
    add_topic and request_update: cluster.py:235-477; ``_manager``: consumer/group.py:419.
    """
    return client._manager.cluster


def wait(client: Client, future: Any, timeout_ms: float) -> Any:
    """Wait for a future of the I/O thread; raises its error, or KafkaTimeoutError.

    KafkaConnectionManager.run and wait_for: net/manager.py:443, :406.
    """
    return client._manager.run(client._manager.wait_for, future, timeout_ms)


def start(client: Client, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Run ``function(manager, *args)`` on the I/O thread, without waiting; returns its future.

    KafkaConnectionManager.call_soon: net/manager.py:434.
    """
    return client._manager.call_soon(function, client._manager, *args)


def sleep(delay_s: float) -> Any:
    """The awaitable with which a coroutine of the I/O thread lets others run for a while.

    NetworkSelector.sleep returns the same: net/selector.py:448. A rebalance listener has no selector at hand.
    """
    return KernelEvent("_sleep", delay_s)


# Positions and offsets


def seek_with_epoch(client: Client, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
    """Set a position together with the leader epoch of the record before it.

    kafka-python's seek() takes no leader epoch (consumer/group.py:998). Without one, a position cannot be
    distinguished from a position in another log: a shorter log would be read from its beginning. Its
    positions have had one since https://github.com/dpkp/kafka-python/pull/2978
    (consumer/subscription_state.py:638).

    Raises:
      ValueError: When the partition is not assigned any more.
    """
    state = client._subscription.assignment.get(partition)
    if state is None:
        raise ValueError("Unassigned partition")
    state.seek(KafkaOffset(offset, "", leader_epoch))


def position_epoch(client: Client, partition: TopicPartition) -> int:
    """The leader epoch of the record before the position; -1 when it is not known.

    TopicPartitionState.position: consumer/subscription_state.py:558.
    """
    state = client._subscription.assignment.get(partition)
    position = None if state is None else state.position
    return -1 if position is None or position.leader_epoch is None else int(position.leader_epoch)


def committed_offsets(
    client: Client, partitions: Iterable[TopicPartition], timeout_ms: float | None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The committed offsets of the group, with one request.

    KafkaConsumer.committed asks the same for one partition (consumer/group.py:726); a round trip for each
    would add up. ConsumerCoordinator.fetch_committed_offsets: coordinator/consumer.py:638.
    """
    asked = [KafkaPartition(*partition) for partition in partitions]
    found = client._coordinator.fetch_committed_offsets(asked, timeout_ms=timeout_ms)
    return {TopicPartition(*partition): OffsetAndMetadata(*commit) for partition, commit in found.items()}


def ask_beginnings(client: Client, partitions: Iterable[TopicPartition], timeout_ms: float) -> Any:
    """Ask what beginning_offsets() asks, without its wait; returns the future."""
    return _ask_offsets(client, partitions, OffsetSpec.EARLIEST, timeout_ms)


def ask_ends(client: Client, partitions: Iterable[TopicPartition], timeout_ms: float) -> Any:
    """Ask what end_offsets() asks, without its wait; returns the future."""
    return _ask_offsets(client, partitions, OffsetSpec.LATEST, timeout_ms)


def _ask_offsets(client: Client, partitions: Iterable[TopicPartition], spec: Any, timeout_ms: float) -> Any:
    # Fetcher._fetch_offsets_by_times_async: consumer/fetcher.py:415, called with its wait at :536.
    wanted = {KafkaPartition(*partition): spec for partition in partitions}
    fetcher = client._fetcher
    return client._manager.call_soon(fetcher._fetch_offsets_by_times_async, wanted, timeout_ms)


# Unreadable batches


def held_error(client: Client) -> Exception | None:
    """The error that the next poll raises.

    kafka-python keeps one when there are records to hand out before it, and loses it, but not the batch, when
    the partition is paused by then (Fetcher.fetched_records: consumer/fetcher.py:569-574, :620-623).
    """
    kept = client._fetcher._next_in_line_exception_metadata
    if kept is None:
        return None
    error: Exception = kept.exception
    return error


def forget_held_error(client: Client) -> None:
    """Let the next poll not raise :func:`held_error`."""
    client._fetcher._next_in_line_exception_metadata = None


def drop_unreadable_batch(client: Client) -> TopicPartition | None:
    """Drop the buffered batch of the partition that caused the last error of a poll; None when there is no
    batch.

    kafka-python does not name the partition, and would process the same batch for ever
    (Fetcher.fetched_records: consumer/fetcher.py:594-623; PartitionRecords.drain: :1635).
    """
    fetcher = client._fetcher
    failed = fetcher._next_partition_records
    if failed is None or not failed:
        return None
    failed.drain()
    fetcher._next_partition_records = None
    return TopicPartition(*failed.topic_partition)


# Groups


def heartbeat(client: Client) -> Heartbeat:
    """The times of the answers to heartbeats: coordinator/base.py:190, coordinator/heartbeat.py:34-37."""
    state = client._coordinator.heartbeat
    return Heartbeat(state.last_receive, state.last_reset)


def heartbeat_soon(client: Client) -> None:
    """Send a heartbeat now, on the I/O thread, in addition to the next one of the interval.

    AbstractCoordinator._do_heartbeat, which handles every error of Kafka's: coordinator/base.py:1003;
    _heartbeat_enabled and stable(), as in its _heartbeat_loop: coordinator/base.py:947-953.

    Raises:
      RuntimeError: When the client is closed.
    """
    coordinator = client._coordinator

    async def beat() -> None:
        if coordinator._heartbeat_enabled and coordinator.stable():
            await coordinator._do_heartbeat()

    client._manager.call_soon(beat)


def watch_member_id(client: Client, note: Callable[[str], object]) -> None:
    """Call ``note`` on the I/O thread with each new member id of a consumer.

    Kafka gives a new member its id with the refusal of its first JoinGroup request (KIP-394), so the id is
    noted before the member is in the group. A rebalance listener learns of a join only if it brings
    partitions. AbstractCoordinator._do_join_and_sync_async and _generation: coordinator/base.py:717, :198.
    """
    coordinator = client._coordinator
    join = coordinator._do_join_and_sync_async
    noted = ""

    def note_new() -> None:
        nonlocal noted
        member_id = coordinator._generation.member_id
        if member_id and member_id != noted:
            noted = member_id
            note(member_id)

    async def join_noted() -> bytes:
        note_new()
        try:
            assignment: bytes = await join()
            return assignment
        finally:
            note_new()

    coordinator._do_join_and_sync_async = join_noted


def coordinator_node(client: Client) -> object:
    """The connection to the group's coordinator, over which no fetch waits; None while it is unknown.

    AbstractCoordinator.coordinator: coordinator/base.py:264; ClusterMetadata.add_coordinator: cluster.py:654.
    """
    node_id: object = client._coordinator.coordinator()
    return node_id


def keep_join_outcomes(client: Client) -> None:
    """Let a join that ends between two polls count.

    kafka-python 3.0.12 drops its outcome, and the next poll joins once more. That rebalances all other
    members, and on a busy machine a consumer can remain without a partition for long. Here the next poll gets
    the outcome, unless this consumer has left the group generation of the join.

    A join that has begun is also completed. kafka-python joins again as the group's leader when a topic has
    more partitions than at its last assignment, and makes the next assignment in the middle of the join. If a
    poll ends there, no later poll finds a reason to join. The consumer then sends no heartbeats, commits
    nothing, does not notice its removal from the group, and reads the partitions beside their next owners.

    A join that Kafka refuses because it has removed the member begins again, with the loss of its partitions.
    kafka-python tells a listener of a loss before the first attempt of a join only. Without that, a member
    that joins as a new one would keep the state of partitions that another member may have had meanwhile.

    AbstractCoordinator._do_join_and_sync_async, its task, _on_join_complete_async and rejoining:
    coordinator/base.py:494-553, :717; ConsumerCoordinator.need_rejoin and _on_join_prepare_async:
    coordinator/consumer.py:590, :488; Generation.is_lost: coordinator/base.py:40.
    """
    coordinator, subscription = client._coordinator, client._subscription
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    need_rejoin = coordinator.need_rejoin
    kept: tuple[object, bytes] | None = None

    async def join_unless_joined() -> bytes:
        nonlocal kept
        if kept is None or kept[0] is not coordinator._generation:
            try:
                assignment = await join()
            finally:
                if coordinator._generation.is_lost() and subscription.assigned_partitions():
                    coordinator.rejoining = False
            kept = (coordinator._generation, assignment)
        return kept[1]

    async def take_outcome(*args: Any) -> None:
        nonlocal kept
        kept = None
        await complete(*args)

    coordinator.need_rejoin = lambda: coordinator.rejoining or need_rejoin()
    coordinator._do_join_and_sync_async = join_unless_joined
    coordinator._on_join_complete_async = take_outcome


def watch_group(client: Client, note: Callable[[], None]) -> None:
    """Call ``note`` when a poll may have something to do for the group: on any thread, and often for nothing.

    A member joins again only in a poll (see :func:`take_part`). kafka-python notes the reason on its I/O
    thread, and wakes no poll that waits for records. AbstractCoordinator.request_rejoin and reset_generation,
    which are called on the coordinator: coordinator/base.py:917-932; ClusterMetadata.add_listener:
    cluster.py:643.
    """
    coordinator = client._coordinator
    request_rejoin, reset_generation = coordinator.request_rejoin, coordinator.reset_generation

    def request_rejoin_noted() -> None:
        request_rejoin()
        note()

    def reset_generation_noted(*args: Any, **kwargs: Any) -> None:
        reset_generation(*args, **kwargs)
        note()

    coordinator.request_rejoin = request_rejoin_noted
    coordinator.reset_generation = reset_generation_noted
    cluster(client).add_listener(lambda _: note())


def knows_coordinator(client: Client) -> bool:
    """Whether the group's coordinator is known, and reachable as far as the client knows.

    AbstractCoordinator.coordinator_unknown: coordinator/base.py:304.
    """
    return not client._coordinator.coordinator_unknown()


def look_up_coordinator(client: Client) -> Any:
    """Ask for the group's coordinator, unless that is under way; returns the future.

    AbstractCoordinator.lookup_coordinator: coordinator/base.py:385. It forgets the future when that ends, so
    ensure_coordinator_ready() with a timeout of 0 never learns of a failure.
    """
    return client._coordinator.lookup_coordinator()


def drop_dead_coordinator(client: Client) -> None:
    """Close the connection to a coordinator whose node has left the cluster, if a join waits for it there.

    A node that is frozen or isolated closes no connection. kafka-python waits for the answer to a JoinGroup
    for max_poll_interval_ms, 5 minutes by default, and sends no heartbeat meanwhile that could fail earlier.
    The metadata is of another node: Kafka takes a dead node out of it after some seconds.

    ClusterMetadata.add_coordinator makes the id of the node: cluster.py:680. AbstractCoordinator._join_task
    and coordinator_dead: coordinator/base.py:211, :870. KafkaConnection.close: net/connection.py:331; the
    error lets the join fail.
    """
    coordinator, manager = client._coordinator, client._manager
    joining, node_id = coordinator._join_task, coordinator.coordinator_id
    if joining is None or joining.is_done or node_id is None:
        return
    nodes = {f"coordinator-{node.node_id}" for node in manager.cluster.brokers()}
    connection = manager._conns.get(node_id)
    if nodes and node_id not in nodes and connection is not None:
        error = KafkaConnectionError(f"{node_id} has left the cluster")
        coordinator.coordinator_dead(error)
        manager.call_soon(lambda: connection.close(error))


def take_part(client: Client) -> bool:
    """Advance the membership of a group as far as it goes without a wait; False while it is incomplete, or
    while the coordinator is unknown.

    ConsumerCoordinator.poll (coordinator/consumer.py:386) waits for a join until its timeout, and no records
    of the partitions that the member keeps are read meanwhile. This is the same without the wait, as in
    Kafka's Java client (https://issues.apache.org/jira/browse/KAFKA-8421). It waits for the rebalance
    listener.

    Raises:
      KafkaError: An error of the group that Kafka reported since the last call.
    """
    coordinator = client._coordinator
    coordinator._invoke_completed_offset_commit_callbacks()
    if coordinator.coordinator_unknown():
        return False
    try:
        if coordinator.need_rejoin():
            joining = coordinator._join_task
            if joining is not None and not joining.is_done:
                return False
            # The join continues after its timeout.
            if not coordinator.ensure_active_group(timeout_ms=0):
                return False
    except KafkaTimeoutError:
        return False
    coordinator.poll_heartbeat()
    return True


def take_join_failure(client: Client) -> Exception | None:
    """The error of a join that failed between two calls of :func:`take_part`, which would join again.

    AbstractCoordinator._join_task: coordinator/base.py:201, :494-531.
    """
    coordinator = client._coordinator
    task = coordinator._join_task
    if task is None or not task.failed():
        return None
    coordinator._join_task = None
    failure: Exception = task.exception
    return failure


def keeps_reading(client: Client) -> bool:
    """Whether a member whose join is incomplete still owns partitions: its membership was not lost.

    Generation.is_lost: coordinator/base.py:40; AbstractCoordinator.coordinator_unknown: :257.
    """
    coordinator = client._coordinator
    return not coordinator.coordinator_unknown() and not coordinator._generation.is_lost()


def reads_all(client: Client) -> bool:
    """Whether the next fetch asks for every assigned partition.

    SubscriptionState.fetchable_partitions: consumer/subscription_state.py:360.
    """
    subscription = client._subscription
    return len(subscription.fetchable_partitions()) == len(subscription.assigned_partitions())


def read(
    client: Client, max_records: int, *, timeout_ms: float, fetch_wait_ms: int
) -> tuple[dict[Any, list[Any]], Any]:
    """The fetched records, and a request for more. It waits for no record.

    KafkaConsumer._poll_once and Fetcher.fetch_records do the same, and then wait by another task of the I/O
    thread: consumer/group.py:830-874, consumer/fetcher.py:197-266. A few records do not wait for
    the I/O thread to make the request: Fetcher.send_fetches does, consumer/fetcher.py:269. The request may
    then ask for records that this thread takes meanwhile; Fetcher._append drops those: :626.

    Parameters:
      timeout_ms: Of a request for the committed offset of a partition without a position.
      fetch_wait_ms: The time for which Kafka may hold the next fetch back until there are records.
        Fetcher._create_fetch_requests reads the setting for each: consumer/fetcher.py:1328.

    Returns:
      The records by partition, and the future of making the request, unless that is done. When it fails, the
      next read without records makes the request, and raises the error.
    """
    fetcher = client._fetcher
    fetcher.config["fetch_max_wait_ms"] = fetch_wait_ms
    client._refresh_committed_offsets(timeout_ms=timeout_ms)
    fetcher.reset_offsets_if_needed()
    fetcher.maybe_validate_positions()
    fetcher.validate_offsets_if_needed()
    records, partial = fetcher.fetched_records(max_records)
    # One fetch for each node at a time.
    if partial or len(fetcher._nodes_with_pending_fetch_requests) >= len(cluster(client).brokers()):
        return records, None
    if 0 < sum(map(len, records.values())) <= FEW_RECORDS:
        return records, client._manager.call_soon(fetcher._send_fetches_async)
    fetcher.send_fetches()
    return records, None


def group_requests(client: Client) -> list[Any]:
    """The futures of the look-up of the coordinator and of the join, ended ones included.

    AbstractCoordinator._join_task and _find_coordinator_future: coordinator/base.py:194-201.
    """
    coordinator = client._coordinator
    futures = (coordinator._join_task, coordinator._find_coordinator_future)
    return [future for future in futures if future is not None]


def reads_under_way(client: Client) -> list[Any]:
    """The futures after which there may be records, ended ones included.

    Fetcher._fetch_futures, _reset_task and _validation_task: consumer/fetcher.py:137-166.
    """
    fetcher = client._fetcher
    single = (fetcher._reset_task, fetcher._validation_task)
    return [*fetcher._fetch_futures, *(future for future in single if future is not None)]


def drop_waiting_fetches(client: Client) -> None:
    """Close the connections whose fetch waits for records, so that requests about other partitions, and
    their fetch, need not wait behind it. On the I/O thread.

    Kafka answers the requests of a connection one after another, and kafka-python sends one fetch for each
    node at a time (Fetcher._create_fetch_requests: consumer/fetcher.py:1268). The records of a dropped
    answer are fetched again. KafkaConnection.close: net/connection.py:331; without an error it cancels the
    requests, and the next one connects again at once.
    """
    manager = client._manager
    for node_id in list(client._fetcher._nodes_with_pending_fetch_requests):
        connection = manager._conns.get(node_id)
        if connection is not None and connection.connected:
            connection.close()


def pace_heartbeats(client: Client, pace: Callable[[float, float], float]) -> None:
    """Let ``pace(sent_s, joined_s)`` return the seconds from the last heartbeat to the next one.

    Parameters:
      pace: Takes the times of the last heartbeat and of the last join; the later one counts as a heartbeat.

    Heartbeat.time_to_next_heartbeat, which AbstractCoordinator._heartbeat_loop calls:
    coordinator/heartbeat.py:50, coordinator/base.py:1008-1013.
    """
    heartbeat = client._coordinator.heartbeat
    after_failure = heartbeat.time_to_next_heartbeat

    def time_to_next_heartbeat() -> float:
        if heartbeat.heartbeat_failed:
            return float(after_failure())
        sent_s, joined_s = float(heartbeat.last_send), float(heartbeat.last_reset)
        due_s = max(sent_s, joined_s) + pace(sent_s, joined_s)
        return max(0.0, due_s - clock.monotonic_s())

    heartbeat.time_to_next_heartbeat = time_to_next_heartbeat


# Producers


def wait_for_topic(producer: Client, topic: str, timeout_ms: float) -> None:
    """Wait until a producer knows a topic's partitions. send() would take the timeout from the settings.

    KafkaProducer._wait_on_metadata: producer/kafka.py:1021.
    """
    producer._wait_on_metadata(topic, timeout_ms)


def known_partitions(producer: Client, topic: str) -> set[int] | None:
    """The partitions that a producer knows; partitions_for() would wait: producer/kafka.py:1086."""
    known: set[int] | None = producer._metadata.partitions_for_topic(topic)
    return known


def producer_leader_epoch(producer: Client, partition: TopicPartition) -> int | None:
    """ClusterMetadata.leader_epoch_for_partition: cluster.py:335."""
    epoch: int | None = producer._metadata.leader_epoch_for_partition(partition)
    return epoch


def request_producer_metadata(producer: Client, on_answer: Callable[[object], object]) -> None:
    """Ask for a producer's metadata, and call ``on_answer`` with the answer or the error.

    ClusterMetadata.request_update: cluster.py:421; Sender.wakeup: producer/sender.py:707.
    """
    producer._metadata.request_update().add_both(on_answer)
    producer._sender.wakeup()


def partition_of(future: Any) -> TopicPartition:
    """The partition of a record in flight, before there is an answer.

    FutureRecordMetadata._produce_future: producer/future.py:49, :70.
    """
    return TopicPartition(*future._produce_future.topic_partition)


def watch_batch_errors(producer: Client, note: Callable[[TopicPartition, BaseException], None]) -> None:
    """Call ``note`` with each error that Kafka answers about a batch; kafka-python does not report it.

    It tries again until the timeout of the batch, and then reports only the timeout. Sender._dispatch_error:
    producer/sender.py:490.
    """
    sender = producer._sender
    dispatch = sender._dispatch_error

    def dispatch_noted(batch: Any, error: BaseException, *args: Any, **kwargs: Any) -> None:
        note(TopicPartition(*batch.topic_partition), error)
        dispatch(batch, error, *args, **kwargs)

    sender._dispatch_error = dispatch_noted


def keep_beyond_atexit(producer: Client) -> None:
    """Do not close a producer in an ``atexit`` handler, after which nothing can be sent.

    KafkaProducer._unregister_cleanup: producer/kafka.py:654; https://github.com/dpkp/kafka-python/pull/360.
    """
    producer._unregister_cleanup()


def force_close(producer: Client) -> None:
    """Close a producer that close() leaves open, with its thread and sockets, because it has records to
    flush.

    KafkaProducer.close: producer/kafka.py:668-726; Sender.force_close: producer/sender.py:366.
    """
    producer._sender.force_close()
    producer._closed = True


# Connections


def track_topics(manager: Any, topics: Iterable[str]) -> None:
    """Let the look-up of the cluster ask for these topics, too, before it has begun.

    set_topics() would begin a look-up without a deadline. ClusterMetadata._topics: cluster.py:197-213, :462.
    """
    manager.cluster._topics = set(topics)


def keep_operations_undecoded(admin: Any) -> None:
    """Let an admin client ignore the operations that it may perform on a group, a topic or the cluster.

    kafka-python raises ValueError for a number that it does not know: TWO_PHASE_COMMIT, which is 15, of Kafka
    4, and those of the embedded broker. ACLAdminMixin._process_acl_operations: admin/_acls.py:29-32.
    """
    admin._process_acl_operations = lambda described: described


def bootstrap_server_count(manager: Any) -> int:
    """The number of servers that a client was given: cluster.py:82."""
    return len(manager.cluster._bootstrap_brokers)


def is_connected_to(manager: Any, node_id: Any) -> bool:
    """Whether there is a connection to a node, established or not.

    KafkaConnectionManager.get_connection creates a missing one: net/manager.py:268-296.
    """
    return node_id in manager._conns


def wrap_receive(transport: Any, wrap: Callable[[Receive], Receive]) -> None:
    """Replace the function with which a connection reads its socket.

    KafkaTCPTransport._sock_recv, called by _read_from_sock: net/transport.py:90-127; for TLS :428-449.
    """
    transport._sock_recv = wrap(transport._sock_recv)


def close_selector_in_child(net: Any) -> None:
    """In the child of a fork, close the child's files of a selector, and leave the sockets to the parent.

    kafka-python's own close() shuts the sockets down, for the parent as well, and takes them out of a set
    that both share. NetworkSelector._closed and _selector: net/selector.py:204-223.
    """
    net._closed = True
    watched = net._selector.get_map()
    for key in list(watched.values()) if watched else []:
        key.fileobj.close()  # the child's file alone: the socket stays open
    net._selector.close()
