"""Log lines: the task of each line, one line for each change of its state, and no arguments."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import SkipMessage

from broker import KafkaBroker, default_middleware
from broker.logs import JSONFormatter, TaskLogs, TextFormatter
from broker.testing import Kit, advance, drain

SECRET = "4012-8888-8888-1881"


class Lines(logging.Handler):
    """Keeps the formatted lines."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]

    def states(self, message_id: str) -> list[tuple[str, str, int]]:
        """The states of a message with the level and the attempt of each."""
        return [
            (line["state"], line["level"], line["attempt"])
            for line in self.lines
            if "state" in line and line["message_id"] == message_id
        ]


@pytest.fixture
def kit() -> Iterator[Kit]:
    middleware = [TaskLogs(), *default_middleware()]
    with Kit(KafkaBroker(namespace="shop-", partitions=1, middleware=middleware)).use() as kit:
        yield kit


@pytest.fixture
def lines() -> Iterator[Lines]:
    yield from collected(Lines(JSONFormatter(lambda: "host:1:ab")))


def collected(handler: Lines) -> Iterator[Lines]:
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def test_each_change_of_a_tasks_state_is_one_line(kit: Kit, lines: Lines) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=1, min_backoff=60_000)
    def pay(card: str, what: str) -> None:
        if what == "fail":
            raise OSError("the bank does not answer")
        if what == "skip":
            raise SkipMessage("nothing to pay")

    paid, failing, skipped = (pay.send(SECRET, what) for what in ("pay", "fail", "skip"))
    expired = pay.send_with_options(args=(SECRET, "pay"), expires_at=1)
    drain(raise_errors=False)
    advance(minutes=5)
    drain(raise_errors=False)
    assert lines.states(paid.message_id) == [("started", "debug", 1), ("succeeded", "info", 1)]
    assert lines.states(skipped.message_id)[-1] == ("skipped", "info", 1)
    assert lines.states(expired.message_id)[-1] == ("expired", "info", 1)
    assert lines.states(failing.message_id) == [
        ("started", "debug", 1),
        ("retried", "warning", 1),
        ("started", "debug", 2),
        ("dead_lettered", "error", 2),
    ]
    (retried,) = [line for line in lines.lines if line.get("state") == "retried"]
    assert retried["error_type"] == "OSError"
    assert 0 < retried["retry_in_s"] <= 120


def test_each_line_of_a_task_names_it_and_lines_outside_do_not(kit: Kit, lines: Lines) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail")
    def pay(card: str) -> None:
        logging.getLogger("shop").info("asking the bank")

    message = pay.send(SECRET)
    logging.getLogger("shop").info("before")
    drain()
    logging.getLogger("shop").info("after")
    (line,) = [line for line in lines.lines if line["text"] == "asking the bank"]
    assert {
        name: line[name] for name in ("message_id", "actor", "queue", "partition", "offset", "attempt")
    } == {
        "message_id": message.message_id,
        "actor": "pay",
        "queue": "mail",
        "partition": 0,
        "offset": 0,
        "attempt": 1,
    }
    assert (line["level"], line["logger"], line["worker"]) == ("info", "shop", "host:1:ab")
    others = [line for line in lines.lines if line["text"] in ("before", "after")]
    assert len(others) == 2
    assert not any("message_id" in line for line in others)


def test_no_line_from_info_up_has_an_argument(kit: Kit, lines: Lines) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=1, min_backoff=1)
    def pay(card: str) -> None:
        raise OSError("the bank does not answer")

    message = pay.send(SECRET)
    drain(raise_errors=False)
    advance(minutes=5)
    drain(raise_errors=False)
    loud = [line for line in lines.lines if line["level"] != "debug"]
    # Dramatiq's own line about a failure has the call with its arguments.
    failures = [line for line in loud if line["text"].startswith("Failed to process message")]
    assert failures
    assert all(f"{message.message_id} of pay" in line["text"] for line in failures)
    assert failures[0]["error"]["type"] == "OSError"
    assert "the bank does not answer" in failures[0]["error"]["traceback"]
    assert not [line for line in loud if SECRET in json.dumps(line)]


def test_a_line_is_one_line_whatever_is_logged(lines: Lines) -> None:
    logging.getLogger("shop").warning("two\nlines %s", object(), extra={"order": {1, 2}, "ünï": "☃"})
    (text,) = [text for text in lines.texts if "two" in text]
    assert "\n" not in text
    assert json.loads(text)["ünï"] == "☃"


def test_a_terminal_gets_text_with_the_same_fields(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=0)
    def pay() -> None:
        raise OSError("the bank does not answer")

    for lines in collected(Lines(TextFormatter())):
        message = pay.send()
        drain(raise_errors=False)
        (text,) = [text for text in lines.texts if "dead_lettered" in text]
        assert f"message_id={message.message_id}" in text
        assert "state=dead_lettered" in text
        assert any("Traceback" in text for text in lines.texts)


def test_a_worker_process_gets_the_formatter_at_its_boot(kit: Kit, lines: Lines) -> None:
    lines.setFormatter(logging.Formatter("%(message)s"))
    TaskLogs(formats=False).after_process_boot(kit.broker)
    assert not isinstance(lines.formatter, JSONFormatter | TextFormatter)
    before = {handler: handler.formatter for handler in logging.getLogger().handlers}
    try:
        TaskLogs().after_process_boot(kit.broker)
        assert isinstance(lines.formatter, JSONFormatter | TextFormatter)
    finally:
        for handler, formatter in before.items():
            handler.setFormatter(formatter)


def test_no_value_loses_a_line_or_replaces_the_fields_of_the_formatter() -> None:
    odd = {"float": float("nan"), "keys": {(1, 2): 3}, "level": "zz", "text": "t", "time": 1, "worker": "x"}
    record = logging.makeLogRecord({"levelname": "WARNING", "msg": "file %s", "args": ("\udcff",), **odd})
    text = JSONFormatter(lambda: "host:1:ab").format(record)
    line = json.loads(text.encode(), parse_constant=pytest.fail)
    assert (line["text"], line["level"], line["worker"]) == ("file \udcff", "warning", "host:1:ab")
    assert (line["float"], line["keys"]) == ("nan", {"(1, 2)": 3})
