"""dkb dlq export and dlq import: dead letters through a file, to another cluster and back."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import dramatiq
import pytest

from broker.dead_letters.topic_log import DeadLetterTopic
from broker.produce.record import Record
from broker.testing import Kit, drain, pending
from tests.broker.console.conftest import Dkb

QUEUE = "mail"
APPLY = ("--apply", "--reason", "moved")


@pytest.fixture
def three_dead(kit: Kit) -> list[str]:
    @dramatiq.actor(queue_name=QUEUE, max_retries=0)
    def task(number: int) -> None:
        raise ValueError(f"number {number}")

    sent = [task.send(number) for number in range(3)]
    drain(raise_errors=False)
    return [message.message_id for message in sent]


@pytest.fixture
def file(dkb: Dkb, three_dead: list[str], tmp_path: Path) -> Path:
    """The three dead letters as ``dlq export`` prints them."""
    path = tmp_path / "mail.jsonl"
    path.write_text(dkb("dlq", "export", QUEUE).out)
    return path


def lose_dead_letters(kit: Kit) -> None:
    """Let the cluster have none of them, as another cluster."""
    topic = kit.broker.parts.topics.dead_letters(QUEUE)
    del kit.cluster.topics[topic]
    kit.broker.parts.topics.forget([topic])


def dead(dkb: Dkb) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = dkb("dlq", "list", QUEUE, "--json").document["dead_letters"]
    return [{name: value for name, value in row.items() if name != "record"} for row in rows]


def test_an_import_is_a_dry_run_by_default_and_then_asks_for_the_number(
    kit: Kit, dkb: Dkb, three_dead: list[str], file: Path
) -> None:
    before = dead(dkb)
    lose_dead_letters(kit)
    ran = dkb("dlq", "import", QUEUE, str(file))
    assert (ran.code, "Would import 3 dead letters of 'mail'." in ran.out) == (0, True)
    assert "A dry run: nothing was changed" in ran.err
    assert dkb("dlq", "import", QUEUE, str(file), *APPLY, typed="2\n").code == 6
    assert dead(dkb) == []
    ran = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--by", "ops", "--json", typed="3\n")
    assert (ran.code, ran.document["written"], ran.document["error_types"]) == (0, 3, {"ValueError": 3})
    assert dead(dkb) == before
    (shown,) = dkb("dlq", "show", QUEUE, three_dead[0], "--json").document["dead_letters"]
    assert (shown["args"], "number 0" in shown["traceback"]) == ([0], True)
    assert (shown["imported"]["by"], shown["imported"]["reason"]) == ("ops", "moved")
    assert "by ops: moved" in dkb("dlq", "show", QUEUE, three_dead[0]).out


def test_a_repeated_import_writes_nothing(kit: Kit, dkb: Dkb, file: Path) -> None:
    document = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes", "--json").document
    assert (document["given"], document["written"]) == (3, 0)
    assert document["skipped"] == {"it is an open dead letter here already": 3}
    assert len(dead(dkb)) == 3


def test_an_interrupted_import_is_completed_by_the_next_one(
    kit: Kit, dkb: Dkb, file: Path, tmp_path: Path
) -> None:
    lose_dead_letters(kit)
    first = tmp_path / "first.jsonl"
    first.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))
    assert dkb("dlq", "import", QUEUE, str(first), *APPLY, "--yes").code == 0
    document = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes", "--json").document
    assert (document["written"], document["skipped"]) == (2, {"it is an open dead letter here already": 1})
    assert len(dead(dkb)) == 3


def test_resolved_dead_letters_come_back_only_when_asked_for_and_then_once(
    kit: Kit, dkb: Dkb, file: Path
) -> None:
    kit.broker.discard(QUEUE, dry_run=False, reason="a mistake")
    document = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes", "--json").document
    assert (document["written"], document["skipped"]) == (0, {"it was redriven or discarded here": 3})
    assert dead(dkb) == []
    for written in (3, 0):
        ran = dkb("dlq", "import", QUEUE, str(file), "--resolved", *APPLY, "--yes", "--json")
        assert ran.document["written"] == written
    assert len(dead(dkb)) == 3


def test_imported_dead_letters_are_redriven_as_their_messages_were(
    kit: Kit, dkb: Dkb, three_dead: list[str], file: Path
) -> None:
    lose_dead_letters(kit)
    dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes")
    ran = dkb("dlq", "redrive", QUEUE, "--all", "--apply", "--yes", "--reason", "the server is back")
    assert ran.code == 0
    messages = pending(QUEUE)
    assert sorted(message.message_id for message in messages) == sorted(three_dead)
    assert sorted(message.args for message in messages) == [(0,), (1,), (2,)]
    topic = kit.broker.parts.topics.queue(QUEUE)
    with DeadLetterTopic(kit.broker.parts.clients, topic) as log:
        assert all("imported" not in dict(record.headers) for record in log.records_since({}))


def test_a_record_that_is_no_message_is_copied_byte_by_byte(kit: Kit, dkb: Dkb, tmp_path: Path) -> None:
    kit.broker.declare_queue(QUEUE)
    topic = kit.broker.parts.topics.dead_letters(QUEUE)
    kit.broker.parts.topics.ensure([kit.broker.parts.topics.queue(QUEUE), topic])
    kit.broker.parts.publisher.publish([Record(topic, b"\xff junk", key=b"k")])
    file = tmp_path / "junk.jsonl"
    file.write_text(dkb("dlq", "export", QUEUE).out)
    before = dead(dkb)
    lose_dead_letters(kit)
    for written in (1, 0):
        document = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes", "--json").document
        assert document["written"] == written
    assert dead(dkb) == before
    (line,) = dkb("dlq", "export", QUEUE).out.splitlines()
    assert base64.b64decode(json.loads(line)["raw_base64"]) == b"\xff junk"


def test_dead_letters_of_another_queue_are_left_out(kit: Kit, dkb: Dkb, file: Path) -> None:
    kit.broker.declare_queue("images")
    kit.broker.enqueue(dramatiq.Message("images", "task", (), {}, {}))
    document = dkb("dlq", "import", "images", str(file), *APPLY, "--yes", "--json").document
    assert (document["written"], document["skipped"]) == (0, {"it belongs to another queue": 3})


def test_the_file_may_come_on_standard_input_where_nobody_can_type_the_number(
    kit: Kit, dkb: Dkb, file: Path
) -> None:
    lose_dead_letters(kit)
    ran = dkb("dlq", "import", QUEUE, *APPLY, typed=file.read_text())
    assert (ran.code, "add --yes" in ran.err) == (2, True)
    ran = dkb("dlq", "import", QUEUE, *APPLY, "--yes", typed=file.read_text())
    assert (ran.code, "Imported 3 dead letters of 'mail'." in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("junk", "it is no line of dkb dlq export"),
        ("[]", "it is no line of dkb dlq export"),
        ('{"v": 1, "queue": "mail"}', "it is no line of dkb dlq export: KeyError('headers')"),
        ('{"v": 2}', "it has version 2 of the format, and this command knows 1"),
    ],
)
def test_a_file_with_a_line_that_is_none_is_refused_before_anything_is_written(
    kit: Kit, dkb: Dkb, file: Path, line: str, said: str
) -> None:
    lose_dead_letters(kit)
    with file.open("a") as end:
        end.write(f"{line}\n")
    ran = dkb("dlq", "import", QUEUE, str(file), *APPLY, "--yes")
    assert (ran.code, f"Line 4 of {file}: {said}" in ran.err) == (2, True), ran.err
    assert dead(dkb) == []
    assert dkb("dlq", "import", QUEUE, f"{file}.not").code == 2
    assert dkb("dlq", "import", QUEUE, str(file), "--apply", "--yes").code == 2


def test_an_export_has_each_dead_letter_on_a_line_with_its_bytes(dkb: Dkb, three_dead: list[str]) -> None:
    ran = dkb("dlq", "export", QUEUE, "--id", three_dead[0], "--id", three_dead[2])
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["args"] for line in lines] == [[0], [2]]
    assert all(line["raw_base64"] and line["headers"] for line in lines)
    assert ran.err == "2 dead letters of 'mail'.\n"
    assert len(dkb("dlq", "export", QUEUE, "--limit", "1").out.splitlines()) == 1


def test_a_dead_letter_of_odd_values_is_exported_shown_and_imported_as_strict_json(
    kit: Kit, dkb: Dkb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="dramatiq")  # execnet cannot send a log with a lone surrogate

    @dramatiq.actor(queue_name=QUEUE, max_retries=0)
    def odd(name: str, number: float) -> None:
        raise ValueError(f"\x1b[2J{name}")

    odd.send("file \udcff", float("nan"))
    odd.send("plain", 1.0)
    drain(raise_errors=False)
    exported = dkb("dlq", "export", QUEUE)
    lines = [json.loads(line, parse_constant=refuse_constant) for line in exported.out.encode().splitlines()]
    assert (exported.code, len(lines)) == (0, 2)
    assert sorted((line["args"] for line in lines), key=str) == [["file \udcff", "nan"], ["plain", 1.0]]
    (of_odd,) = [line for line in lines if line["args"][0] != "plain"]
    for verb in (("dlq", "show", QUEUE, of_odd["message_id"]), ("task", "show", of_odd["message_id"])):
        assert dkb(*verb).code == 0
        json.loads(dkb(*verb, "--json").out.encode(), parse_constant=refuse_constant)
    listed = dkb("dlq", "list", QUEUE)
    assert "\x1b" not in listed.out
    assert "\\x1b[2J" in listed.out
    before = dead(dkb)
    lose_dead_letters(kit)
    (tmp_path / "odd.jsonl").write_text(exported.out)
    assert dkb("dlq", "import", QUEUE, str(tmp_path / "odd.jsonl"), *APPLY, "--yes").code == 0
    assert dead(dkb) == before


def refuse_constant(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"v": 1, "queue": "mail", "headers": [], "at_ms": 1e400}'])
@pytest.mark.usefixtures("three_dead")
def test_a_line_that_python_cannot_take_is_named(dkb: Dkb, tmp_path: Path, line: str) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(line + "\n")
    ran = dkb("dlq", "import", QUEUE, str(file))
    assert (ran.code, "no line of dkb dlq export" in ran.err) == (2, True), ran.err
