"""Tests of hello.py with the kit of the installed wheel: test_the_wheel.py runs them in its environment."""

import hello
from dramatiq_kafka_broker.testing import assert_dead, assert_enqueued, drain


def test_a_greeting_is_written(kafka_broker, tmp_path, monkeypatch):
    monkeypatch.setenv("GREETING", str(tmp_path / "greeting"))
    hello.greet.send("kit")
    assert_enqueued(hello.greet, args=("kit",))
    assert drain() == 1
    assert (tmp_path / "greeting").read_text(encoding="utf-8") == "Hello, kit!"


def test_a_greeting_without_a_place_is_a_dead_letter(kafka_broker, monkeypatch):
    monkeypatch.delenv("GREETING")
    hello.greet.send("kit")
    drain(raise_errors=False)
    assert_dead(hello.greet, KeyError)
