"""Serves the API: ``python main.py``. Environment variables configure it, see ``.env.example``."""

import errno
import socket
import sys

from settings import Settings, SettingsRefused, get_settings

#: Connections that the kernel keeps until they are accepted.
BACKLOG = 1024


def main() -> str | None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered first.

    Returns:
      An error in a sentence; None after an orderly stop.
    """
    try:
        settings = get_settings()
        listener = listen(settings)
    except (SettingsRefused, CannotListen) as error:
        return str(error)
    from api.serving import serve, serve_in_processes  # after the quick checks: this takes a second

    if settings.api_workers == 1:
        serve(listener)
        return None
    return serve_in_processes(listener, settings.api_workers)


class CannotListen(Exception):
    """The address cannot be bound; the text names the variable to change."""


def listen(settings: Settings) -> socket.socket:
    """Bind the API's address.

    Raises:
      CannotListen: The text names the address, the reason and the variable to change.
    """
    host, port = settings.api_host, settings.api_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"Port {port} on {host} is in use: set API_PORT to a free one") from error
        reason = f"Cannot listen on {host}:{port}: {error.strerror}"
        raise CannotListen(f"{reason}; set API_HOST and API_PORT to an address of this machine") from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
