"""The verb console: it serves the web console."""

from __future__ import annotations

import getpass
import ipaddress
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..exits import ExitCode
from ..session import Refused, ending

#: The port without --port.
DEFAULT_PORT = 9180
KEY_BYTES = 32


def register(app: typer.Typer) -> None:
    app.command("console")(console)


def console(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 for any.")] = DEFAULT_PORT,
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A TOML file of users, roles and argon2 hashes.")
    ] = None,
    proxy_header: Annotated[
        str | None, typer.Option(metavar="NAME", help="The header in which a proxy names the user.")
    ] = None,
    proxy_address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="An address whose header is believed; may be repeated."),
    ] = None,
    is_read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may change anything.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="The place of the cache, the audit and the session key."),
    ] = None,
    pages: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:VARIABLE", help="Pages of the application, which are added; may be repeated."
        ),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="DKB_CONSOLE_PASSWORD", help="The password without --users; else a random one.",
                     show_envvar=True, hidden=True),
    ] = None,
    is_hashing: Annotated[
        bool, typer.Option("--hash", help="Print the argon2 hash of a typed password, and end.")
    ] = False,
) -> None:  # fmt: skip
    """Serve the web console: pages that show and control the application, until Ctrl-C.

    Without --users it listens on this machine alone, and asks for the password that it prints.

    \b
    Examples:
      dkb shop.tasks console
      dkb shop.tasks console --host 0.0.0.0 --users users.toml
    """
    try:
        from . import running
    except ImportError as e:
        typer.echo(f"dkb: {e.name} is missing: install the extra [console].", err=True)
        raise typer.Exit(ExitCode.USAGE) from e
    with ending(context) as session:
        if is_hashing:
            typed = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
            typer.echo(running.hash_of(typed))
            return
        if users is None and not _is_loopback(host):
            raise Refused(f"Without --users the console listens on this machine alone, not on {host!r}.")
        if proxy_header is not None and (users is None or not proxy_address):
            raise Refused("--proxy-header needs --users, and --proxy-address of the proxy.")
        options = running.Options(
            host=host,
            port=port,
            users_file=users,
            password=password or secrets.token_urlsafe(9),
            is_password_given=password is not None,
            proxy_header=proxy_header,
            proxy_addresses=frozenset(proxy_address or ()),
            is_read_only=is_read_only,
            data=data or _data_directory(session.target.name),
            pages=tuple(pages or ()),
        )
        running.run(session, options)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _data_directory(name: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return Path(base) / "dkb" / (safe.strip(".") or "console")
