"""Serves the API: ``python main.py``. Everything is set by environment variables, see ``.env.example``."""

import errno
import logging
import socket
import sys

from settings import Settings, SettingsRefused, get_settings

logger = logging.getLogger("main")

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
#: Connections that the kernel keeps until they are accepted.
BACKLOG = 1024


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered first. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = get_settings()
        listener = listen(settings)
    except (SettingsRefused, CannotListen) as error:
        logger.critical("%s", error)
        return EXIT_CONFIG
    serve(listener, settings.api_workers)
    return 0


class CannotListen(Exception):
    """The address cannot be had; the text says which variable to change."""


def listen(settings: Settings) -> socket.socket:
    """Bind the API's address.

    Raises:
      CannotListen: naming the address, why, and what to change.
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
        raise CannotListen(
            f"Cannot listen on {host}:{port}: {error.strerror}. Set API_HOST, API_PORT"
        ) from error
    return listener


def serve(listener: socket.socket, workers: int) -> None:
    """Run the application on the listener, in this process or in several."""
    from sanic import Sanic  # after the quick checks: this takes a second
    from sanic.worker.loader import AppLoader

    from api import create_app

    app = create_app()
    host, port = listener.getsockname()[:2]
    logger.info("Serving on http://%s:%d, described at http://%s:%d/docs", host, port, host, port)
    if workers == 1:
        app.run(sock=listener, single_process=True, motd=False, access_log=False)
    else:
        app.prepare(sock=listener, workers=workers, motd=False, access_log=False)
        Sanic.serve(primary=app, app_loader=AppLoader(factory=create_app))


if __name__ == "__main__":
    sys.exit(main())
