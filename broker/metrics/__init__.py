"""The Prometheus exporter of a namespace: ``dkb metrics``. It needs the package ``prometheus-client``.

One process serves the metrics of all workers and queues. It reads their reports and commits from Kafka, so no
worker opens a port, and no directory is shared between processes. It uses the public names of the broker
only.
"""
