"""Text as a reader sees it: what is drawn alike becomes alike, what is not drawn goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.normalise import MAX_CHARACTERS, clean, fold_scripts, readings


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Диван, 5 000 ₽", "Диван, 5 000 ₽"),
        ("whats\u200bapp", "whatsapp"),
        ("теле\u00adграм", "телеграм"),
        ("p\u0301h\u0301o\u0301ne", "phone"),
        ("<b>call</b>&nbsp;me", " call me"),
        ("ｃａｌｌ ①②③", "call 123"),
        ("𝐜𝐚𝐥𝐥", "call"),
        ("вιагρа".replace("ι", "і"), "виагpа"),
        ("зелёный й", "зеленый й"),
        ("№5", " номер 5"),
        ("a\x00b\x07c", "a b c"),
    ],
)
def test_what_no_reader_sees_is_taken_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_of_a_very_long_text_the_head_and_the_tail_are_kept() -> None:
    text = clean("начало " + "а" * 100_000 + " конец")
    assert len(text) <= MAX_CHARACTERS + 1
    assert text.startswith("начало")
    assert text.endswith("конец")


@pytest.mark.parametrize(
    ("word", "folded"),
    [("тeлегрaм", "телеграм"), ("tеlegrаm", "telegram"), ("plain", "plain"), ("слово", "слово")],
)
def test_a_word_of_two_scripts_is_written_in_the_one_most_of_it_has(word: str, folded: str) -> None:
    assert fold_scripts(word) == folded


@pytest.mark.parametrize(
    ("word", "meant"), [("в@тсап", "ватсап"), ("v1agra", "viagra"), ("ваааатсап", "ватсап"), ("$ex", "sex")]
)
def test_digits_and_signs_are_read_as_the_letters_they_stand_for(word: str, meant: str) -> None:
    assert meant in readings(word)


@given(st.text(max_size=300))
def test_any_text_becomes_one_without_control_characters(text: str) -> None:
    assert not any(ord(character) < 32 and character != "\n" for character in clean(text))
