"""Any value becomes JSON that a strict parser reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.process.strict_json import dumps


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def strict(text: str) -> Any:
    return json.loads(text.encode(), parse_constant=refuse)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


#: Lone surrogates are among their characters.
TEXTS = st.text(st.characters())
ITSELF: dict[str, Any] = {"text": "t"}
ITSELF["self"] = ITSELF
DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner)
        ),
        max_leaves=10,
    )
)
def test_any_value_of_pythons_json_is_strict_json(value: Any) -> None:
    strict(dumps(value))


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists))
def test_a_value_of_json_is_kept(value: Any) -> None:
    assert strict(dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "read"),
    [
        pytest.param("x \udcff", "x \udcff", id="a lone surrogate"),
        pytest.param([float("nan"), float("-inf")], ["nan", "-inf"], id="numbers that JSON lacks"),
        pytest.param({(1, 2): "pair", 3: "int"}, {"(1, 2)": "pair", "3": "int"}, id="keys that are no texts"),
        pytest.param(ITSELF, {"text": "t", "self": "..."}, id="a value that contains itself"),
        pytest.param({"o": Unprintable()}, {"o": "<Unprintable>"}, id="an object without a text"),
        pytest.param(10**5_000, f"0x{10**5_000:x}", id="a number of more digits than Python prints"),
        pytest.param([float("inf"), Unprintable()], ["inf", "<Unprintable>"], id="two"),
    ],
)
def test_what_pythons_encoder_refuses_is_written_as_text(value: Any, read: Any) -> None:
    assert strict(dumps(value)) == read


def test_a_value_that_is_nested_beyond_measure_is_cut() -> None:
    assert dumps(DEEP).endswith('["..."' + "]" * 50)
