"""The parameters of a broker as a URL: ``kafka://user:password@host:9092,host2:9092/namespace?group_id=shop``.

Frameworks configure a broker with a URL (flask-dramatiq, django_dramatiq, a twelve-factor environment). Any
character may be percent-encoded; ``@ / ? # , % & : =`` must be where they are part of a name or a password. A
``+`` is a plus sign.

No error text repeats a value that can contain a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec
from urllib.parse import unquote

from .kafka.clients import RESERVED_OPTIONS, default_options

P = ParamSpec("P")

SCHEME = "kafka"
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:(?P<port>[0-9]{1,5}))?")
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_SWITCH = {"true": True, "1": True, "false": False, "0": False}

#: The parameters of KafkaBroker that the query may set, each with its type.
PARAMETERS: Mapping[str, type] = {
    "group_id": str,
    "namespace": str,
    "partitions": int,
    "replication_factor": int,
    "retention_ms": int,
    "commit_interval_ms": int,
    "enqueue_timeout_ms": int,
    "session_timeout_ms": int,
    "max_crashes": int,
    "delay_index_dir": str,
    "fail_fast_default": bool,
    "reports": bool,
    "history_per_s": int,
    "app_version": str,
}
#: Settings of kafka-python whose default, None, does not show their type.
_TEXTS = frozenset(
    {
        "compression_type", "group_instance_id", "proxy_url", "sasl_kerberos_domain_name",
        "sasl_kerberos_name", "sasl_mechanism", "sasl_plain_password", "sasl_plain_username", "socks5_proxy",
        "ssl_cafile", "ssl_certfile", "ssl_ciphers", "ssl_crlfile", "ssl_keyfile", "ssl_password",
    }
)  # fmt: skip
_NUMBERS = frozenset({"receive_buffer_bytes", "send_buffer_bytes"})
_SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def reads_url(make: Callable[P, None]) -> Callable[P, None]:
    """Let ``__init__`` take its other parameters from ``url=``, and refuse one that is given twice.

    A URL in the place of ``bootstrap_servers`` is refused: it would be taken for a server's name.
    """

    @wraps(make)
    def init(*args: P.args, **kwargs: P.kwargs) -> None:
        _refuse_url(args[1] if len(args) > 1 else kwargs.get("bootstrap_servers"))
        url = kwargs.get("url")
        if url is not None:
            options = kwargs.pop("client_options", None) or {}
            given = {"bootstrap_servers"} if len(args) > 1 else set()  # the first is the broker itself
            kwargs.update(_merged(read_url(url), given.union(kwargs), options))
        make(*args, **kwargs)

    return init


def _refuse_url(servers: object) -> None:
    for server in [servers] if isinstance(servers, str) else servers if isinstance(servers, list) else []:
        if isinstance(server, str) and "://" in server:
            raise ValueError("bootstrap_servers is a URL: pass it as url=, KafkaBroker(url='kafka://...')")


def _merged(parameters: dict[str, Any], given: set[str], options: Any) -> dict[str, Any]:
    if twice := sorted(given & parameters.keys() | options.keys() & parameters["client_options"].keys()):
        raise ValueError(f"the url= and a parameter both set {', '.join(twice)}: keep one of the two")
    parameters["client_options"] = {**options, **parameters["client_options"]}
    return parameters


def read_url(url: object) -> dict[str, Any]:
    """The parameters of a KafkaBroker in ``url``.

    Raises:
      TypeError: When ``url`` is not a text.
      ValueError: When ``url`` is invalid. The error names the fault and repeats no value.
    """
    if not isinstance(url, str):
        raise TypeError(f"url= is a {type(url).__name__}, not a text such as 'kafka://host:9092/namespace'")
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.lower() != SCHEME:
        raise _error("it does not begin with kafka://. For TLS, set security_protocol=SSL in the query")
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    login, at, servers = authority.rpartition("@")
    if "#" in rest or (not at and "@" in rest):
        raise _error("@ / ? # in a name or a password must be written %40 %2F %3F %23")
    parameters: dict[str, Any] = {"bootstrap_servers": _servers(servers), "client_options": {}}
    if path:
        parameters["namespace"] = _decoded(path, "namespace")
    for name, value in _pairs(query):
        into = parameters if name in PARAMETERS else parameters["client_options"]
        if name in into:
            raise _error(f"it sets {name} twice")
        into[name] = _converted(name, value)
    if at:
        _log_in(login, parameters["client_options"])
    if parameters["client_options"].get("security_protocol", "SSL") not in _SECURITY_PROTOCOLS:
        raise _error(f"security_protocol is none of {', '.join(_SECURITY_PROTOCOLS)}")
    return parameters


def _servers(text: str) -> list[str]:
    servers = [server.strip() for server in text.split(",")]
    for number, server in enumerate(servers, start=1):
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found["port"] or 9092) < 65536:
            raise _error(f"server {number} of {len(servers)} is not host:port, [IPv6 address]:port or a host")
    return servers


def _log_in(login: str, options: dict[str, Any]) -> None:
    user, _, password = (_decoded(part, "user or password") for part in login.partition(":"))
    if not user or not password:
        raise _error("the part before the @ is not user:password")
    if twice := sorted({"sasl_plain_username", "sasl_plain_password"} & options.keys()):
        raise _error(f"it has user:password@ and sets {', '.join(twice)}, too")
    # A password is sent without encryption only on explicit request.
    if not options.setdefault("security_protocol", "SASL_SSL").startswith("SASL_"):
        raise _error("user:password@ needs security_protocol=SASL_SSL, the default, or SASL_PLAINTEXT")
    options.setdefault("sasl_mechanism", "PLAIN")
    options.update(sasl_plain_username=user, sasl_plain_password=password)


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            # An unknown name may be the rest of a password that contains an &.
            raise _error(f"{name if name in _known() else 'a parameter'} has no value")
        pairs.append((name, _decoded(value, f"value of {name}")))
    return pairs


def _converted(name: str, value: str) -> Any:
    kind = PARAMETERS.get(name) or _kind_of_option(name)
    if kind is str:
        return value
    if kind is bool and value.lower() in _SWITCH:
        return _SWITCH[value.lower()]
    if kind is int and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    raise _error(f"{name} is not {'true or false' if kind is bool else 'a whole number'}")


def _kind_of_option(name: str) -> type:
    if name in RESERVED_OPTIONS:
        raise _error(
            f"{name} cannot be set: the broker's guarantees depend on it, or another part of the URL sets it"
        )
    if name in _TEXTS:
        return str
    if name in _NUMBERS:
        return int
    known = _known()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise _error(f"{name!r} is not a parameter" + (f"; did you mean {near[0]}?" if near else ""))
    kind = type(known[name])
    if kind not in (str, int, bool):
        raise _error(f"{name} cannot be written in a URL: pass it in client_options")
    return kind


def _decoded(text: str, meaning: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _error(f"its {meaning} is not percent-encoded UTF-8") from None


def _known() -> dict[str, Any]:
    """The names of all parameters, with the defaults of kafka-python's."""
    return {**dict.fromkeys(PARAMETERS), **default_options()}


def _error(reason: str) -> ValueError:
    return ValueError(
        f"url= is not kafka://[user:password@]host[:port][,host[:port]...][/namespace][?parameter=value&...]:"
        f" {reason}."
    )
