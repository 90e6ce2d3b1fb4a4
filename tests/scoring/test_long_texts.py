"""Reading takes time that grows with the length of the text, and not with its square.

The texts are 25 times as long as any that is read: a pattern that starts anew from each letter of a word
takes minutes for them, and all others a second. The time limit tells those apart, on a busy machine as well.
"""

import pytest

from scoring import Ad, normalise
from scoring.knowledge import load_knowledge
from scoring.reading import Reader

READER = Reader(load_knowledge())
CHARACTERS = 200_000
UNITS = (
    *("a", "ы", "1", "a1", "aы", "-", "_", "|", "!", "#", "&", "<a", "\n", "💥"),
    *("a.", "a@", "a-", "a_", "@a", ". ", ", ", "1 ", "1,", "1|", "8 о", "a ", "a|"),
    *("dot", "dot ", "-dot", " на ", " at ", "www.", "http:/", "t.me", "wa/", "tg ", "tg a1", "вотсап"),
    *("id1", "пять", "пять ", "hundred ", "double ", "не ", "invite ", "mlm! ", "каждый друг ", "pay first "),
)


@pytest.fixture(autouse=True)
def _whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalise, "MAX_CHARACTERS", 2 * CHARACTERS)


#: The fast loop reads every fifth.
TEXTS = [
    pytest.param(unit, id=repr(unit), marks=[pytest.mark.slow] if number % 5 else [])
    for number, unit in enumerate(UNITS)
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", TEXTS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        pytest.param("ы ", "", marks=pytest.mark.slow),
        pytest.param("tg ", "ж", marks=pytest.mark.slow),
    ],
)
def test_a_text_of_one_thing_over_and_over_is_read_in_linear_time(before: str, unit: str, after: str) -> None:
    text = before + unit * (CHARACTERS // len(unit)) + after
    assert READER.read(Ad(1, 1, False, "", text, category=1, images_qty=1)).ad.description == text
