"""Weighs a reading: named numbers of about 0..1 that speak for or against each rule."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from scoring.ad import Ad
from scoring.evidence_columns import (
    LEXICAL_RULES,
    PAIR_SCALE,
    PLACE,
    THEME_COUNTS,
    THEME_PAIRS,
    THEME_SCALE,
    THEMES,
    TOPIC_FEATURES,
)
from scoring.knowledge import STRENGTHS
from scoring.reading import Reading
from scoring.repetition import measure
from scoring.topics import TOPICS, TopicModel, are_neighbours, head_topics
from scoring.words import Word

_PEOPLE_CATEGORIES = (10, 11, 12)  # services, jobs, housing: people are excluded there
_ABOUT_GOODS = (10, 11)  # services and jobs
_PROHIBITED_CATEGORIES = (15, 16, 20)  # medicine, drink, and goods without a better category
_LEAST_BODY = 8
_FORM_CHARACTERS = 2_000  # the beginning shows the form of a longer text
_PICTURES = re.compile("[\u2191-\U0010ffff]")
# The kind of each byte of a text in Windows-1251: capital, other letter, digit or sign. Letters of other
# scripts count as signs.
_KINDS = bytes(
    ord("A" if c.isupper() else "a" if c.isalpha() else "0" if c.isdigit() else "?")
    for c in (bytes([code]).decode("cp1251", "replace") for code in range(256))
)
_REACHED = tuple(PLACE[f"contacts.{name}"] for name in ("phone", "email", "link", "handle", "spelled_site"))
_NEAR = {category: [are_neighbours(category, topic) for topic in TOPICS] for category in TOPICS}
_NEAR_AND_SERVICES = {
    category: [is_near or topic == _ABOUT_GOODS[0] for topic, is_near in zip(TOPICS, near, strict=True)]
    for category, near in _NEAR.items()
}
_ALL_NEAR = [True] * len(TOPICS)


def weigh(
    reading: Reading, topics: TopicModel, probabilities: npt.NDArray[np.float64], query_bit: int
) -> tuple[list[int], list[float]]:
    """Return the places in `EVIDENCE` of the numbers that are not 0, and these numbers.

    ``probabilities`` are those of `TOPICS`.
    """
    values = _by_rule(reading)
    values += _contacts(reading)
    values += _form(reading)
    values += measure(*_body(reading), query_bit)
    values += _seller(reading.ad)
    values += _topic(reading, topics, probabilities)
    values += _interactions(values, reading.ad)
    places = [place for place, value in enumerate(values) if value]
    numbers = [values[place] for place in places]
    for rule in THEMES:
        there, weights = _themes(rule, _theme_bits(reading, rule))
        places += there
        numbers += weights
    return places, numbers


def _by_rule(reading: Reading) -> list[float]:
    values: list[float] = []
    count = reading.counts.get
    for rule in LEXICAL_RULES:
        values += _of_counts(*[count((rule, strength), 0) for strength in STRENGTHS])
    return values


@lru_cache(maxsize=10_000)  # the counts are small: nearly always 0, 0, 0
def _of_counts(strong: int, weak: int, counter: int) -> tuple[float, ...]:
    """Return the numbers of `BY_RULE`."""
    return (
        1.0 if strong else 0.0,
        1.0 if weak else 0.0,
        1.0 if counter else 0.0,
        min(strong - 1, 4) / 4 if strong > 1 else 0.0,
        min(weak - 1, 4) / 4 if weak > 1 else 0.0,
        1.0 if strong and counter else 0.0,
        1.0 if weak and counter and not strong else 0.0,
        1.0 if weak > 1 and not strong else 0.0,
    )


def _contacts(reading: Reading) -> list[float]:
    phones, links = reading.phones, reading.links
    counts = (
        phones.sure,
        phones.perhaps,
        phones.disguised,
        phones.serial,
        phones.card,
        links.email,
        links.link,
        links.shop,
        links.handle,
        links.spelled,
    )
    return [1.0 if count else 0.0 for count in counts]


def _form(reading: Reading) -> list[float]:
    text = reading.text[:_FORM_CHARACTERS]
    raw = reading.ad.name + reading.ad.description[:_FORM_CHARACTERS]
    length = max(len(text), 1)
    kinds = text.encode("cp1251", "replace").translate(_KINDS)
    capitals, digits = kinds.count(b"A"), kinds.count(b"0")
    letters = capitals + kinds.count(b"a") or 1
    return [
        min(sum([word.odd for word in reading.words]) / 2, 1.0),
        min(sum([word.mixed for word in reading.words]) / 2, 1.0),
        min(reading.spaced_out, 2) / 2,
        capitals / letters,
        min(text.count("!") / 5, 1.0),
        digits / length,
        min(len(reading.text) / 2000, 2.0),
        1.0 if length < 30 else 0.0,
        0.0 if reading.words else 1.0,
        min(len(_PICTURES.findall(raw)) / 8, 1.0),
    ]


def _body(reading: Reading) -> tuple[str, list[Word]]:
    """Return the description alone if it is long enough: a name repeated in it is no repetition."""
    words = reading.words[reading.title_words :]
    if len(words) < _LEAST_BODY:
        return reading.lower, reading.words
    return reading.lower.partition("\n")[2], words


def _seller(ad: Ad) -> list[float]:
    return [
        0.0 if ad.is_verified_seller else 1.0,
        1.0 if ad.images_qty <= 0 else 0.0,
        1.0 if ad.images_qty == 1 else 0.0,
        min(max(ad.images_qty, 0), 10) / 10,
    ]


def _topic(reading: Reading, topics: TopicModel, probabilities: npt.NDArray[np.float64]) -> list[float]:
    category = reading.ad.category
    near = _NEAR.get(category)
    if near is None:
        return [0.0] * len(TOPIC_FEATURES)
    topics_of_words = topics.lexicon_topics(reading.masks)
    counts = [0] * len(TOPICS)
    for of_word in topics_of_words:
        for topic in of_word:
            counts[topic] += 1
    if category in _ABOUT_GOODS and any(counts[topic - 1] for topic in _ABOUT_GOODS):
        near = _ALL_NEAR  # a service or a job may be about anything
    elif counts[category - 1]:
        near = _NEAR_AND_SERVICES[category]  # a service about these goods may stand among them
    chances = probabilities.tolist()
    belongs = sum([chance for chance, is_near in zip(chances, near, strict=True) if is_near])
    foreign = max([0.0, *[chance for chance, is_near in zip(chances, near, strict=True) if not is_near]])
    inside, outside = _sides(counts, near)
    head = head_topics(reading, topics_of_words)
    head_near = any(near[topic] for topic in head)
    return [
        foreign,
        1.0 if foreign > 0.8 and belongs < 0.1 else 0.0,
        min(max(outside - inside, 0) / 3, 1.0),
        1.0 if outside and not inside else 0.0,
        1.0 if head and not head_near else 0.0,
        1.0 if head_near else 0.0,
        belongs,
        1.0 - max(chances),
        1.0,
    ]


def _sides(counts: Sequence[int], near: Sequence[bool]) -> tuple[int, int]:
    """Count the words of the ad's own and neighbouring categories, and those of the likeliest foreign one."""
    inside = outside = 0
    for count, is_near in zip(counts, near, strict=True):
        if count and is_near:
            inside += count
        elif count > outside:
            outside = count
    return inside, outside


def _theme_bits(reading: Reading, rule: str) -> int:
    if rule == "discrimination" and reading.ad.category in _PEOPLE_CATEGORIES:
        return reading.themes[rule] | 1  # the first is housing and jobs
    return reading.themes[rule]


@lru_cache(maxsize=10_000)  # about 2,400 are possible
def _themes(rule: str, bits: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the places and numbers of a rule's themes: their count, each of them, and their pairs."""
    there = [bool(bits >> number & 1) for number in range(len(THEMES[rule]))]
    values = (
        *(1.0 if sum(there) >= least else 0.0 for least in THEME_COUNTS),
        *(THEME_SCALE if present else 0.0 for present in there),
        *(PAIR_SCALE if there[one] and there[other] else 0.0 for one, other in THEME_PAIRS[rule]),
    )
    start = PLACE[f"{rule}.themes_{THEME_COUNTS[0]}"]
    entries = [(place, value) for place, value in enumerate(values, start) if value]
    return tuple(place for place, _ in entries), tuple(value for _, value in entries)


def _interactions(values: list[float], ad: Ad) -> list[float]:
    def at(name: str) -> float:
        return values[PLACE[name]]

    reached = max(values[place] for place in _REACHED)
    people = 1.0 if ad.category in _PEOPLE_CATEGORIES else 0.0
    unverified = at("seller.unverified")
    run = at("repetition.longest_run")
    return [
        reached,
        reached * unverified,
        at("prepayment_fraud.strong") * unverified,
        at("prepayment_fraud.weak") * at("seller.no_images"),
        at("prepayment_fraud.weak") * reached,
        at("prohibited_goods.weak") * (ad.category in _PROHIBITED_CATEGORIES),
        at("counterfeit.strong") * (1 - at("counterfeit.counter")),
        at("discrimination.strong") * people,
        at("discrimination.weak") * people,
        at("discrimination.strong") * (1 - people),
        1.0 if run >= 0.4 else 0.0,
        1.0 if run >= 0.65 else 0.0,
        1.0 if run >= 1.0 else 0.0,
        1.0 if at("repetition.hashtags") >= 0.6 else 0.0,
    ]
