"""Which settings of a topic are taken for a loss of messages, and which for a doubt."""

from __future__ import annotations

import pytest

from broker.kafka.topic_layout import DEAD_LETTER_RETENTION_MS
from broker.kafka.topic_policies import MAX_DEAD_LETTER_BYTES, MAX_DELAYED_BYTES, Role, findings, limit_for

FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}
WEEK = {"retention.ms": "604800000", "retention.bytes": "-1"}
MIB = {"shop-mail": 1_048_588}


@pytest.mark.parametrize("role", [Role.QUEUE, Role.DEAD_LETTERS])
@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete, compact"])
def test_a_topic_of_single_messages_may_not_be_compacted(role: Role, policy: str) -> None:
    (found,) = findings(role, {"cleanup.policy": policy, **WEEK}, MIB)
    assert (found.setting, found.value, found.remedy) == ("cleanup.policy", policy, "delete")
    assert found.certain


@pytest.mark.parametrize("role", [Role.DELAYED, Role.LANES])
@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_topic_of_waiting_messages_may_not_delete(role: Role, policy: str) -> None:
    (found,) = findings(role, {"cleanup.policy": policy, **WEEK}, MIB)
    assert (found.setting, found.value, found.remedy) == ("cleanup.policy", policy, "compact")
    assert found.certain
    assert findings(role, {"cleanup.policy": policy, **FOR_EVER}, MIB) == []


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        (Role.QUEUE, {"cleanup.policy": "delete", **WEEK, "max.message.bytes": "100"}),
        (Role.QUEUE, {"cleanup.policy": "", **FOR_EVER}),
        (Role.DEAD_LETTERS, {"cleanup.policy": "delete", **WEEK}),
        (Role.DELAYED, {"cleanup.policy": "compact", "retention.ms": "1"}),
        (Role.LANES, {"cleanup.policy": "compact", "max.message.bytes": "1048588"}),
        (Role.DELAYED, {}),
        (Role.QUEUE, {}),
    ],
)
def test_a_topic_that_keeps_messages_and_one_that_may_not_be_looked_at_are_let_alone(
    role: Role, settings: dict[str, str]
) -> None:
    assert findings(role, settings, MIB) == []


@pytest.mark.parametrize("role", [Role.DEAD_LETTERS, Role.DELAYED, Role.LANES])
def test_a_topic_may_not_take_less_than_the_largest_queue_whose_messages_come_there(role: Role) -> None:
    queues = {"shop-small": 10_000, "shop-mail": 1_048_588}
    (found,) = findings(role, {"max.message.bytes": "1048587"}, queues)
    assert (found.setting, found.value) == ("max.message.bytes", "1048587")
    assert found.certain
    assert "'shop-mail'" in found.effect
    assert findings(role, {"max.message.bytes": found.remedy}, queues) == []
    assert findings(role, {"max.message.bytes": "20000"}, {"shop-small": 10_000}) == []
    assert findings(role, {"max.message.bytes": "1"}, {}) == []


@pytest.mark.parametrize(
    ("role", "limit"),
    [
        (Role.DEAD_LETTERS, MAX_DEAD_LETTER_BYTES),
        (Role.DELAYED, MAX_DELAYED_BYTES),
        (Role.LANES, MAX_DELAYED_BYTES),
    ],
)
def test_a_limit_that_this_broker_has_given_a_topic_is_no_more_than_doubted(role: Role, limit: int) -> None:
    (found,) = findings(role, {"max.message.bytes": str(limit)}, {"shop-mail": 10_000_000})
    assert not found.certain
    assert int(found.remedy) == limit_for(role, 10_000_000) > 10_000_000


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"retention.ms": "1000", "retention.bytes": "-1"}, "retention.ms"),
        ({"retention.bytes": "1"}, "retention.bytes"),
    ],
)
@pytest.mark.parametrize("role", [Role.QUEUE, Role.DEAD_LETTERS])
def test_what_may_lose_messages_is_doubted(role: Role, settings: dict[str, str], setting: str) -> None:
    (found,) = findings(role, settings, MIB)
    assert found.setting == setting
    assert not found.certain


def test_dead_letters_that_are_kept_for_less_than_three_days_are_doubted() -> None:
    for days, count in ((0.5, 1), (2.9, 1), (3, 0), (7, 0)):
        settings = {"retention.ms": str(int(days * 86_400_000)), "retention.bytes": "-1"}
        found = findings(Role.DEAD_LETTERS, settings, MIB, DEAD_LETTER_RETENTION_MS)
        assert len(found) == count, days
        assert findings(Role.QUEUE, settings, MIB) == []
        for one in found:
            assert (one.setting, one.remedy, one.certain) == ("retention.ms", "2592000000", False)
            assert "deletes a dead letter, whether anybody has seen it or not" in one.effect


@pytest.mark.parametrize(("own_ms", "remedy"), [(86_400_000, "86400000"), (-1, "-1"), (1_000, "604800000")])
def test_the_remedy_for_a_short_retention_is_the_brokers_own_unless_that_is_short(
    own_ms: int, remedy: str
) -> None:
    (found,) = findings(Role.QUEUE, {"retention.ms": "1000"}, MIB, own_ms)
    assert found.remedy == remedy


def test_a_dead_letter_topic_that_takes_no_more_than_its_queue_is_doubted() -> None:
    (found,) = findings(Role.DEAD_LETTERS, {"max.message.bytes": "1048588"}, MIB)
    assert found.setting == "max.message.bytes"
    assert not found.certain
