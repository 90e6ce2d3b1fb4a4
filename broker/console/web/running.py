"""Puts a console together from the options of the verb, and serves it."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ...process.allocator import return_freed_memory
from ..session import Refused, Session
from . import serving
from .app import Identification, create_app
from .audit import Audit
from .collector import Collector
from .jobs import Jobs
from .looks import Console
from .sections import SectionRefused, section_of
from .sessions import Sessions
from .store import StateCache
from .users import DEFAULT_USER, Users, UsersRefused
from .users import hash_of as hash_of

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the verb; see its help."""

    host: str
    port: int
    users_file: Path | None
    password: str = field(repr=False)
    is_password_given: bool
    proxy_header: str | None
    proxy_addresses: frozenset[str]
    is_read_only: bool
    data: Path
    pages: tuple[str, ...] = ()


def run(session: Session, options: Options) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
      Refused: When the file of users, the pages, the directory or the address cannot be used.
    """
    return_freed_memory()
    broker = session.unasked_broker
    try:
        sections = [section_of(name) for name in options.pages]
        users = _users(options)
        options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        store, audit = StateCache(options.data / "cache.sqlite"), Audit(options.data / "audit.jsonl")
        key = _key(options.data / "session.key")
        listener = serving.listener_of(options.host, options.port)
    except (UsersRefused, SectionRefused) as e:
        raise Refused(str(e)) from e
    except OSError as e:
        raise Refused(f"The console cannot start: {e}") from e
    collector = Collector(broker, store)
    jobs = Jobs(audit, collector.read_soon)
    console = Console(broker, store, collector, audit, session.target.name, jobs, options.is_read_only)
    identification = Identification(users, Sessions(key), options.proxy_header, options.proxy_addresses)
    try:
        serving.serve(
            create_app(console, identification, sections),
            listener,
            console.collector,
            lambda: _tell(listener.getsockname()[:2], options),
        )
    except SectionRefused as e:
        raise Refused(str(e)) from e
    finally:
        jobs.wait()
        store.close()
        audit.close()


def _users(options: Options) -> Users:
    if options.users_file is not None:
        return Users.of_file(options.users_file)
    return Users.of_password(options.password)


def _key(path: Path) -> bytes:
    """The key that signs sessions, which outlives a restart."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != KEY_BYTES:
        key = secrets.token_bytes(KEY_BYTES)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key)
    return key


def _tell(address: tuple[str, int], options: Options) -> None:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    print(f"The console is at http://{shown}:{port}/", file=sys.stderr, flush=True)  # noqa: T201
    if options.users_file is None and not options.is_password_given:
        text = f"Log in as {DEFAULT_USER} with the password {options.password}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201
