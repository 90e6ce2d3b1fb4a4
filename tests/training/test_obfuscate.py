"""What sellers do to a text so that a filter does not understand it."""

import random

import pytest

from scoring import Ad
from scoring.knowledge import load_knowledge
from scoring.reading import Reader
from training.obfuscate import STRENGTHS, disguise, telephone

READER = Reader(load_knowledge())


@pytest.mark.parametrize("strength", STRENGTHS[1:])
@pytest.mark.parametrize("text", ["телеграм", "whatsapp"])
def test_a_disguised_word_is_another_text(text: str, strength: int) -> None:
    assert disguise(random.Random(1), text, strength) != text


def test_nothing_is_disguised_at_strength_0() -> None:
    assert disguise(random.Random(1), "телеграм", 0) == "телеграм"


@pytest.mark.parametrize("language", ["ru", "en"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_most_disguised_telephones_are_still_read(language: str, strength: int) -> None:
    rng = random.Random(7)
    found = 0
    for _ in range(50):
        text = f"{'звоните' if language == 'ru' else 'call'} {telephone(rng, language, strength)}"
        found += READER.read(Ad(1, 1, False, "", text, 5, 1)).phones.sure > 0
    assert found >= 40
