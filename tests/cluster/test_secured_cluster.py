"""TLS and SCRAM on a cluster: certificates and a password are changed while workers and a sender go on."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion

from dev.apache_kafka import ApacheKafkaCluster, fetch_apache_kafka
from dev.ports import HOST
from tests.broker.contract.certificates import CertificateAuthority
from tests.chaos.arena import Arena
from tests.cluster.load import Load
from tests.conftest import KAFKA_JARS

pytestmark = pytest.mark.timeout(400)

USER, MECHANISM = "worker", "SCRAM-SHA-512"
PASSWORD, NEW_PASSWORD = "open-sesame", "open-barley"
LISTENER = "SASLTLS"


class SecuredCluster:
    """Three Apache Kafkas that clients reach by SCRAM over TLS."""

    def __init__(self, make_home: Callable[[], Path], home: Path) -> None:
        self._authority = CertificateAuthority(home, "ca")
        self._keystore = home / "keystore.pem"
        self.issue_certificate()
        prefix = f"listener.name.{LISTENER.lower()}"
        self.cluster = ApacheKafkaCluster(
            make_home,
            libs=fetch_apache_kafka(KAFKA_JARS),
            listeners={LISTENER: "SASL_SSL"},
            properties={
                f"{prefix}.sasl.enabled.mechanisms": MECHANISM,
                f"{prefix}.{MECHANISM.lower()}.sasl.jaas.config": "org.apache.kafka.common.security.scram."
                "ScramLoginModule required;",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self._keystore),
            },
        )

    def issue_certificate(self) -> None:
        """Replace the certificate that nodes have after their next start."""
        certificate, key = self._authority.issue("kafka")
        self._keystore.write_bytes(key.read_bytes() + certificate.read_bytes())

    def certificates(self) -> set[str]:
        """What the nodes show to their clients now."""
        addresses = (server.address_of(LISTENER) for server in self.cluster.nodes.values())
        return {ssl.get_server_certificate((HOST, int(each.rpartition(":")[2]))) for each in addresses}

    def set_password(self, password: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.address.split(","))
        try:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(USER, MECHANISM, password, iterations=4096)]
            )
        finally:
            admin.close()

    def options(self, password: str) -> dict[str, Any]:
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": MECHANISM,
            "sasl_plain_username": USER,
            "sasl_plain_password": password,
            "ssl_cafile": str(self._authority.certificate),
        }


@pytest.fixture
def secured(server_home: Callable[[], Path], tmp_path: Path) -> Iterator[SecuredCluster]:
    with ExitStack() as homes:
        secured = SecuredCluster(server_home, tmp_path)
        for server in secured.cluster.nodes.values():
            homes.callback(shutil.rmtree, server.home, ignore_errors=True)
        homes.callback(secured.cluster.kill)
        secured.cluster.start()
        secured.set_password(PASSWORD)
        yield secured


def test_new_certificates_and_a_new_password_fail_no_send_and_lose_nothing(
    secured: SecuredCluster, tmp_path: Path
) -> None:
    address = secured.cluster.address_of(LISTENER)
    settings: dict[str, Any] = {"session_timeout_ms": 10_000, "client_options": secured.options(PASSWORD)}
    with closing(Arena(address, tmp_path, **settings)) as play:
        # Given a worker and a sender
        worker = play.start_worker()
        load = Load(play)
        load.start()
        load.wait_for_more()

        # When the nodes get new certificates of the same authority, then all goes on
        before = secured.certificates()
        secured.issue_certificate()
        for server in secured.cluster.nodes.values():
            server.stop()
            secured.cluster.start()
        load.wait_for_more()
        assert not secured.certificates() & before
        load.settle("new certificates on all nodes")
        assert load.phase.failures == []

        # When the password is changed, then the worker goes on with its connections, and one with the new
        # password takes over from it
        secured.set_password(NEW_PASSWORD)
        changed: dict[str, Any] = {
            "namespace": play.settings["namespace"],
            "session_timeout_ms": 10_000,
            "client_options": secured.options(NEW_PASSWORD),
        }
        with closing(Arena(address, tmp_path, **changed)) as successor:
            load = Load(successor, after=load)
            load.start()
            load.wait_for_more()
            successor.worker()  # its log would be that of the first worker
            successor.start_worker()
            worker.stop()
            load.wait_for_more()
            load.settle("a new password")
            assert load.phase.failures == []
