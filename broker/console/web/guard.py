"""The one place that decides whether a request is answered. Nothing else looks at roles."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from .users import Access, User

SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What the guard looks at of a request.

    Attributes:
      method: The method.
      right: The right that its route names; None for a route that names none.
      user: The user; None without a session.
      host: The header ``Host``.
      origin: The header ``Origin``; None without one.
      fetch_site: The header ``Sec-Fetch-Site``; None without one.
    """

    method: str
    right: Access | None
    user: User | None
    host: str
    origin: str | None
    fetch_site: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
      status: The status of the response. 401 asks for a log-in.
      reason: One sentence.
    """

    status: int
    reason: str


def refusal(asked: Asked, *, is_read_only: bool) -> Refusal | None:
    """Why the request is refused; None when it is answered.

    Parameters:
      is_read_only: Whether nobody may change anything.
    """
    is_change = asked.method not in SAFE_METHODS
    if is_change and (cross := _cross_site(asked)) is not None:
        return cross
    if asked.right is None:
        return Refusal(403, "This route names no right, so nobody has it.")
    if asked.right is Access.PUBLIC:
        return None
    if asked.user is None:
        return Refusal(401, "Log in first.")
    # A route that changes something needs the right to, whatever it names.
    needed = max(asked.right, Access.OPERATE) if is_change else asked.right
    if is_change and is_read_only:
        return Refusal(403, "This console is read-only.")
    if not asked.user.has(needed):
        return Refusal(403, f"The role {asked.user.role} may not {needed.name.lower()}.")
    return None


def _cross_site(asked: Asked) -> Refusal | None:
    """A form of another site, which a browser sends with the user's cookie."""
    if asked.fetch_site is not None and asked.fetch_site != "same-origin":
        return Refusal(403, "The request comes from another site.")
    if asked.origin is not None:
        return (
            None
            if urlsplit(asked.origin).netloc == asked.host
            else Refusal(403, "The origin of the request is another site.")
        )
    if asked.fetch_site is None:
        return Refusal(403, "The request names no origin: send the header Origin.")
    return None
