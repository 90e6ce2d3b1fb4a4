"""Runs a command that dies with the process that asked for it.

    python die_with_parent.py PARENT_PID SIGNAL_NUMBER UID:GID|- COMMAND...

This process becomes the command (exec). Before that, it asks the kernel to send it the signal when its parent
dies. That works on Linux only: elsewhere, the children of a parent killed with SIGKILL continue. It is a
program and not a `preexec_fn`, which is unsafe in a process with threads, and uses only the standard library
to start quickly.

It also resets an inherited "ignore SIGCHLD", which hides the exit codes of children: the master process of
`dramatiq` would ask for the exit codes of its dead workers for ever.
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
