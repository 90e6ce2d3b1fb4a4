"""`make demo`: a shop with its web console on this machine, until Ctrl-C.

DEMO_SERVERS names a Kafka; without it one in memory is started.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from dev.console import say
from dev.demo.running import PASSWORD, Demo
from dev.stack import ROOT

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # each raises KeyboardInterrupt
    home = Path(os.environ.get("DEV_DIR", ROOT / ".dev")).resolve() / "demo"
    demo = Demo(home, servers=os.environ.get("DEMO_SERVERS"))
    try:
        say(f"Starting; data and logs are in {home}")
        demo.start()
        say()
        say(f"Web console  {demo.url}")
        say(f"  Log in as admin with the password {PASSWORD}")
        say("Break it, see the dead letters, redrive them:")
        say(f"  touch {demo.mail_is_down}    # no mail can be sent; the overview says so within seconds")
        say(
            f"  rm {demo.mail_is_down}       # the mail server is back: redrive the dead letters of send_mail"
        )
        say(f"  {' '.join(demo.command('enqueue', 'print_label', '[7]'))}    # a task hangs")
        say("Ctrl-C stops everything.")
        while True:
            demo.check()
            time.sleep(0.2)
    except KeyboardInterrupt:
        say()
        return 0
    except (RuntimeError, OSError, TimeoutError) as error:
        print(f"Cannot run: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        demo.stop()


if __name__ == "__main__":
    sys.exit(main())
