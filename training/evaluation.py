"""Measures a model on ads that it has not learned from; `training.report` makes a text of the figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scoring.model import Model
from scoring.rules import RULES
from training.generator import LabelledAd
from training.metrics import Probabilities, auc_against, figures, intervals, reliability
from training.obfuscate import STRENGTHS

LENGTHS = (0, 150, 250, 400)  # where a group of ads by characters begins


def evaluate(model: Model, ads: Sequence[LabelledAd]) -> dict[str, Any]:
    """Return every figure of one set: overall, per rule, language, length and disguise, and the decisions."""
    probabilities = np.array(model.probabilities([labelled.ad for labelled in ads]))
    violates = [bool(labelled.rule) for labelled in ads]

    def of(chosen: list[int]) -> dict[str, Any]:
        return figures([violates[i] for i in chosen], probabilities[chosen])

    return {
        "overall": figures(violates, probabilities),
        "intervals": intervals(violates, probabilities),
        "per_rule": _per_rule(model, ads, probabilities),
        "per_language": {
            language: of(_where(ads, lambda labelled, language=language: labelled.language == language))
            for language in sorted({labelled.language for labelled in ads if labelled.language})
        },
        "per_length": {
            str(least): of(chosen)
            for least, below in zip(LENGTHS, (*LENGTHS[1:], None), strict=True)
            if (chosen := _where(ads, lambda one, least=least, below=below: _is_of_length(one, least, below)))
        },
        "per_spelling": {
            name: of(chosen)
            for name, is_odd in (("usual", False), ("odd", True))
            if (chosen := [i for i, odd in enumerate(_odd_spelling(model, ads)) if odd is is_odd])
        },
        "per_disguise": _per_disguise(ads, probabilities),
        "reliability": reliability(violates, probabilities),
        "decisions": _decisions(model, ads, probabilities),
    }


def _where(ads: Sequence[LabelledAd], chosen: Any) -> list[int]:
    return [index for index, labelled in enumerate(ads) if chosen(labelled)]


def _is_of_length(labelled: LabelledAd, least: int, below: int | None) -> bool:
    characters = len(labelled.ad.name) + len(labelled.ad.description)
    return characters >= least and (below is None or characters < below)


def _odd_spelling(model: Model, ads: Sequence[LabelledAd]) -> list[bool]:
    """Return for each ad whether it spells something so that a filter should not understand it."""
    found = []
    for labelled in ads:
        reading = model.pipeline[0].reader_.read(labelled.ad)
        odd = any(word.odd or word.mixed for word in reading.words)
        found.append(bool(odd or reading.spaced_out or reading.phones.disguised or reading.links.spelled))
    return found


def _per_rule(
    model: Model, ads: Sequence[LabelledAd], probabilities: Probabilities
) -> dict[str, dict[str, Any]]:
    """Measure each rule's violations against all honest ads and its near misses, and the named rules."""
    honest = probabilities[_where(ads, lambda labelled: not labelled.rule)]
    result = {}
    for rule in RULES:
        broken = _where(ads, lambda labelled, rule=rule: labelled.rule == rule)
        near = _where(ads, lambda labelled, rule=rule: labelled.near_miss_of == rule)
        named = _named(model, [ads[index] for index in broken]) if broken else []
        result[rule] = {
            "violations": len(broken),
            "near_misses": len(near),
            "roc_auc": auc_against(honest, probabilities[broken]),
            "roc_auc_against_near_misses": auc_against(probabilities[near], probabilities[broken]),
            "found_at_half": float((probabilities[broken] >= 0.5).mean()) if broken else None,
            "near_misses_passed_at_half": float((probabilities[near] < 0.5).mean()) if near else None,
            "named_right": float(np.mean([name == rule for name in named])) if named else None,
        }
    return result


def _named(model: Model, ads: Sequence[LabelledAd]) -> list[str]:
    features, classifier = model.pipeline[:-1], model.pipeline[-1]
    likely = classifier.rule_probabilities(features.transform([labelled.ad for labelled in ads]))
    return [classifier.rules_[place] for place in likely.argmax(axis=1)]


def _per_disguise(ads: Sequence[LabelledAd], probabilities: Probabilities) -> dict[str, dict[str, Any]]:
    honest = probabilities[_where(ads, lambda labelled: not labelled.rule)]
    result = {}
    for strength in STRENGTHS:
        broken = _where(
            ads, lambda labelled, strength=strength: labelled.rule and labelled.strength == strength
        )
        if broken:
            result[str(strength)] = {
                "violations": len(broken),
                "roc_auc": auc_against(honest, probabilities[broken]),
                "found_at_half": float((probabilities[broken] >= 0.5).mean()),
            }
    return result


def _decisions(model: Model, ads: Sequence[LabelledAd], probabilities: Probabilities) -> dict[str, Any]:
    counts = {
        f"{kind} {what}": 0 for kind in ("violation", "honest") for what in ("approve", "review", "reject")
    }
    for labelled, probability in zip(ads, probabilities.tolist(), strict=True):
        kind = "violation" if labelled.rule else "honest"
        counts[f"{kind} {model.decide(probability, labelled.ad.category)}"] += 1
    return counts
