"""A Kafka that asks who is there: SASL/PLAIN, SCRAM, and TLS with client certificates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion

from broker import EnqueueFailed, KafkaBroker, KafkaUnavailable
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.ports import free_port
from dev.stack import ROOT
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.certificates import CertificateAuthority
from tests.broker.contract.conftest import StartWorker

pytestmark = pytest.mark.real_kafka(reason="ask for passwords or certificates")

JOIN_TIMEOUT_MS = 60_000
KAFKA_JARS = Path(os.environ.get("DEV_DIR", ROOT / ".dev"))
PASSWORD = "open-sesame"


class SecuredKafka:
    """One Apache Kafka with a listener for each way of saying who one is, and clients' options for it."""

    def __init__(self, server: ApacheKafkaServer, ca: CertificateAuthority) -> None:
        certificate, key = ca.issue("worker")
        password = {"sasl_plain_username": "worker", "sasl_plain_password": PASSWORD}
        tls = {"ssl_cafile": str(ca.certificate)}
        self.server = server
        self.options: dict[str, tuple[str, dict[str, Any]]] = {
            "SASL/PLAIN": (
                "SASL",
                {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **password},
            ),
            "SCRAM over TLS": (
                "SASLTLS",
                {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", **password, **tls},
            ),
            "a client certificate": (
                "TLS",
                {
                    "security_protocol": "SSL",
                    "ssl_certfile": str(certificate),
                    "ssl_keyfile": str(key),
                    **tls,
                },
            ),
        }

    def settings(self, way: str, **instead: Any) -> dict[str, Any]:
        """A broker's parameters for one way in, with some clients' options changed (None: left out)."""
        listener, options = self.options[way]
        changed = {name: value for name, value in (options | instead).items() if value is not None}
        return {"bootstrap_servers": self.server.address_of(listener), "client_options": changed}


WAYS = ("SASL/PLAIN", "SCRAM over TLS", "a client certificate")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def kafka(server_home: Callable[[], Path], certificates: CertificateAuthority) -> Iterator[SecuredKafka]:
    certificate, key = certificates.issue("kafka")
    keystore = certificate.with_name("kafka.pem")
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    jaas = "org.apache.kafka.common.security"
    server = ApacheKafkaServer(
        server_home(),
        libs=fetch_apache_kafka(KAFKA_JARS),
        port=free_port(),
        listeners={"SASL": "SASL_PLAINTEXT", "SASLTLS": "SASL_SSL", "TLS": "SSL"},
        properties={
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": f"{jaas}.plain.PlainLoginModule required "
            f'user_worker="{PASSWORD}";',
            "listener.name.sasltls.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasltls.scram-sha-512.sasl.jaas.config": f"{jaas}.scram.ScramLoginModule "
            "required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.certificate),
            "listener.name.tls.ssl.client.auth": "required",
        },
    )
    try:
        server.start()
        admin = KafkaAdminClient(bootstrap_servers=server.address)
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion("worker", "SCRAM-SHA-512", PASSWORD, iterations=4096)]
        )
        admin.close()
        yield SecuredKafka(server, certificates)
    finally:
        server.kill()


@pytest.mark.parametrize("way", WAYS)
def test_everything_works_for_who_is_let_in(
    server_backend: KafkaBackend, kafka: SecuredKafka, start_worker: StartWorker, way: str
) -> None:
    broker = server_backend.broker(**kafka.settings(way))
    seen: list[str] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task(name: str) -> None:
        if name == "fail":
            raise RuntimeError("asked to")
        seen.append(name)

    start_worker(broker)
    task.send("now")
    task.send_with_options(args=("later",), delay=100)
    failed = task.send("fail")
    broker.ping(JOIN_TIMEOUT_MS / 1000)  # a loaded machine takes its time for the handshakes
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(seen) == ["later", "now"]
    assert [
        dead_letter.message for dead_letter in broker.dead_letters("default", message_id=failed.message_id)
    ]
    broker.close()


@pytest.mark.parametrize(
    ("way", "wrong", "reason"),
    [
        ("SASL/PLAIN", {"sasl_plain_password": "wrong"}, r"authentication failed as 'worker' .*PLAIN\): "),
        (
            "SCRAM over TLS",
            {"sasl_plain_password": "wrong"},
            r"authentication failed as 'worker' .*SCRAM-SHA-512\): ",
        ),
        (
            "SASL/PLAIN",
            {"sasl_mechanism": "SCRAM-SHA-512"},
            r"authentication failed .*UnsupportedSaslMechanism",
        ),
        ("SCRAM over TLS", {"ssl_cafile": "another CA's"}, r"TLS connection .*CERTIFICATE_VERIFY_FAILED"),
        (
            "a client certificate",
            {"ssl_certfile": None, "ssl_keyfile": None},
            r"TLS connection .*certificate",
        ),
        ("SASL/PLAIN", {"security_protocol": "SASL_SSL"}, r"TLS connection .*security_protocol=SASL_SSL"),
        ("SASL/PLAIN", {"security_protocol": "PLAINTEXT"}, r"another security_protocol .*it is PLAINTEXT"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_who_is_not_let_in_is_told_why_and_does_not_wait_for_ever(
    kafka: SecuredKafka, tmp_path: Path, way: str, wrong: dict[str, Any], reason: str
) -> None:
    if "ssl_cafile" in wrong:
        wrong = {"ssl_cafile": str(CertificateAuthority(tmp_path, "other").certificate)}
    settings = kafka.settings(way, **wrong, bootstrap_timeout_ms=2_000)
    broker = KafkaBroker(**settings, enqueue_timeout_ms=2_000)
    with pytest.raises(KafkaUnavailable, match=reason):
        broker.ping(2.0)
    with pytest.raises(EnqueueFailed, match=reason) as refused:
        broker.enqueue(Message("default", "task", (), {}, {}))
    if wrong != {"security_protocol": "PLAINTEXT"}:  # that may also be a Kafka that has just ended
        assert "check that Kafka is reachable" not in str(refused.value)
        assert "Correct the security settings" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    broker.close()
