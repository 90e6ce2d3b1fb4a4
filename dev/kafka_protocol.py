"""Requests to a Kafka cluster for the development commands."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

ANSWER_TIMEOUT_MS = 3_000


def admin(bootstrap_servers: str) -> KafkaAdminClient:
    return KafkaAdminClient(
        bootstrap_servers=bootstrap_servers.split(","),
        bootstrap_timeout_ms=ANSWER_TIMEOUT_MS,
        request_timeout_ms=ANSWER_TIMEOUT_MS,
        client_id="dev",
    )


def cluster_answers(bootstrap_servers: str) -> bool:
    """Return whether the cluster lists its topics."""
    try:
        client = admin(bootstrap_servers)
    except KafkaError:
        return False
    try:
        client.list_topics()
    except KafkaError:
        return False
    finally:
        client.close()
    return True


def brokers_of(bootstrap_servers: str) -> set[str]:
    """Return the addresses, ``host:port``, of the cluster's brokers; none when this server is unreachable."""
    try:
        client = admin(bootstrap_servers)
    except KafkaError:
        return set()
    try:
        return {f"{broker['host']}:{broker['port']}" for broker in client.describe_cluster()["brokers"]}
    except KafkaError:
        return set()
    finally:
        client.close()


def delete_topics_of(bootstrap_servers: str, prefix: str) -> None:
    """Delete every topic whose name starts with `prefix`."""
    client = admin(bootstrap_servers)
    try:
        if topics := [name for name in client.list_topics() if name.startswith(prefix)]:
            client.delete_topics(topics)
    finally:
        client.close()
