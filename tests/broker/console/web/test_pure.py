"""The parts of the web console that compute only."""

from __future__ import annotations

import json
import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.console.web.charts import chart, data_of
from broker.console.web.masking import MASK, masked, without_secrets
from broker.console.web.measures import quantile_s
from broker.console.web.stored_tracebacks import stored
from broker.console.web.tracebacks import own_frames

TRACEBACK = """Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/dramatiq/worker.py", line 560, in process_message
    res = actor(*message.args, **message.kwargs)
          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/dramatiq/actor.py", line 194, in __call__
    return self.fn(*args, **kwargs)
  File "/app/shop/tasks.py", line 12, in charge
    card.debit(amount)
  File "/app/shop/card.py", line 3, in debit
    raise CardDeclined("no funds")
shop.card.CardDeclined: no funds
"""


def test_a_traceback_is_folded_to_the_frames_of_the_application() -> None:
    assert own_frames(TRACEBACK).splitlines() == [
        "Traceback (most recent call last):",
        "  ... 2 frames of libraries",
        '  File "/app/shop/tasks.py", line 12, in charge',
        "    card.debit(amount)",
        '  File "/app/shop/card.py", line 3, in debit',
        '    raise CardDeclined("no funds")',
        "shop.card.CardDeclined: no funds",
    ]


@given(st.text(), st.text(), st.sampled_from(["", "\n", "\n\n"]))
def test_a_traceback_is_stored_in_parts_that_make_it_up(head: str, error: str, ending: str) -> None:
    for traceback in (head, f"{head}{error}{ending}", f"{TRACEBACK}{error}{ending}"):
        _, text, last_line, end = stored(traceback, error)
        assert text + last_line + ("" if end is None else error + end) == traceback


def test_dead_letters_that_differ_in_their_error_alone_have_their_frames_in_common() -> None:
    first = stored(TRACEBACK, "no funds")
    second = stored(TRACEBACK.replace("CardDeclined: no funds", "CardDeclined: no card"), "no card")
    assert first == second
    assert (first.last_line, first.ending) == ("shop.card.CardDeclined: ", "\n")


def test_a_traceback_of_libraries_alone_or_of_another_form_stays_whole() -> None:
    libraries = "\n".join(TRACEBACK.splitlines()[:4]) + "\nValueError: no"
    assert own_frames(libraries) == libraries
    assert own_frames("no traceback") == "no traceback"
    assert own_frames("") == ""


def test_values_named_like_secrets_are_masked_however_deep() -> None:
    value = {"user": "a", "login": {"Password": "x", "items": [{"api_key": "y", "n": 1}]}, "author": "z"}
    assert without_secrets(value) == {
        "user": "a",
        "login": {"Password": MASK, "items": [{"api_key": MASK, "n": 1}]},
        "author": "z",
    }
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    assert MASK in json.dumps(without_secrets(deep), ensure_ascii=False)


def test_masked_arguments_leave_their_number_and_names_and_no_pipeline() -> None:
    message = {
        "args": [1, 2],
        "kwargs": {"order": 3},
        "options": {"retries": 1, "pipe_target": {"args": [9]}},
    }
    assert masked(message, is_shown=False) == {
        "args": [MASK, MASK], "kwargs": {"order": MASK}, "options": {"retries": 1},
    }  # fmt: skip
    assert masked(None, is_shown=True) is None


def test_a_quantile_is_within_its_bucket() -> None:
    counts = Counter({0: 90, 10: 10, 3: 0, 4: -1})
    assert quantile_s(counts, 0.5) == 2**0.25
    assert quantile_s(counts, 0.95) == 2**5.25
    assert quantile_s(Counter(), 0.5) is None


def test_a_chart_joins_series_of_different_times_and_leaves_gaps() -> None:
    found = chart("Runs", "rate", [("a", [(0, 1.0), (10_000, 3.0)]), ("b", [(5_000, 2.0), (10_000, 0.0)])])
    assert json.loads(data_of(found))["data"] == [[0.0, 5.0, 10.0], [1.0, None, 3.0], [None, 2.0, 0.0]]
    assert found["lines"][0]["path"].count("M") == 2
    assert math.isclose(found["peak"], 3.0)
    assert chart("None", "rate", [("a", [])])["lines"][0]["path"] == ""
