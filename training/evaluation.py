"""Measures a model on ads that it was not made of; `training.report` puts the figures into words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scoring.model import Model
from scoring.rules import RULES
from training.generator import LabelledAd
from training.metrics import Probabilities, auc_against, figures, reliability
from training.obfuscate import STRENGTHS


def evaluate(model: Model, ads: Sequence[LabelledAd]) -> dict[str, Any]:
    """Return every figure of one set: overall, per rule, language and disguise, decisions and their cost."""
    probabilities = model.pipeline.predict_proba([labelled.ad for labelled in ads])[:, 1]
    violates = [bool(labelled.rule) for labelled in ads]
    return {
        "overall": figures(violates, probabilities),
        "per_rule": _per_rule(model, ads, probabilities),
        "per_language": {
            language: figures([violates[i] for i in chosen], probabilities[chosen])
            for language in sorted({labelled.language for labelled in ads if labelled.language})
            for chosen in [_where(ads, lambda labelled, language=language: labelled.language == language)]
        },
        "per_disguise": _per_disguise(ads, probabilities),
        "reliability": reliability(violates, probabilities),
        "decisions": _decisions(model, ads, probabilities),
    }


def _where(ads: Sequence[LabelledAd], chosen: Any) -> list[int]:
    return [index for index, labelled in enumerate(ads) if chosen(labelled)]


def _per_rule(
    model: Model, ads: Sequence[LabelledAd], probabilities: Probabilities
) -> dict[str, dict[str, Any]]:
    """Measure each rule's violations against all honest ads and its near misses; was the rule named right?"""
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
