"""A look at a page: who looks, at what, and the answer before it is JSON or HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ... import KafkaBroker
from .audit import Audit
from .collector import Collector
from .jobs import Jobs
from .store import StateCache
from .users import Access, User

#: Each number of so many digits has 64 bits at most.
MAX_DIGITS = 18


class NotFound(Exception):
    """There is no such thing. The text is one sentence."""


class Unusable(Exception):
    """The request cannot be carried out as it is. The text is one sentence."""


class Unreachable(Exception):
    """A server that the page needs does not answer. The text is one sentence."""


def number_of(text: str) -> int:
    """The offset, partition or time that a URL or a form has.

    Raises:
      Unusable: When it is no number, or none that Kafka and SQLite can have.
    """
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise Unusable(f"{text[:40]!r} is no number of at most {MAX_DIGITS} digits.")
    return int(text)


@dataclass(frozen=True, slots=True)
class Console:
    """The parts of a running console.

    Attributes:
      title: The name of the namespace or application, for the head of each page.
      is_read_only: Whether nobody may change anything.
    """

    broker: KafkaBroker
    store: StateCache
    collector: Collector
    audit: Audit
    title: str
    jobs: Jobs
    is_read_only: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """One request, which the guard has let through.

    Attributes:
      path: The parts of the path that name something.
      query: The parameters of the URL and of the form, each with its values.
    """

    console: Console
    user: User
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        """The first value of a parameter; None when it is missing or empty."""
        return next((value.strip() for value in self.query.get(name, ()) if value.strip()), None)

    def all(self, name: str) -> list[str]:
        return [value for value in self.query.get(name, ()) if value]

    def url(self, path: str, **query: str) -> str:
        """A URL of this console."""
        return f"{path}?{urlencode(query)}"

    def is_set(self, name: str) -> bool:
        return self.get(name) is not None


@dataclass(frozen=True, slots=True)
class View:
    """An answer: the document that JSON has, and the template that shows it.

    Attributes:
      section: The entry of the navigation.
    """

    template: str
    section: str
    title: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer to a change: the page to see next."""

    to: str
    document: dict[str, Any] = field(default_factory=dict)


Handler = Callable[[Look], View | Redirect]


@dataclass(frozen=True, slots=True)
class Route:
    """A route.

    Attributes:
      right: The right that it needs.
      summary: One sentence, for the description of the interface.
      is_kept: Whether its page depends on the URL, the user, the named documents of the store and the last
        round alone, and on nothing that the audit notes.
    """

    method: str
    path: str
    right: Access
    handler: Handler
    summary: str
    is_kept: bool = False
