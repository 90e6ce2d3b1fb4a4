"""The users of the console, their roles and rights, and how they are recognised."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

#: 19 MiB and two passes: the first choice of OWASP that does not spend the console's memory on log-ins.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
#: The user without a configuration.
DEFAULT_USER = "admin"


class Access(IntEnum):
    """What a route needs. A role has the rights up to its own.

    PUBLIC: nothing; a log-in page and its style.
    VIEW: to look.
    OPERATE: to change what can be changed back or repeated: pauses, redrives, quiet workers.
    ADMINISTER: to change what cannot: discards, stopped workers.
    """

    PUBLIC = 0
    VIEW = 1
    OPERATE = 2
    ADMINISTER = 3


class UserRole(StrEnum):
    """The role of a user."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def right(self) -> Access:
        """The highest right of the role."""
        return {
            UserRole.VIEWER: Access.VIEW,
            UserRole.OPERATOR: Access.OPERATE,
            UserRole.ADMIN: Access.ADMINISTER,
        }[self]


class UsersRefused(Exception):
    """The file of users cannot be used. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    Attributes:
      password_hash: The argon2 hash; None for a user whom only a proxy can name.
      may_see_arguments: Whether the user may see the arguments of messages.
    """

    name: str
    role: UserRole
    password_hash: str | None = field(default=None, repr=False)
    may_see_arguments: bool = False

    def has(self, right: Access) -> bool:
        return self.role.right >= right


class Users:
    """The known users.

    Parameters:
      users: By name.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = dict(users)
        # Verified for an unknown name, which then takes as long as a known one.
        self._decoy = _HASHER.hash("nobody")

    @classmethod
    def of_password(cls, password: str) -> Users:
        """One administrator with that password, who may see everything."""
        admin = User(DEFAULT_USER, UserRole.ADMIN, _HASHER.hash(password), may_see_arguments=True)
        return cls({admin.name: admin})

    @classmethod
    def of_file(cls, path: Path) -> Users:
        """Read a file of users.

        Raises:
          UsersRefused: When it cannot be read, or a user of it is not valid.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise UsersRefused(f"The file of users {str(path)!r} cannot be read: {e}") from e
        entries = content.get("users")
        if not isinstance(entries, dict) or not entries or len(content) > 1:
            raise UsersRefused(
                f"The file of users {str(path)!r} needs tables [users.NAME], and nothing else."
            )
        return cls({name: _user_of(name, entry, path) for name, entry in entries.items()})

    def get(self, name: str) -> User | None:
        return self._users.get(name)

    def verify(self, name: str, password: str) -> User | None:
        """The user of that name and password, or None. Takes some 30 ms of processor time and 19 MiB."""
        user = self._users.get(name)
        known = None if user is None else user.password_hash
        try:
            is_right = _HASHER.verify(known or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return None
        return user if is_right and known is not None else None


def _user_of(name: str, entry: Any, path: Path) -> User:
    where = f"The user {name!r} of {str(path)!r}"
    if not isinstance(entry, dict) or (unknown := set(entry) - {"role", "password", "arguments"}):
        raise UsersRefused(f"{where} has other keys than role, password and arguments: {sorted(unknown)}")
    roles = [str(role) for role in UserRole]
    if entry.get("role") not in roles:
        raise UsersRefused(f"{where} has no role of {', '.join(roles)}.")
    password, arguments = entry.get("password"), entry.get("arguments", False)
    if password is not None and not (isinstance(password, str) and password.startswith("$argon2")):
        raise UsersRefused(f"{where} has a password that is no argon2 hash: make one with console --hash.")
    if not isinstance(arguments, bool):
        raise UsersRefused(f"{where}: arguments is true or false.")
    return User(name, UserRole(entry["role"]), password, arguments)


def hash_of(password: str) -> str:
    """The argon2 hash for a file of users."""
    return _HASHER.hash(password)
