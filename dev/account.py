"""The account of PostgreSQL, which refuses to run as root."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED_NAMES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    def can_reach(self, path: Path) -> bool:
        """Return whether the permission bits of `path` and its parents let this account enter."""
        path = path.resolve()
        return all(self._may_enter(directory) for directory in (path, *path.parents))

    def _may_enter(self, directory: Path) -> bool:
        status = directory.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def own(self, directory: Path) -> None:
        """Give `directory` to this account, and close it to others."""
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, self.uid, self.gid)
        directory.chmod(0o700)


def unprivileged_account() -> Account | None:
    """Return the account for PostgreSQL; None when this process does not run as root."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor a user "
        "`nobody`: run this as an ordinary user"
    )


def reachable(directory: Path, account: Account | None, *, fallback: Path) -> Path:
    """Return `directory`, which is created if missing, or `fallback` if `account` cannot enter it.

    Other accounts cannot enter root's home or a directory of mktemp, and this program does not change that.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if account is None or account.can_reach(directory):
        return directory
    fallback.mkdir(mode=0o755, parents=True, exist_ok=True)
    if fallback.is_symlink() or fallback.stat().st_uid != os.geteuid():
        raise RuntimeError(
            f"{fallback} belongs to somebody else: remove it or set DEV_DIR to another directory"
        )
    return fallback
