"""Names the right that a client of Kafka lacks, and the command that grants it."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable, NotAuthorized
from .errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from .unreadable_batches import explained

logger = logging.getLogger(__name__)

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
#: kafka-python's producer wraps the refusal of its id into an error without a type of its own.
_NO_PRODUCER_ID = re.compile(r"InitProducerId.*ClusterAuthorizationFailed", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Right:
    """One right: an operation on a topic, a group or (without a name) the cluster.

    Attributes:
      is_prefix: Whether ``name`` is the beginning of the names of several.
    """

    operation: str
    kind: str
    name: str | None
    is_prefix: bool = False

    def __str__(self) -> str:
        if self.is_prefix:
            return f"{self.operation} on the {self.kind}s {f'{self.name}*'!r}"
        return f"{self.operation} on the {self.kind}{f' {self.name!r}' if self.name else ''}"


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights that a request to Kafka needs.

    Attributes:
      topics: The topics that it concerns, where the error does not name them.
      on_topic: The operations on each of them.
      group: The consumer group that it concerns.
      on_group: The operations on it.
    """

    topics: tuple[str, ...] = ()
    on_topic: str = "READ"
    group: str | None = None
    on_group: str = "READ"


def reading(*topics: str, group: str | None = None) -> Rights:
    return Rights(topics, group=group)


def writing(*topics: str) -> Rights:
    return Rights(topics, on_topic="WRITE")


def is_denial(error: BaseException) -> bool:
    """Whether Kafka has refused a request because a right is missing."""
    return isinstance(error, AuthorizationError | NotAuthorized) or (
        type(error) is KafkaError and _NO_PRODUCER_ID.search(str(error)) is not None
    )


def denied_topics(error: BaseException) -> set[str]:
    """The topics that kafka-python's error names."""
    named = error.args[0] if isinstance(error, TopicAuthorizationFailedError) and error.args else ()
    candidates = [named] if isinstance(named, str) else named if isinstance(named, Iterable) else ()
    return {name for name in candidates if isinstance(name, str) and _TOPIC_NAME.fullmatch(name)}


def translated(
    error: KafkaError, doing: str, rights: Rights | None, options: Mapping[str, Any]
) -> BrokerConnectionError:
    """An error of kafka-python as an error of this broker.

    Parameters:
      doing: The failed operation, as the beginning of a sentence: ``"The topic 'x' could not be read"``.
      rights: The rights that it needs.
      options: The clients' settings, which name the cluster and the user.
    """
    if not is_denial(error):
        return KafkaUnavailable(f"{doing}: {explained(error)}")
    rights = rights or Rights()
    if isinstance(error, GroupAuthorizationFailedError):
        needs = [Right(rights.on_group, "group", _group_of(error) or rights.group)]
    elif isinstance(error, TopicAuthorizationFailedError):
        names = denied_topics(error) or rights.topics
        needs = [Right(rights.on_topic, "topic", name) for name in sorted(names)]
    elif rights.on_topic == "WRITE" and rights.topics:
        # A producer without the right to write anywhere gets no id, which Kafka reports as the cluster's.
        needs = [Right("WRITE", "topic", name) for name in rights.topics]
    elif isinstance(error, ClusterAuthorizationFailedError):
        needs = [Right("DESCRIBE", "cluster", None)]
    else:
        return NotAuthorized(f"{doing}: Kafka does not allow it: {type(error).__name__}.")
    old = " (before Kafka 2.8 also IDEMPOTENT_WRITE on the cluster)" if rights.on_topic == "WRITE" else ""
    return refusal(doing, needs, options, old)


def refusal(doing: str, needs: Sequence[Right], options: Mapping[str, Any], also: str = "") -> NotAuthorized:
    """The error about missing rights, with the command that grants them.

    Parameters:
      doing: See :func:`translated`.
      also: What is to be said about the rights.
    """
    who = options.get("sasl_plain_username")
    return NotAuthorized(
        f"{doing}: Kafka does not allow it{f' to {who!r}' if who else ''}. It takes the right "
        f"{' and '.join(map(str, needs))}{also}, for example: {commands(needs, options)}"
    )


def commands(needs: Iterable[Right], options: Mapping[str, Any]) -> str:
    """The commands that grant exactly ``needs``, as one line of a shell."""
    return " && ".join(command_list(needs, options))


def command_list(needs: Iterable[Right], options: Mapping[str, Any]) -> list[str]:
    """The commands that grant exactly ``needs``: one for each set of operations.

    kafka-acls.sh grants every operation that it is given on every resource.
    """
    operations: dict[tuple[str, str | None, bool], list[str]] = {}
    for need in needs:
        operations.setdefault((need.kind, need.name, need.is_prefix), []).append(need.operation)
    resources: dict[tuple[str, ...], list[str]] = {}
    for (kind, name, is_prefix), wanted in operations.items():
        if is_prefix:
            resource = f"--{kind} " + (
                f"{shlex.quote(name)} --resource-pattern-type prefixed" if name else "'*'"
            )
        else:
            resource = f"--{kind}{f' {shlex.quote(name)}' if name else ''}"
        resources.setdefault(tuple(dict.fromkeys(wanted)), []).append(resource)
    who = options.get("sasl_plain_username") or "<this client>"
    # The name of a user by certificate has spaces: "CN=web, O=Shop".
    principal = shlex.quote(f"User:{who}")
    start = f"kafka-acls.sh --bootstrap-server {','.join(options['bootstrap_servers'])} --add"
    return [
        " ".join(
            [
                start,
                f"--allow-principal {principal}",
                *(f"--operation {name_for_tool(operation)}" for operation in wanted),
                *found,
            ]
        )
        for wanted, found in resources.items()
    ]


def name_for_tool(operation: str) -> str:
    """The name of an operation for kafka-acls.sh, which knows ``DescribeConfigs`` and no underscore."""
    return "".join(word.capitalize() for word in operation.split("_"))


def with_all(
    error: NotAuthorized, doing: str, needs: Iterable[Right], options: Mapping[str, Any]
) -> NotAuthorized:
    """The error about the first missing right, with all rights that ``doing`` needs."""
    return NotAuthorized(f"{error} Everything that {doing} takes: {commands(needs, options)}")


def not_published(doing: str, failure: BaseException) -> BrokerConnectionError:
    """The error to raise for a record that had to be published and was not.

    Parameters:
      failure: The publisher's failure.
    """
    if isinstance(failure, NotAuthorized):
        return NotAuthorized(f"{doing}: {failure}")
    return KafkaUnavailable(f"{doing}: {failure!r}")


def _group_of(error: KafkaError) -> str | None:
    named = error.args[0] if error.args else None
    return named if isinstance(named, str) and _TOPIC_NAME.fullmatch(named) else None


class Denials:
    """Logs once that an activity of a worker lacks a right, and once that it has the right again.

    The activity is repeated, so that it succeeds as soon as the right is granted.
    """

    def __init__(self) -> None:
        self._logged: dict[str, set[str]] = {}

    def note(self, activity: str, error: BaseException) -> None:
        """Log an error that was not logged before.

        Parameters:
          activity: The activity that fails.
        """
        logged = self._logged.setdefault(activity, set())
        if str(error) not in logged:
            logged.add(str(error))
            logger.error("%s. It is tried again until then.", error)
        else:
            logger.debug("%s. It was tried again.", error)

    def is_over(self, activity: str) -> None:
        """Log that it works, if it was denied before."""
        if activity in self._logged:
            del self._logged[activity]
            logger.warning("Kafka allows now what it had denied (%s).", activity)
