"""Memory that is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker.process.allocator import return_freed_memory
from dev.stack import ROOT

#: Prints by how many bytes the process has grown by what it has freed.
SCRIPT = """
import sys, threading
import psutil
from broker.console.web.users import Users
from broker.process.allocator import return_freed_memory

if sys.argv[1] == "returning":
    assert return_freed_memory()
process = psutil.Process()
before = process.memory_info().rss
users = Users.of_password("secret")
for _ in range(3):
    thread = threading.Thread(target=users.verify, args=("admin", "wrong"))
    thread.start()
    thread.join()
print(process.memory_info().rss - before)
"""


def grown_bytes(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not return_freed_memory(), reason="the C library has no mallopt")
def test_the_memory_of_log_ins_is_returned() -> None:
    assert grown_bytes("as by default") > 15_000_000
    assert grown_bytes("returning") < 5_000_000
