"""A worker process without a consumer: it forwards due messages until it is killed.

python -m bench.delays.worker BOOTSTRAP_SERVERS NAMESPACE INDEX_DIR
"""

from __future__ import annotations

import signal
import sys

from broker import KafkaBroker


def main() -> None:
    bootstrap_servers, namespace, index_dir = sys.argv[1:]
    broker = KafkaBroker(bootstrap_servers, namespace=namespace, delay_index_dir=index_dir)
    forwarder = broker.parts.delays.forwarder(broker.parts.settings.client_settings)
    forwarder.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    forwarder.stop()
    broker.close()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
