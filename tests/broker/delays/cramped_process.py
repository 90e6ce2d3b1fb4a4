"""A forwarder in a process that may write only small files, until SIGUSR1 says that there is room.

python -m tests.broker.delays.cramped_process BOOTSTRAP NAMESPACE INDEX_DIR MAX_FILE_BYTES
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
import time
from pathlib import Path

from tests.broker.delays.station import SESSION_TIMEOUT_MS, Station


def main() -> None:
    bootstrap, namespace, index_dir, max_file_bytes = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("broker.delays.owned_partitions").setLevel(logging.DEBUG)  # tells of each opening
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_file_bytes), hard))
    Station(bootstrap, namespace, Path(index_dir)).start(SESSION_TIMEOUT_MS)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
