"""Runs a command that must not outlive the process that asked for it.

    python tether.py PARENT_PID SIGNAL_NUMBER UID:GID|- COMMAND...

It becomes the command (exec), after asking the kernel to send it the signal when its parent dies, however the
parent dies. Linux only; elsewhere a parent killed with SIGKILL leaves its children. A file of its own and not
a `preexec_fn`, which is unsafe in a process with threads; only the standard library, to start quickly.

It also takes back an inherited "ignore SIGCHLD", with which nobody learns how a child ended: the master of
`dramatiq` asks on and on for the exit code of workers that are gone, and never ends itself.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    parent_pid, signal_number, account, *command = sys.argv[1:]
    if account != "-":
        uid, gid = (int(number) for number in account.split(":"))
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears it.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number)) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != int(parent_pid):
            sys.exit("the parent is gone already")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.execvp(command[0], command)


main()
