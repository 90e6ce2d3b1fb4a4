"""Numbers written as words become digits, grouped as they are dictated."""

import pytest

from scoring.numerals import numerals_in, spell_out


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("восемь девятьсот шестнадцать три ноль один", "8 916 3 0 1"),
        ("плюс семь девятьсот", "+ 7 900"),
        ("two one two five five five oh one double nine", "2 1 2 5 5 5 0 1 9 9"),
        ("тридцать пять сорок", "35 40"),
        ("fivefivefive", "5 5 5"),
        ("два нуля", "0 0"),
    ],
)
def test_dictated_numbers_are_written_in_digits(text: str, digits: str) -> None:
    assert spell_out(text).split() == digits.split()


@pytest.mark.parametrize("text", ["oh what a sofa", "стол и стул", "one of a kind, о да"])
def test_an_o_that_stands_among_words_is_no_zero(text: str) -> None:
    assert "0" not in spell_out(text)


def test_numerals_glued_together_are_numerals() -> None:
    assert numerals_in("пятьпятьпять") == 3
    assert not numerals_in("пятьница")
