"""`python -m dev`: the whole service on this machine, with servers from wheels, until Ctrl-C."""

from __future__ import annotations

import signal
import sys

import httpx

from dev.console import say
from dev.local_servers import CannotRun, LocalServers
from settings import SettingsRefused, get_settings

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the service. Exit codes: 0 stopped by a signal, 1 a process ended by itself or could not start."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # each raises KeyboardInterrupt
    running = None
    try:
        servers = LocalServers.from_settings(get_settings())
        servers.check_ports()
        from dev.running import Running  # after the quick checks: this takes seconds

        running = Running(servers)
        running.start()
        running.show()
        running.watch()
    except KeyboardInterrupt:
        say()
        return 0
    except (CannotRun, SettingsRefused, RuntimeError, OSError, httpx.HTTPError) as error:
        say()
        print(f"Cannot run: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C would leave processes behind
        if running:
            running.stop()
    return 0


sys.exit(main())
