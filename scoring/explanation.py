"""Explains a score: the rule that the ad points to, and the parts of its text and the features that moved it.

The effect of a feature is computed: the regressions are linear. The effect of a part of the text is
measured: the ad is scored again without the part, all variants in one batch.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scoring.ad import Ad
from scoring.classifier import RuleClassifier
from scoring.features import OPINION

MAX_PARTS, MAX_FEATURES = 5, 8
_MOST_VARIANTS = 24  # each costs about as much as scoring an ad
_WORDS_OF_A_PIECE = 6
_LEAST_EFFECT = 0.1  # of a logit; less moves no verdict
_WORDS_OF_OPINION = 3  # how many words of the second opinion are named
_PIECE = re.compile(r"[^.!?;,\n]+(?:[.!?;,\n]+|$)|[.!?;,\n]+")
_CERTAIN = 1e-9


class NotExplainable(TypeError):
    """The model has no rules to point to."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of ``field`` (name or description) from ``start`` to ``end``.

    ``effect`` is what it added to the log-odds of a violation.
    """

    field: str
    start: int
    end: int
    text: str
    effect: float


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature and how much it added to the log-odds of the explanation's ``rule``.

    The second opinion is one feature of all rules of words. Its name ends in the words that added most.
    """

    name: str
    effect: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """``rule`` is the likeliest one to be broken, also of an ad that is probably fine; ``rules`` has all."""

    probability: float
    rule: str
    rules: dict[str, float]
    parts: tuple[Part, ...]
    features: tuple[Feature, ...]


def explain(pipeline: Any, ad: Ad, shift: float = 0.0) -> Explanation:
    """Explain one ad by a pipeline whose last step is a `RuleClassifier`; see `Model.explain`.

    ``shift`` is added to the log-odds of a violation, for a site with another share of violations.
    """
    classifier = pipeline[-1]
    if not isinstance(classifier, RuleClassifier):
        raise NotExplainable(
            "this model reads no text and knows no rules: train the text model with `make train`"
        )
    row = pipeline[:-1].transform([ad])
    probabilities = classifier.rule_probabilities(row)[0]
    rules = {rule: float(p) for rule, p in zip(classifier.rules_, probabilities, strict=True)}
    rule = max(rules, key=rules.__getitem__)
    probability = float(classifier.predict_proba(row)[0, 1])
    return Explanation(
        probability=shifted(probability, shift) if shift else probability,
        rule=rule,
        rules=dict(sorted(rules.items(), key=lambda item: -item[1])),
        parts=_parts(pipeline, ad, probability),
        features=_features(pipeline, ad, row, rule),
    )


def shifted(probability: float, shift: float) -> float:
    """Return the probability whose log-odds are greater by ``shift``."""
    return 1 / (1 + math.exp(-(_log_odds(probability) + shift)))


def _features(pipeline: Any, ad: Ad, row: Any, rule: str) -> tuple[Feature, ...]:
    classifier = pipeline[-1]
    entries = row.tocoo()
    effects = np.array(
        [
            value * classifier.effects(column, rule)
            for column, value in zip(entries.col, entries.data, strict=True)
        ]
    )
    names = pipeline[0].feature_names()
    strongest = np.argsort(-np.abs(effects), kind="stable")[:MAX_FEATURES]
    found = []
    for index in strongest:
        name, effect = names[entries.col[index]], float(effects[index])
        if abs(effect) >= _LEAST_EFFECT:
            found.append(Feature(_opinion_name(pipeline, ad, effect) if name == OPINION else name, effect))
    return tuple(found)


def _opinion_name(pipeline: Any, ad: Ad, effect: float) -> str:
    """Name the second opinion by the words that moved it most in the direction that it has."""
    sign = math.copysign(1.0, effect)
    words = pipeline[0].opinion_of_words(ad)
    strongest = sorted(words, key=lambda word: -sign * words[word])[:_WORDS_OF_OPINION]
    return f"{OPINION} ({'; '.join(strongest)})" if strongest else OPINION


def _parts(pipeline: Any, ad: Ad, probability: float) -> tuple[Part, ...]:
    spans = [("name", *span) for span in _spans(ad.name)] + [
        ("description", *span) for span in _spans(ad.description)
    ]
    spans = spans[:_MOST_VARIANTS]
    variants = []
    for field, start, end in spans:
        text = getattr(ad, field)
        rest = f"{text[:start]} {text[end:]}"
        variants.append(replace(ad, name=rest) if field == "name" else replace(ad, description=rest))
    if not variants:
        return ()
    whole = _log_odds(probability)
    without = pipeline.predict_proba(variants)[:, 1]
    parts = [
        Part(field, start, end, getattr(ad, field)[start:end], whole - _log_odds(float(rest)))
        for (field, start, end), rest in zip(spans, without, strict=True)
    ]
    moved = [part for part in parts if abs(part.effect) >= _LEAST_EFFECT]
    return tuple(sorted(moved, key=lambda part: -part.effect)[:MAX_PARTS])


def _spans(text: str) -> list[tuple[int, int]]:
    """Cut a text at its stops and commas, and long stretches after every few words.

    At most `_MOST_VARIANTS` pieces.
    """
    spans: list[tuple[int, int]] = []
    for piece in _PIECE.finditer(text):
        words = list(re.finditer(r"\S+", piece[0]))
        for index in range(0, len(words), _WORDS_OF_A_PIECE):
            last = words[min(index + _WORDS_OF_A_PIECE, len(words)) - 1]
            spans.append((piece.start() + words[index].start(), piece.start() + last.end()))
    if len(spans) <= _MOST_VARIANTS:
        return spans
    step = math.ceil(len(spans) / _MOST_VARIANTS)
    return [(spans[i][0], spans[min(i + step, len(spans)) - 1][1]) for i in range(0, len(spans), step)]


def _log_odds(probability: float) -> float:
    probability = min(max(probability, _CERTAIN), 1 - _CERTAIN)
    return math.log(probability / (1 - probability))
