"""The figures of an evaluation are what their names promise; what is committed belongs together."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics import auc_against, figures, reliability
from training.reliability import reliability_svg

ROOT = Path(__file__).parents[2]


def test_probabilities_that_separate_the_kinds_have_every_figure_perfect() -> None:
    measured = figures([False, False, True, True], np.array([0.0, 0.1, 0.9, 1.0]))
    assert (measured["roc_auc"], measured["average_precision"], measured["recall_at_99_precision"]) == (
        1,
        1,
        1,
    )
    assert measured["brier"] == pytest.approx(0.005)


def test_recall_at_99_precision_is_what_is_found_before_the_first_honest_ad() -> None:
    measured = figures([True, True, False, True], np.array([0.9, 0.8, 0.7, 0.6]))
    assert measured["recall_at_99_precision"] == pytest.approx(2 / 3)


def test_one_kind_alone_has_no_roc_auc() -> None:
    assert figures([True], np.array([0.5]))["roc_auc"] is None
    assert auc_against(np.array([]), np.array([0.5])) is None


def test_the_reliability_picture_shows_each_tenth_that_has_ads() -> None:
    bins = reliability([False, True, True], np.array([0.05, 0.95, 1.0]))
    assert [(item["from"], item["ads"], item["share_of_violations"]) for item in bins] == [
        (0, 1, 0),
        (0.9, 2, 1),
    ]
    assert reliability_svg(bins).count("<circle") == 2


def test_the_committed_evaluation_is_of_the_committed_model_and_reached_the_targets() -> None:
    version = json.loads((ROOT / "model.json").read_text(encoding="utf-8"))["version"]
    evaluation = json.loads((ROOT / "training/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["version"] == version, "run `make evaluate`"
    test_set = next(iter(evaluation["sets"].values()))
    assert test_set["overall"]["roc_auc"] >= 0.97
    assert test_set["overall"]["recall_at_99_precision"] >= 0.85
    assert test_set["overall"]["brier"] <= 0.05
    for part in (*test_set["per_rule"].values(), *test_set["per_language"].values()):
        assert part["roc_auc"] >= 0.93
