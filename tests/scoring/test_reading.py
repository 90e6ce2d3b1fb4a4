"""An ad is read for what its words mean in their order, however they are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import Ad
from scoring.knowledge import COMMA, END, Pattern, bits_set, cancelled_letter, letter, load_knowledge
from scoring.reading import Candidates, Reader, Reading

READER = Reader(load_knowledge())
PATTERNS = [*READER.knowledge.patterns, *READER.knowledge.cancels]
CANDIDATES = Candidates(PATTERNS)
NEEDED = sorted({number for p in PATTERNS for need in p.needs for number in bits_set(need)})


def read(text: str, name: str = "ad") -> Reading:
    return READER.read(Ad(1, 1, False, name, text, category=20, images_qty=1))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("пишите в телеграм", "contacts"),
        ("пишите в тeлeгpaм", "contacts"),
        ("п и ш и  в  т е л е г у", "contacts"),
        ("пишите в теле\u200bграм", "contacts"),
        ("отвечаю в в@тс@пе", "contacts"),
        ("отправлю после перевода на карту", "prepayment_fraud"),
        ("Zelle first, then I ship", "prepayment_fraud"),
        ("v i a g r a", "prohibited_goods"),
        ("т р а м а д о л в наличии", "prohibited_goods"),
        ("кроссовки nike, реплика 1:1", "counterfeit"),
        ("массаж для мужчин от девушки", "adult_services"),
        ("сдам квартиру только славянам", "discrimination"),
        ("приведи троих и получай процент с каждого", "spam_keywords"),
        ("every friend you invite gives you 10 %, and their friends 3 %", "spam_keywords"),
        ("за каждого приглашённого 10 %, за его друзей 3 %", "spam_keywords"),
    ],
)
def test_strong_evidence_of_a_rule_is_seen_also_in_disguise(text: str, rule: str) -> None:
    assert read(text).counts[rule, "strong"] >= 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("без предоплаты", "prepayment_fraud"),
        ("предоплату не беру", "prepayment_fraud"),
        ("пистолет для монтажной пены", "prohibited_goods"),
        ("пустая бутылка из-под виски", "prohibited_goods"),
        ("душистый табак для клумбы", "prohibited_goods"),
        ("чехол, совместимый с iphone, не копия", "counterfeit"),
        ("лечебный массаж спины", "adult_services"),
        ("платье на девочку, рост 116", "discrimination"),
        ("настрою телеграм-бота для магазина", "contacts"),
        ("invite your kids and their friends, cake for ten", "spam_keywords"),
    ],
)
def test_what_a_near_miss_says_is_no_strong_evidence(text: str, rule: str) -> None:
    assert read(text).counts[rule, "strong"] == 0


def test_a_refusal_does_not_reach_over_a_comma() -> None:
    assert read("не тут, в телеграм").counts["contacts", "strong"] >= 1


def test_the_words_of_the_name_are_known_from_those_of_the_description() -> None:
    reading = read("очень мягкий", name="Диван угловой")
    assert [word.text for word in reading.words[: reading.title_words]] == ["диван", "угловой"]


@pytest.mark.parametrize("text", ["", "\x00", "🙂🙂", "...!!!", "مرحبا بالعالم", " ", "а" * 5000])
def test_texts_without_words_of_any_language_are_read_too(text: str) -> None:
    assert read(text, name=text).counts.total() == 0


@given(
    st.lists(
        st.one_of(
            st.sampled_from([COMMA, END]),
            st.sampled_from(NEEDED).map(letter),
            st.sampled_from(NEEDED).map(cancelled_letter),
        )
    ),
    st.sampled_from(PATTERNS),
)
def test_no_pattern_is_passed_over_that_a_text_holds(pieces: list[str], pattern: Pattern) -> None:
    held = [letter(bits_set(need)[0]) for need in pattern.needs]
    concepts = " ".join([*pieces, *held]) + " "
    candidates = CANDIDATES.in_text(set(concepts))
    assert {n for n, p in enumerate(PATTERNS) if p.regex.search(concepts)} <= set(candidates)


@pytest.mark.parametrize("word", ["pick", "last", "socket", "style", "report", "salon"])
def test_an_english_word_is_no_russian_one_that_looks_a_little_like_it(word: str) -> None:
    assert READER.dictionary[word].text == word
