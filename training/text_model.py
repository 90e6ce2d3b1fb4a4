"""Fits the model that reads ads, and calibrates it on ads of authors and templates that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.pipeline import Pipeline

from scoring.classifier import Mixture, RuleClassifier, mixed
from scoring.features import OPINION, AdFeatures
from scoring.rules import FINE, RULES
from training.generator import LabelledAd
from training.labelled_csv import UNKNOWN_RULE
from training.metrics import figures
from training.people import with_variants

DEFAULT_ADS = 4_000
STRENGTH = 1.0  # inverse of the regularisation; see EVALUATION.md for what others gave
_FOLDS = 2
_LIKELY = 0.5  # a rule at least so probable is taken for the one that an ad breaks
# Where the search begins, and whither few calibration ads leave it: what is usual.
_USUAL = Mixture(evidence=0.4, opinion=1.0, offset=0.0, topic=1.0, topic_offset=0.0)
_PULL = 0.01  # how much a parameter that is 1 away from the usual costs, in loss of an ad
_BOUNDS = ((0.05, 3.0), (0.0, 3.0), (-5.0, 5.0), (0.05, 3.0), (-5.0, 5.0))
_LEAST = 1e-9  # keeps logarithms finite

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A pipeline, and the calibration ads' share of violations and ROC AUC when they were left out.

    Both are None when no ads could be left out, or only ads of one kind.
    """

    pipeline: Pipeline
    violation_share: float | None = None
    held_out_roc_auc: float | None = None


def fit_text_model(
    ads: Sequence[LabelledAd],
    *,
    weights: Sequence[float] | None = None,
    calibrate_on: Sequence[bool] | None = None,
) -> Fitted:
    """Fit the pipeline on labelled ads.

    ``weights`` says how much each ad counts; ``calibrate_on`` which ads calibrate (default: all). The
    calibration comes from ads left out by author and family, the final weights from all of them.
    """
    weight = np.ones(len(ads)) if weights is None else np.asarray(weights, dtype=float)
    ads = _with_likely_rules(ads, weight)
    chosen = np.ones(len(ads), dtype=bool) if calibrate_on is None else np.asarray(calibrate_on)
    held_out = held_out_parts(ads, weight, chosen)
    pipeline = _fit(ads, weight)
    if held_out is None:
        return Fitted(pipeline)
    parts, violates = held_out
    mixture = least_loss(parts, violates)
    pipeline[-1].set_params(mixture=mixture)
    share = float(violates.mean())
    if not 0 < share < 1:
        return Fitted(pipeline)
    return Fitted(pipeline, share, figures(violates.tolist(), mixed(parts, mixture))["roc_auc"])


def _fit(ads: Sequence[LabelledAd], weight: Numbers) -> Pipeline:
    labelled_ads, weights = with_variants(ads, weight.tolist())
    features, classifier = AdFeatures(), RuleClassifier(STRENGTH)
    labels = [labelled.rule or FINE for labelled in labelled_ads]
    rows = features.fit_transform(
        [labelled.ad for labelled in labelled_ads],
        labels,
        [labelled.family for labelled in labelled_ads],
        np.asarray(weights),
        [bool(labelled.near_miss_of) for labelled in labelled_ads],
    )
    columns = {rule: features.columns_of(rule) for rule in RULES}
    opinion = features.feature_names().index(OPINION) if features.wording_ else None
    classifier.fit(
        rows, labels, sample_weight=weights, columns=columns, signs=features.signs(), opinion=opinion
    )
    return Pipeline([("features", features), ("rules", classifier)])


def _with_likely_rules(ads: Sequence[LabelledAd], weight: Numbers) -> Sequence[LabelledAd]:
    """Give violations whose rule nobody wrote down the one that a model of the other ads finds in them.

    Otherwise each of them would teach that rule that such an ad does not break it. A violation of no known
    rule stays in a class of its own.
    """
    unknown = [place for place, labelled in enumerate(ads) if labelled.rule == UNKNOWN_RULE]
    known = [place for place, labelled in enumerate(ads) if labelled.rule != UNKNOWN_RULE]
    if not unknown or len({bool(ads[place].rule) for place in known}) < 2:
        return ads
    pipeline = _fit([ads[place] for place in known], weight[known])
    rows = pipeline[0].transform([ads[place].ad for place in unknown])
    probabilities = pipeline[-1].rule_probabilities(rows)
    likely = list(ads)
    for place, of_rules in zip(unknown, probabilities, strict=True):
        if of_rules.max() >= _LIKELY:
            likely[place] = replace(ads[place], rule=pipeline[-1].rules_[int(of_rules.argmax())])
    return likely


def held_out_parts(
    ads: Sequence[LabelledAd], weight: Numbers, chosen: npt.NDArray[np.bool_]
) -> tuple[Numbers, npt.NDArray[np.bool_]] | None:
    """Return the parts of `Mixture` and the labels of chosen ads, each from a model without its author.

    Ads of groups that are not chosen are in every model. None when the ads are too few to leave some out.
    """
    groups = sorted({_group(labelled) for labelled, is_chosen in zip(ads, chosen, strict=True) if is_chosen})
    if len(groups) < _FOLDS:
        return None
    fold_of = {group: number % _FOLDS for number, group in enumerate(groups)}
    folds = np.array([fold_of.get(_group(labelled), _FOLDS) for labelled in ads])
    parts: list[Numbers] = []
    violates: list[npt.NDArray[np.bool_]] = []
    for fold in range(_FOLDS):
        outside = np.flatnonzero(folds != fold).tolist()
        inside = np.flatnonzero((folds == fold) & chosen).tolist()
        if len({bool(ads[i].rule) for i in outside}) < 2:
            return None
        if len(inside):
            pipeline = _fit([ads[i] for i in outside], weight[outside])
            parts.append(pipeline[-1].parts(pipeline[0].transform([ads[i].ad for i in inside])))
            violates.append(np.array([bool(ads[i].rule) for i in inside]))
    return (np.concatenate(parts), np.concatenate(violates)) if parts else None


def _group(labelled: LabelledAd) -> str:
    """Return the group that is left out together: an author with a voice of their own, else a family."""
    return labelled.author if labelled.author.startswith("author_") else labelled.family


def least_loss(parts: Numbers, violates: npt.NDArray[np.bool_]) -> Mixture:
    """Return the mixture under which held-out labels are the least surprising."""
    usual = np.array([_USUAL.evidence, _USUAL.opinion, _USUAL.offset, _USUAL.topic, _USUAL.topic_offset])

    def loss(parameters: Numbers) -> float:
        probability = np.clip(mixed(parts, Mixture(*parameters.tolist())), _LEAST, 1 - _LEAST)
        surprise = -np.log(np.where(violates, probability, 1 - probability)).mean()
        return float(surprise + _PULL * ((parameters - usual) ** 2).sum())

    best = minimize(
        loss, x0=usual, method="Nelder-Mead", bounds=_BOUNDS, options={"xatol": 1e-3, "fatol": 1e-6}
    )
    return Mixture(*(round(float(value), 6) for value in best.x))
