"""The removal of dead members, and the reaction of other workers, on a Kafka in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from broker.kafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from broker.kafka.protocol import ConsumerClient, RebalanceListener
from broker.kafka.types import Membership, TopicPartition
from broker.reaper.dead_worker import DeadWorker
from broker.reaper.death_note import DeathNote, command_name
from broker.reaper.death_note_reader import DeathNoteReader
from broker.reaper.kill_note_reader import KillNoteReader
from broker.reaper.members import Removal
from broker.reaper.process_watch import Exit
from broker.reaper.wire import Introduction
from broker.testing import MemoryCluster, Request
from broker.testing.memory.clients import MemoryClients
from broker.testing.memory.cluster import MemoryProcess
from tests.broker.reaper.worker import limited
from tests.waiting import wait_until

NOTES = "dramatiq_workers"
GROUP = "g.work"
TIMEOUT_MS = 600_000
DEADLINE_S = 30


class Member:
    """A consumer in a process of its own."""

    def __init__(self, cluster: MemoryCluster, group: str = GROUP) -> None:
        self.clients = MemoryClients(cluster, process=MemoryProcess())
        self.memberships: set[Membership] = set()
        self.kafka: ConsumerClient = self.clients.consumer(group_id=group, session_timeout_ms=TIMEOUT_MS)
        listener = RebalanceListener(
            on_assigned=lambda partitions: None,
            on_revoked=lambda partitions: None,
            on_lost=lambda partitions: None,
            on_membership=self.memberships.add,
        )
        self.kafka.subscribe(["work"], listener)

    def partitions(self) -> set[int]:
        self.kafka.poll()
        return {partition.partition for partition in self.kafka.assignment()}

    def kill(self) -> DeadWorker:
        self.clients.process.kill()
        introduction = Introduction("host:1", ["memory:9092"], {}, NOTES, TIMEOUT_MS)
        return DeadWorker(introduction, Exit(signal=9), set(self.memberships))


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.create_topic("work", 2, {})
    cluster.create_topic(NOTES, 1, {})
    return cluster


@pytest.fixture
def removal(cluster: MemoryCluster) -> Removal:
    return Removal(lambda introduction: MemoryClients(cluster))


def notes(cluster: MemoryCluster) -> list[DeathNote]:
    with closing(MemoryClients(cluster).consumer(auto_offset_reset="earliest")) as kafka:
        kafka.assign([TopicPartition(NOTES, 0)])
        records = [record for batch in kafka.poll().values() for record in batch]
    assert all(record.key == b"host:1/death" for record in records)
    found = [DeathNote.decode(record.value) for record in records]
    return [note for note in found if note is not None]


def members(cluster: MemoryCluster, group: str = GROUP) -> set[str]:
    with MemoryClients(cluster).admin() as admin:
        return set(admin.group_members(group))


def test_a_survivor_gets_the_partitions_of_a_dead_member_at_once(
    cluster: MemoryCluster, removal: Removal
) -> None:
    dying, survivor = Member(cluster), Member(cluster)
    wait_until(
        lambda: [len(member.partitions()) for member in (dying, survivor)] == [1, 1],
        deadline_s=DEADLINE_S,
        what="a partition for each",
    )
    dead = dying.kill()
    removal.remove([dead])
    assert survivor.partitions() == {0, 1}
    (note,) = notes(cluster)
    assert note.removed == frozenset(dead.memberships)
    assert note.remaining == frozenset()
    assert (note.signal, note.exit_code) == (9, None)


def test_a_group_without_another_member_keeps_its_dead_one_for_a_successor(
    cluster: MemoryCluster, removal: Removal
) -> None:
    dying = Member(cluster)
    dying.partitions()
    dead = dying.kill()
    removal.remove([dead])
    assert members(cluster) == {m.member_id for m in dead.memberships}
    (note,) = notes(cluster)
    assert note.remaining == frozenset(dead.memberships)
    assert note.expires_ms == dead.died_ms + TIMEOUT_MS


def test_workers_that_their_command_stops_do_not_count_as_others(
    cluster: MemoryCluster, removal: Removal
) -> None:
    dying, sibling = Member(cluster), Member(cluster)
    dying.partitions()
    sibling.partitions()
    dead = dying.kill()
    dead.siblings = set(sibling.memberships)
    removal.remove([dead])
    assert len(members(cluster)) == 2
    (note,) = notes(cluster)
    assert note.remaining == frozenset(dead.memberships)


def test_members_that_died_before_do_not_count_as_others(cluster: MemoryCluster, removal: Removal) -> None:
    first, second = Member(cluster), Member(cluster)
    first.partitions()
    second.partitions()
    removal.remove([first.kill(), second.kill()])
    assert len(members(cluster)) == 2
    assert [len(note.remaining) for note in notes(cluster)] == [1, 1]


def test_a_dead_member_is_removed_where_no_note_can_be_written(
    cluster: MemoryCluster, removal: Removal
) -> None:
    cluster.delete_topic(NOTES)
    dying = Member(cluster)
    dying.partitions()
    removal.remove([dying.kill()])
    assert members(cluster) == set()


def test_a_dead_member_is_removed_when_its_note_is_refused(
    cluster: MemoryCluster, removal: Removal, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.refuse(Request.PRODUCE, TopicAuthorizationFailedError, topic=NOTES)
    dying = Member(cluster)
    dying.partitions()
    removal.remove([dying.kill()])
    assert members(cluster) == set()
    assert "could not be noted" in caplog.text


def test_a_worker_without_members_has_a_death_note(cluster: MemoryCluster, removal: Removal) -> None:
    removal.remove([Member(cluster).kill()])
    assert [note.groups for note in notes(cluster)] == [set()]


def test_a_refused_removal_names_the_right_and_keeps_the_members(
    cluster: MemoryCluster, removal: Removal, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.refuse(Request.LEAVE_GROUP, GroupAuthorizationFailedError)
    dying, survivor = Member(cluster), Member(cluster)
    dying.partitions()
    survivor.partitions()
    with caplog.at_level(logging.WARNING):
        removal.remove([dying.kill()])
    assert len(members(cluster)) == 2
    assert f"READ on the group '{GROUP}'" in caplog.text


# The reactions of other workers


class Reactions:
    """A living worker that reads death notes, and the heartbeats that it asks for."""

    def __init__(self, member: Member) -> None:
        self.heartbeats: list[set[str]] = []
        self.reader = DeathNoteReader(
            member.clients, heartbeat_soon=self.heartbeats.append, memberships=lambda: member.memberships
        )


@pytest.fixture
def successor(cluster: MemoryCluster) -> Iterator[tuple[Member, Reactions]]:
    member = Member(cluster)
    reactions = Reactions(member)
    reactions.reader.start()
    yield member, reactions
    reactions.reader.stop()


def note_of(membership: Membership, *, remaining: bool, expires_ms: int | None = None) -> DeathNote:
    chosen = frozenset({membership})
    now_ms = time.time_ns() // 1_000_000
    return DeathNote(
        "host:1",
        now_ms,
        removed=frozenset() if remaining else chosen,
        remaining=chosen if remaining else frozenset(),
        expires_ms=now_ms + TIMEOUT_MS if expires_ms is None else expires_ms,
    )


def test_a_note_of_removed_members_makes_their_groups_send_heartbeats(
    successor: tuple[Member, Reactions],
) -> None:
    _, reactions = successor
    reactions.reader.read(note_of(Membership(GROUP, "gone"), remaining=False).encode())
    reactions.reader.read(b"another record")
    assert reactions.heartbeats == [{GROUP}]


def test_a_successor_removes_the_remaining_members_once_it_has_joined(
    cluster: MemoryCluster, successor: tuple[Member, Reactions]
) -> None:
    dying = Member(cluster)
    dying.partitions()
    (dead,) = dying.kill().memberships
    member, reactions = successor
    reactions.reader.note(note_of(dead, remaining=True))
    assert members(cluster) == {dead.member_id}, "an empty group would keep its first member waiting"
    wait_until(lambda: member.partitions() == {0, 1}, deadline_s=DEADLINE_S, what="the partitions")
    assert members(cluster) == {m.member_id for m in member.memberships}
    wait_until(lambda: reactions.heartbeats, deadline_s=DEADLINE_S, what="heartbeats")


def test_a_worker_of_other_queues_removes_nothing(
    cluster: MemoryCluster, successor: tuple[Member, Reactions]
) -> None:
    dying, member = Member(cluster, "g.other"), successor[0]
    dying.partitions()
    (dead,) = dying.kill().memberships
    successor[1].reader.note(note_of(dead, remaining=True))
    # What comes after it is done; the other group keeps its member.
    mine = Member(cluster)
    mine.partitions()
    (gone,) = mine.kill().memberships
    successor[1].reader.note(note_of(gone, remaining=True))
    wait_until(lambda: member.partitions() == {0, 1}, deadline_s=DEADLINE_S, what="the partitions")
    assert members(cluster, "g.other") == {dead.member_id}


def test_a_sibling_removes_nothing_and_a_successor_of_the_same_command_does(
    cluster: MemoryCluster, successor: tuple[Member, Reactions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.parent_process", lambda: SimpleNamespace(pid=1))
    member, reactions = successor
    dying = Member(cluster)
    dying.partitions()
    (dead,) = dying.kill().memberships
    member.partitions()
    note = replace(note_of(dead, remaining=True), command=command_name(1))
    reactions.reader.note(note)
    reactions.reader.note(replace(note, at_ms=1))  # it began after that
    wait_until(lambda: member.partitions() == {0, 1}, deadline_s=DEADLINE_S, what="the partitions")


def test_an_expired_note_is_ignored(cluster: MemoryCluster, successor: tuple[Member, Reactions]) -> None:
    dying, (member, reactions) = Member(cluster), successor
    dying.partitions()
    (dead,) = dying.kill().memberships
    reactions.reader.note(note_of(dead, remaining=True, expires_ms=1))
    other = Member(cluster)
    other.partitions()
    (gone,) = other.kill().memberships
    reactions.reader.note(note_of(gone, remaining=True))

    def is_removed() -> bool:
        member.partitions()
        return gone.member_id not in members(cluster)

    wait_until(is_removed, deadline_s=DEADLINE_S, what="the removal")
    assert dead.member_id in members(cluster)


def test_the_note_about_a_task_is_read_by_the_workers_of_its_group(
    cluster: MemoryCluster, removal: Removal, caplog: pytest.LogCaptureFixture
) -> None:
    introduction = Introduction("host:1", ["memory:9092"], {}, NOTES, TIMEOUT_MS)
    task = limited(7, 1_500)
    removal.announce(introduction, task)
    reader = KillNoteReader(MemoryClients(cluster), NOTES)
    (note,) = reader.read("g")
    assert (note.worker_id, note.message_id, note.limit_ms) == ("host:1", "message-7", 1_500)
    assert (note.culprit, note.offset, note.crashes) == (TopicPartition("work", 0), 107, 1)
    assert note.partitions == {TopicPartition("work", 0), TopicPartition("work", 1)}
    assert reader.read("another group") == []
    # And without the topic, the reaper kills the worker all the same, and its successor reads nothing
    cluster.delete_topic(NOTES)
    with caplog.at_level(logging.WARNING):
        removal.announce(introduction, task)
    assert "could not be written" in caplog.text
    assert reader.read("g") == []


def test_the_death_note_of_a_killed_worker_names_the_task(cluster: MemoryCluster, removal: Removal) -> None:
    dead = replace(Member(cluster).kill(), culprit=limited(7, 1_500))
    removal.remove([dead])
    (note,) = notes(cluster)
    assert note.culprit == ("the task message-7 of work ran for longer than its hard time limit of 1500 ms")
