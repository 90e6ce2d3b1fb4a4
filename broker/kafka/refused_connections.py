"""The reasons for which Kafka refuses a client: a wrong password, a certificate, a wrong
``security_protocol``.

kafka-python 3.0.12 repeats the attempt until its timeout, and then reports only the timeout
(``_do_bootstrap`` in kafka/net/manager.py:117-168).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from . import internals
from .errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

#: The advice for the caller of a refused client.
ADVICE = "Correct the security settings in client_options (or in the URL), then enqueue again"

_AUTHENTICATION = (
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
    IllegalSaslStateError,
)
#: The text of kafka-python's KafkaConnectionError after a handshake (kafka/net/manager.py:223), and when the
#: other side has closed the connection (kafka/net/transport.py:117 and :437).
_HANDSHAKE = "Handshake failed: "
_CLOSED = "socket disconnected"


class LastFailure:
    """The last failure of one client's connections that concerns the client itself.

    Attributes:
      error: The last refusal, or else the last connection that was closed without an answer; None without
        either.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def note(self, error: BaseException) -> None:
        """Note how a connection failed. A refusal is kept when a later connection fails without an answer."""
        if is_refusal(error) or (_is_closed(error) and not self.is_refusal):
            self.error = error

    @property
    def is_refusal(self) -> bool:
        return self.error is not None and is_refusal(self.error)


def is_refusal(error: BaseException) -> bool:
    """Whether a connection failed because of the client's identity, its credentials or TLS."""
    return isinstance(error, _AUTHENTICATION) or _tls_failure(error) is not None


def refusal_text(error: BaseException, options: Mapping[str, Any]) -> str:
    """The refused credential or protocol, as the end of a sentence. It contains no password.

    Parameters:
      options: The clients' settings.
    """
    protocol = options.get("security_protocol") or "PLAINTEXT"
    if (failure := _tls_failure(error)) is not None:
        return f"the TLS connection could not be made (security_protocol={protocol}): {failure}"
    if isinstance(error, _AUTHENTICATION):
        user, mechanism = options.get("sasl_plain_username"), options.get("sasl_mechanism")
        who = f" as {user!r}" if user else ""
        return f"the authentication failed{who} (sasl_mechanism={mechanism}): {_text(error)}"
    return (
        "the connection was closed without an answer, as happens with another security_protocol than the "
        f"listener's (it is {protocol})"
    )


def keep_last_words(transport: Any) -> None:
    """Let a connection read the last answer before the other side closed it.

    Kafka answers with the reason of a refusal and closes the connection. kafka-python's transport drops an
    answer that it reads together with the end (``_read_from_sock`` and ``_sock_recv`` in
    kafka/net/transport.py:90-127 of 3.0.12, :428-449 for TLS), and reports the end alone. An end can be read
    any number of times.
    """

    def reading_all(receive: internals.Receive) -> internals.Receive:
        def receive_all() -> tuple[bytes, BaseException | None]:
            data, error = receive()
            return (data, None) if data and error is not None and _is_closed(error) else (data, error)

        return receive_all

    internals.wrap_receive(transport, reading_all)


def _is_closed(error: BaseException) -> bool:
    return isinstance(error, KafkaConnectionError) and _CLOSED in str(error)


def _tls_failure(error: BaseException) -> str | None:
    if not isinstance(error, KafkaConnectionError):
        return None
    inner = error.args[0] if error.args else None
    if isinstance(inner, ssl.SSLError):  # from a later read: kafka/net/transport.py:447
        return str(inner)
    text = str(inner)
    return text.removeprefix(_HANDSHAKE) if text.startswith(_HANDSHAKE) else None


def _text(error: BaseException) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
