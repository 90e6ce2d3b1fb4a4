"""Why an ad scored as it did: the rule it points to, and the parts of the text and the features that moved
it.

What a feature did is exact: the model is linear. What a part of the text did is measured: the ad is scored
again without it, all variants in one batch.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scoring.ad import Ad
from scoring.classifier import RuleClassifier

MAX_PARTS, MAX_FEATURES = 5, 8
_MOST_VARIANTS = 24  # each costs about as much as scoring an ad
_WORDS_OF_A_PIECE = 6
_LEAST_EFFECT = 0.1  # of a logit; less moves no verdict
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
    """A feature and what it added to the log-odds of ``rule``."""

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


def explain(pipeline: Any, ad: Ad) -> Explanation:
    """Explain one ad by a pipeline whose last step is a `RuleClassifier`; see `Model.explain`."""
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
        probability=probability,
        rule=rule,
        rules=dict(sorted(rules.items(), key=lambda item: -item[1])),
        parts=_parts(pipeline, ad, probability),
        features=_features(pipeline, row, rule),
    )


def _features(pipeline: Any, row: Any, rule: str) -> tuple[Feature, ...]:
    classifier = pipeline[-1]
    weights = classifier.weights_[:, classifier.rules_.index(rule)]
    entries = row.tocoo()
    effects = entries.data * weights[entries.col] / classifier.temperature
    names = pipeline[0].feature_names()
    strongest = np.argsort(-np.abs(effects), kind="stable")[:MAX_FEATURES]
    return tuple(
        Feature(names[entries.col[index]], float(effects[index]))
        for index in strongest
        if abs(effects[index]) >= _LEAST_EFFECT
    )


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
