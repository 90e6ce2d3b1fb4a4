"""Consumer groups: members, cooperative assignment and committed offsets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from ...kafka.types import OffsetAndMetadata, TopicPartition


@dataclass(eq=False)
class Member:
    """A member of a group.

    Attributes:
      owned: The partitions that the member has been given and has not given back.
      target: The partitions that it is to have.
      silent_since_s: The time of its last heartbeat, of ``clock.monotonic_s()``; None while it sends them.
    """

    id: str
    topics: tuple[str, ...]
    session_timeout_s: float
    owned: set[TopicPartition] = field(default_factory=set)
    target: set[TopicPartition] = field(default_factory=set)
    silent_since_s: float | None = None


class Group:
    """A group with cooperative rebalances (KIP-429): a partition moves once its owner has given it back.

    Parameters:
      partitions_of: The partitions of a topic.

    Attributes:
      generation: The number of rebalances so far.
    """

    def __init__(self, partitions_of: Callable[[str], Collection[TopicPartition]]) -> None:
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._partitions_of = partitions_of
        self._number = 0
        self.generation = 0

    def join(self, topics: Iterable[str], session_timeout_s: float) -> Member:
        self._number += 1
        member = Member(f"member-{self._number}", tuple(topics), session_timeout_s)
        self.members[member.id] = member
        self.rebalance()
        return member

    def leave(self, member: Member) -> None:
        if self.members.pop(member.id, None) is not None:
            self.rebalance()

    def knows(self, member: Member) -> bool:
        return self.members.get(member.id) is member

    def expire(self, now_s: float) -> None:
        """Remove the members that have been silent for longer than their session timeout."""
        for member in list(self.members.values()):
            since_s = member.silent_since_s
            if since_s is not None and now_s - since_s >= member.session_timeout_s:
                self.leave(member)

    def free_of(self, member: Member) -> set[TopicPartition]:
        """The partitions that a member is to have and no other member owns any more."""
        taken = {p for other in self.members.values() if other is not member for p in other.owned}
        return member.target - member.owned - taken

    def is_stable(self) -> bool:
        return all(member.owned == member.target for member in self.members.values())

    def rebalance(self) -> None:
        """Choose the targets: balanced within each topic, and with as few moves as possible."""
        self.generation += 1
        targets: dict[str, set[TopicPartition]] = {member_id: set() for member_id in self.members}
        by_topic: dict[str, list[Member]] = defaultdict(list)
        for member in self.members.values():
            for topic in member.topics:
                by_topic[topic].append(member)
        for topic, members in sorted(by_topic.items()):
            for member_id, partitions in _balanced(members, sorted(self._partitions_of(topic))).items():
                targets[member_id] |= partitions
        for member in self.members.values():
            member.target = targets[member.id]


def _balanced(members: list[Member], partitions: list[TopicPartition]) -> dict[str, set[TopicPartition]]:
    shares: dict[str, set[TopicPartition]] = {
        member.id: member.target & member.owned & set(partitions) for member in members
    }
    # Before its first rebalance with others a member owns what it was given; a target alone is no claim.
    for member in members:
        others = {p for other_id, share in shares.items() if other_id != member.id for p in share}
        shares[member.id] |= (member.owned & set(partitions)) - others
    assigned = {partition for share in shares.values() for partition in share}
    for partition in partitions:
        if partition not in assigned:
            min(shares.values(), key=len).add(partition)
    while True:
        most = max(shares.values(), key=len)
        least = min(shares.values(), key=len)
        if len(most) - len(least) <= 1:
            return shares
        moved = max(most)
        most.remove(moved)
        least.add(moved)
