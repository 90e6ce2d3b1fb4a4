"""The figures of an evaluation are what their names promise; what is committed belongs together."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics import WITH_INTERVALS, auc_against, figures, intervals, reliability, weighted_figures
from training.reliability import reliability_svg
from training.report import EACH_AUC, GENERATED_GOALS, GOALS

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


def test_intervals_contain_the_figure_and_narrow_with_more_ads() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(400) < 0.5).tolist()
    probabilities = np.clip(np.array(truth) * 0.3 + rng.random(400) * 0.7, 0, 1)
    few, many = (intervals(truth[:count], probabilities[:count])["roc_auc"] for count in (60, 400))
    assert many[0] <= figures(truth, probabilities)["roc_auc"] <= many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_a_draw_of_every_ad_once_has_the_figures_of_the_ads() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(200) < 0.4
    probabilities = np.round(truth * 0.3 + rng.random(200) * 0.7, 2).astype(np.float64)  # with ties
    whole = figures(truth.tolist(), probabilities)
    drawn = dict(
        zip(WITH_INTERVALS, weighted_figures(truth, probabilities, np.ones(200, dtype=np.int64)), strict=True)
    )
    assert drawn == pytest.approx({name: whole[name] for name in WITH_INTERVALS})


def test_ads_of_one_kind_have_no_intervals() -> None:
    assert intervals([True, True], np.array([0.5, 0.6])) == {}


def test_the_committed_evaluation_is_of_the_committed_model_and_reached_the_targets() -> None:
    version = json.loads((ROOT / "model.json").read_text(encoding="utf-8"))["version"]
    evaluation = json.loads((ROOT / "training/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["version"] == version, "run `make evaluate`"
    for name in ("EVALUATION.md", "EVALUATION.ru.md"):
        assert version in (ROOT / "training" / name).read_text(encoding="utf-8"), "run `make evaluate`"
    measure, generated = evaluation["sets"].values()
    assert measure["overall"]["roc_auc"] >= GOALS["roc_auc"]
    assert generated["overall"]["roc_auc"] >= GENERATED_GOALS["roc_auc"]
    assert generated["overall"]["recall_at_99_precision"] >= GENERATED_GOALS["recall_at_99_precision"]
    assert generated["overall"]["brier"] <= GENERATED_GOALS["brier"]
    for part in (*generated["per_rule"].values(), *generated["per_language"].values()):
        assert part["roc_auc"] >= EACH_AUC
