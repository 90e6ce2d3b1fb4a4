"""The second opinion learns from every word, and its parts add up."""

import numpy as np
import pytest

from scoring import Ad
from scoring.knowledge import load_knowledge
from scoring.reading import Reader, Reading
from scoring.wording import WordingModel

READER = Reader(load_knowledge())
HONEST = (
    "мягкий диван у окна",
    "самовывоз вечером",
    "soft sofa by the window",
    "no prepayment, see it first",
)
FORBIDDEN = (
    "продаю фрумбли оптом",
    "фрумбли дёшево",
    "cheap frumblies here",
    "prepayment first, see it later",
)


def read(text: str) -> Reading:
    return READER.read(Ad(1, 1, False, "ad", text, category=20, images_qty=1))


@pytest.fixture(scope="module")
def model() -> WordingModel:
    texts = [*HONEST, *FORBIDDEN] * 5
    violates = ([False] * len(HONEST) + [True] * len(FORBIDDEN)) * 5
    return WordingModel().fit([read(text) for text in texts], violates, np.ones(len(texts)))


def odds(model: WordingModel, text: str) -> float:
    return model.log_odds([read(text)])[0]


def test_a_word_that_no_knowledge_file_has_is_learned(model: WordingModel) -> None:
    assert odds(model, "есть фрумбли") > 0 > odds(model, "есть диван")


def test_another_ending_of_a_learned_word_still_counts(model: WordingModel) -> None:
    assert odds(model, "есть фрумблей") > odds(model, "есть столов")


def test_the_order_of_the_same_words_counts(model: WordingModel) -> None:
    assert odds(model, "prepayment first, see it later") > odds(model, "see it first, prepayment later")


@pytest.mark.parametrize(
    "text", ["", "🙂", "\ud800", "фрумбли, prepayment first. 8 916 000-12-34", "8" * 100]
)
def test_contributions_and_the_bias_add_up_to_the_log_odds(model: WordingModel, text: str) -> None:
    assert sum(model.contributions(read(text)).values()) + model.bias_ == pytest.approx(odds(model, text))


def test_a_word_said_again_counts_once(model: WordingModel) -> None:
    assert odds(model, "фрумбли. фрумбли. фрумбли") == pytest.approx(odds(model, "фрумбли"))
