"""Lets everything that a broker holds survive a fork: gunicorn and uWSGI import an application, and may send
in it, before they fork.

Only the thread that forks goes on in the child. Locks that other threads held stay taken there for ever, and
the work of those threads stands still. The connections are the parent's: one byte sent on them, one shutdown,
or one change to the set of files that their selector watches would break them for the parent. So a part that
holds any of this registers itself, and in the child it lets go of all of it and begins anew.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """What has to begin anew in the child of a fork."""

    def reset_after_fork(self) -> None:
        """Replace locks, and drop threads and connections without using them. Called in the child."""


_parts: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_beginning = threading.Lock()
_pid = os.getpid()


def reset_on_fork(part: ForkAware) -> None:
    """Have ``part.reset_after_fork()`` called in the child of each fork, for as long as there is ``part``."""
    _parts.add(part)


def check_for_fork() -> None:
    """Notice a fork that Python was not told of: uWSGI calls none of its hooks unless it is given
    ``py-call-osafterfork``. It costs next to nothing.
    """
    if os.getpid() != _pid:
        _reset_parts()


def leave_to_parent(thing: object) -> None:
    """Let go of what is the parent's without ending it: its finaliser would close the parent's connection, or
    write into the parent's file. It stays in the child's memory until the child ends.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _reset_parts() -> None:
    global _pid
    with _beginning:
        if os.getpid() != _pid:
            for part in list(_parts):
                part.reset_after_fork()
            _pid = os.getpid()


def _in_child() -> None:
    global _beginning
    _beginning = threading.Lock()
    _reset_parts()


if hasattr(os, "register_at_fork"):  # a system that has no fork has no need of it
    os.register_at_fork(after_in_child=_in_child)
