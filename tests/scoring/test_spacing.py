"""Letters spread out are put together again, and several words taken apart."""

import pytest

from scoring.knowledge import load_knowledge
from scoring.spacing import Gatherer

GATHERER = Gatherer(load_knowledge())


@pytest.mark.parametrize(
    ("text", "gathered"),
    [
        ("v i a g r a", "viagra"),
        ("t.e.l.e.g.r.a.m", "telegram"),
        ("а. м ф. и. к", "амфик"),
        ("п и ш и  в  т е л е г у", "пиши в телегу"),
        ("п и ш и т е в т е л е г р а м", "пишите в телеграм"),
        ("д o м a ш h e e в и h o", "домашнее вино"),
    ],
)
def test_what_was_spread_out_is_read_as_words(text: str, gathered: str) -> None:
    assert GATHERER.gather(text) == (gathered, 1)


@pytest.mark.parametrize("text", ["а и б сидели", "2 x 3 m", "я и ты", "рост, вес, размер"])
def test_short_words_in_a_row_stay_words(text: str) -> None:
    assert GATHERER.gather(text) == (text, 0)
