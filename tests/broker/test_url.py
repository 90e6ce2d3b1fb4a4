"""A broker that is made of a URL."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from broker import KafkaBroker
from broker.parameters import RANGES
from broker.url import PARAMETERS, read_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://host", {"bootstrap_servers": ["host"]}),
        ("kafka://host:9092/", {"bootstrap_servers": ["host:9092"]}),
        ("KAFKA://127.0.0.1:9092", {"bootstrap_servers": ["127.0.0.1:9092"]}),
        (" kafka://a:1,b,c:3 ", {"bootstrap_servers": ["a:1", "b", "c:3"]}),
        ("kafka://[::1]:9092,[fe80::2]", {"bootstrap_servers": ["[::1]:9092", "[fe80::2]"]}),
        ("kafka://h/shop.", {"namespace": "shop."}),
        ("kafka://h?namespace=shop.", {"namespace": "shop."}),
        ("kafka://h/?group_id=a&partitions=8&", {"group_id": "a", "partitions": 8}),
        ("kafka://h?delay_index_dir=/a%20b", {"delay_index_dir": "/a b"}),
        ("kafka://h?fail_fast_default=true", {"fail_fast_default": True}),
    ],
)  # fmt: skip
def test_a_url_says_servers_namespace_and_parameters(url: str, expected: dict[str, Any]) -> None:
    assert read_url(url) == {"bootstrap_servers": ["h"], "client_options": {}, **expected}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("security_protocol=SSL&ssl_cafile=ca.pem", {"security_protocol": "SSL", "ssl_cafile": "ca.pem"}),
        ("ssl_check_hostname=false&linger_ms=5", {"ssl_check_hostname": False, "linger_ms": 5}),
        ("client_id=a%26b", {"client_id": "a&b"}),
        ("sasl_mechanism=SCRAM-SHA-512&sasl_plain_password=a+b/c%3D",
         {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_password": "a+b/c="}),
        ("send_buffer_bytes=131072", {"send_buffer_bytes": 131072}),
    ],
)  # fmt: skip
def test_settings_of_kafka_python_stand_in_the_query(query: str, expected: dict[str, Any]) -> None:
    assert read_url(f"kafka://host?{query}")["client_options"] == expected


@pytest.mark.parametrize(
    ("url", "protocol", "mechanism"),
    [
        ("kafka://us%40er:p%2Fw%3A@h", "SASL_SSL", "PLAIN"),
        ("kafka://us%40er:p%2Fw%3A@h?security_protocol=SASL_PLAINTEXT", "SASL_PLAINTEXT", "PLAIN"),
        ("kafka://us@er:p%2Fw:@h?sasl_mechanism=SCRAM-SHA-256", "SASL_SSL", "SCRAM-SHA-256"),
    ],
)
def test_user_and_password_mean_sasl_and_encryption_unless_that_is_switched_off(
    url: str, protocol: str, mechanism: str
) -> None:
    said = read_url(url)
    assert said["bootstrap_servers"] == ["h"]
    assert said["client_options"] == {
        "security_protocol": protocol,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "us@er",
        "sasl_plain_password": "p/w:",
    }


REFUSED = {
    "": "kafka://",
    "host:9092": "kafka://",
    "amqp://host:9092": "kafka://",
    "kafka+ssl://host:9092": "security_protocol=SSL",
    "kafka://": "server 1 of 1",
    "kafka:///shop": "server 1 of 1",
    "kafka://a,,b": "server 2 of 3",
    "kafka://a:port": "server 1 of 1",
    "kafka://a:0": "server 1 of 1",
    "kafka://a:65536": "server 1 of 1",
    "kafka://::1:9092": "server 1 of 1",
    "kafka://user@host": "user:password",
    "kafka://:Secret-7@host": "user:password",
    "kafka://user:@host": "user:password",
    "kafka://user:Secret-7": "server 1 of 1",
    "kafka://user:Sec/ret-7@host": "%2F",
    "kafka://user:Sec?ret-7@host": "%3F",
    "kafka://user:Sec#ret-7@host": "%23",
    "kafka://user:Secret-7%FF@host": "percent-encoded",
    "kafka://user:Secret-7@host?sasl_plain_password=other": "sasl_plain_password",
    "kafka://user:Secret-7@host?security_protocol=SSL": "SASL_SSL",
    "kafka://host?security_protocol=sasl_ssl": "security_protocol",
    "kafka://host?sasl_plain_password=a&Secret-7": "a parameter has no value",
    "kafka://host?group_id=": "group_id has no value",
    "kafka://host?grup_id=shop": "'grup_id' is not a parameter; did you mean group_id?",
    "kafka://host?nonsense=1": "'nonsense' is not a parameter",
    "kafka://host?middleware=x": "'middleware' is not a parameter",
    "kafka://host?url=x": "'url' is not a parameter",
    "kafka://host?client_options=x": "'client_options' is not a parameter",
    "kafka://host?bootstrap_servers=x": "bootstrap_servers",
    "kafka://host?acks=1": "acks",
    "kafka://host?partitions=many": "partitions is not a whole number",
    "kafka://host?partitions=4.0": "partitions is not a whole number",
    "kafka://host?linger_ms=": "linger_ms has no value",
    "kafka://host?ssl_check_hostname=maybe": "ssl_check_hostname is not true or false",
    "kafka://host?ssl_context=x": "client_options",
    "kafka://host?group_id=a&group_id=b": "group_id twice",
    "kafka://host/a?namespace=b": "namespace twice",
    "kafka://host?client_id=a&client_id=b": "client_id twice",
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_wrong_url_is_refused_with_what_is_wrong_and_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url= is not kafka://") as refused:
        KafkaBroker(url=url)
    assert REFUSED[url] in str(refused.value)
    assert "ret-7" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_what_is_no_text_is_no_url() -> None:
    with pytest.raises(TypeError, match="list"):
        KafkaBroker(url=["kafka://host"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"bootstrap_servers": "other:9092"}, "bootstrap_servers"),
        ({"group_id": "dramatiq"}, "group_id"),
        ({"namespace": "", "partitions": 4}, "namespace, partitions"),
        ({"client_options": {"client_id": "b"}}, "client_id"),
    ],
)
def test_what_the_url_says_may_not_be_given_a_second_time(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"both set {named}: keep one"):
        KafkaBroker(url="kafka://host/shop?group_id=shop&partitions=8&client_id=a", **parameters)


def test_servers_beside_a_url_are_refused_in_any_form() -> None:
    with pytest.raises(ValueError, match="bootstrap_servers"):
        KafkaBroker("localhost:9092", url="kafka://host")


def test_url_and_parameters_are_taken_together() -> None:
    broker = KafkaBroker(
        url="kafka://a:1,b:2/shop-?max_crashes=5&client_id=web", group_id="g", client_options={"linger_ms": 1}
    )
    assert broker.parts.clients.bootstrap_servers == ["a:1", "b:2"]
    assert broker.parts.topics.queue("mail") == "shop-mail"
    assert broker.parts.group_of("mail") == "g.shop-mail"
    assert broker.parts.settings.max_crashes == 5


def test_no_url_is_as_if_there_were_no_such_parameter() -> None:
    assert KafkaBroker("host:1", url=None).parts.clients.bootstrap_servers == ["host:1"]


def test_every_parameter_can_be_in_the_query_or_has_a_place_of_its_own() -> None:
    elsewhere = {"bootstrap_servers", "url", "middleware", "client_options"}
    assert set(inspect.signature(KafkaBroker).parameters) == set(PARAMETERS) | elsewhere


@pytest.mark.parametrize(
    "servers", ["kafka://user:Secret-7@h:9092/ns", ["a:9092", "kafka://h:9092"], "amqp://h"]
)
def test_a_url_in_the_place_of_the_servers_is_refused(servers: str | list[str]) -> None:
    for make in (lambda: KafkaBroker(servers), lambda: KafkaBroker(bootstrap_servers=servers)):
        with pytest.raises(ValueError, match=r"bootstrap_servers is a URL: pass it as url=") as refused:
            make()
        assert "Secret" not in str(refused.value)


def test_every_number_has_a_range() -> None:
    assert {name for name, kind in PARAMETERS.items() if kind is int} == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_refused_with_the_range(name: str) -> None:
    least, beside, _ = RANGES[name]
    for value in (least, *beside):
        KafkaBroker(**{name: value})  # type: ignore[arg-type]
    for value in {least - 1, min((least, *beside)) - 1}.difference(beside):
        with pytest.raises(ValueError, match=rf"{name} is {value}; it has to be at least {least}"):
            KafkaBroker(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"{name} is {value}"):
            KafkaBroker(url=f"kafka://h?{name}={value}")


def test_all_numbers_outside_their_ranges_are_named_at_once_and_messages_may_be_kept_for_ever() -> None:
    with pytest.raises(ValueError, match=r"partitions is 0; .*\. session_timeout_ms is 0; "):
        KafkaBroker(partitions=0, session_timeout_ms=0)
    KafkaBroker(retention_ms=-1)
