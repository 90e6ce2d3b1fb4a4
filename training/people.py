"""The ads that people wrote, and the variants of them that training adds: longer ones, and misplaced ones."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scoring.rules import TOPICAL_RULE
from scoring.topics import TOPICS, are_neighbours
from training.generator import LabelledAd
from training.grammar import load_grammar
from training.labelled_csv import read_labelled_csv

FOLDER = Path(__file__).parent
# How much an ad counts, where a generated one counts `GENERATED_WEIGHT`. Ads of whole length, as people
# place them, count most.
GENERATED_WEIGHT = 0.5
FILES = {
    "people/author_1.csv": 3.0,
    "people/author_2.csv": 3.0,
    "people/pairs.csv": 1.0,
    "challenge.csv": 1.0,
    "challenge_held_out.csv": 1.0,
}
MEASURE = FOLDER / "people/author_3.csv"  # no training ad is by this author

SHORT_CHARACTERS = (
    150  # people write more: shorter ads are also learned from with other sentences among theirs
)
_PADDED_CHARACTERS = (150, 350)
_PADDED_COPIES = 2
_COPY_WEIGHT = 0.5
_PEOPLES_SENTENCES = 0.6  # the share of padding that people wrote, where they wrote some in the category
_LEAST_SENTENCE = 20  # characters
_MOST_TRIES = 12
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")


def ads_by_people() -> tuple[list[LabelledAd], list[float]]:
    """Return the ads to learn from that people wrote, and how much each counts."""
    ads: list[LabelledAd] = []
    weights: list[float] = []
    for name, weight in FILES.items():
        of_file = read_labelled_csv(FOLDER / name)
        ads += of_file
        weights += [weight] * len(of_file)
    return ads, weights


def with_variants(
    ads: Sequence[LabelledAd], weights: Sequence[float]
) -> tuple[list[LabelledAd], list[float]]:
    """Return the ads and their weights with those of the variants of ads by people.

    Variants are made of the given ads alone, so that ads left out of ``ads`` stay unseen.
    """
    by_people = [(ad, weight) for ad, weight in zip(ads, weights, strict=True) if ad.author]
    rng = random.Random("variants")
    sentences = _honest_sentences([ad for ad, _ in by_people])
    all_ads, all_weights = list(ads), list(weights)
    for labelled, weight in by_people:
        if len(labelled.ad.name) + len(labelled.ad.description) < SHORT_CHARACTERS:
            for _ in range(_PADDED_COPIES):
                all_ads.append(_padded(labelled, sentences, rng))
                all_weights.append(weight * _COPY_WEIGHT)
        if not labelled.rule and not labelled.near_miss_of and labelled.ad.category in TOPICS:
            all_ads.append(_misplaced(labelled, rng))
            all_weights.append(min(weight, 1.0) * _COPY_WEIGHT)
    return all_ads, all_weights


def _honest_sentences(ads: Sequence[LabelledAd]) -> dict[tuple[str, int], list[str]]:
    """Return by language and category the sentences of plainly honest ads."""
    found: dict[tuple[str, int], list[str]] = {}
    for labelled in ads:
        if labelled.rule or labelled.near_miss_of:
            continue
        for sentence in _sentences(labelled.ad.description):
            if len(sentence) >= _LEAST_SENTENCE:
                found.setdefault((labelled.language, labelled.ad.category), []).append(sentence)
    return found


def _sentences(text: str) -> list[str]:
    return [part for piece in _SENTENCE.split(text) if (part := piece.strip())]


def _padded(
    labelled: LabelledAd, sentences: dict[tuple[str, int], list[str]], rng: random.Random
) -> LabelledAd:
    """Return the ad with honest sentences of its category and language among its own.

    The sentences of an ad in a wrong category are of no category.
    """
    ad = labelled.ad
    goods = load_grammar("train").goods
    of_language = goods.get(labelled.language, goods["ru"])
    general = of_language.common + of_language.prose
    by_people: list[str] = []
    if labelled.rule != TOPICAL_RULE and ad.category in TOPICS:
        general = general + of_language.details[ad.category]
        by_people = sentences.get((labelled.language, ad.category), [])
    wanted = rng.randint(*_PADDED_CHARACTERS)
    parts = _sentences(ad.description)
    for _ in range(_MOST_TRIES):
        if len(ad.name) + sum(map(len, parts)) >= wanted:
            break
        sentence = rng.choice(by_people if by_people and rng.random() < _PEOPLES_SENTENCES else general)
        if sentence not in parts:
            parts.insert(rng.randint(0, len(parts)), sentence)
    stopped = [part if part[-1] in ".!?;," else f"{part}." for part in parts]
    return replace(labelled, ad=replace(ad, description=" ".join(stopped)))


def _misplaced(labelled: LabelledAd, rng: random.Random) -> LabelledAd:
    """Return an honest ad in a category that is not its own and no neighbour of it."""
    own = labelled.ad.category
    foreign = [
        category
        for category in TOPICS
        if not are_neighbours(own, category) and category != 10  # among services goods have their repairs
    ]
    return replace(
        labelled, ad=replace(labelled.ad, category=rng.choice(foreign)), rule=TOPICAL_RULE, near_miss_of=""
    )
