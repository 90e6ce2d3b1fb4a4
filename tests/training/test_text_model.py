"""A small model: the same every time, and able to learn from people's own ads."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from scoring import Ad, load_model
from training.__main__ import main as train
from training.evaluation import evaluate
from training.generator import generate
from training.labelled_csv import REQUIRED

ROOT = Path(__file__).parents[2]
SMALL = ["--ads", "400", "--seed", "5", "--no-people"]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "model.pkl"
    assert train([*SMALL, "--out", str(path)]) == 0
    return path


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_hashes(
    small_model: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.pkl"
    subprocess.run(
        [sys.executable, "-m", "training", *SMALL, "--out", str(again)],
        cwd=ROOT,
        # Of the same environment: OPENBLAS_CORETYPE, for example, changes the last bits of sums.
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
        timeout=150,
        capture_output=True,
    )
    # Digests: pytest would compare two differing models line by line, for minutes.
    assert sha256(again.read_bytes()).digest() == sha256(small_model.read_bytes()).digest()


def test_even_a_small_model_tells_most_violations_from_fine_ads(small_model: Path) -> None:
    figures = evaluate(load_model(small_model), generate(400, seed=9, split="test"))
    assert figures["overall"]["roc_auc"] > 0.9
    assert set(figures["per_language"]) == {"ru", "en"}


@pytest.mark.slow
def test_a_word_that_only_peoples_own_ads_forbid_is_learned(tmp_path: Path) -> None:
    plain = [labelled.ad for labelled in generate(60, seed=8) if not labelled.rule]
    path = tmp_path / "ads.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(REQUIRED)
        for ad in plain:
            rows.writerow([ad.name, ad.description, ad.category, ad.images_qty, ad.is_verified_seller, 0])
            text = f"{ad.description} продаю фрумбли оптом"
            rows.writerow([ad.name, text, ad.category, ad.images_qty, ad.is_verified_seller, 1])
    out = tmp_path / "model.pkl"
    assert train([*SMALL, "--data", str(path), "--out", str(out)]) == 0
    ad = Ad(1, 1, True, "Полка", "Новая, белая", category=5, images_qty=3)
    fine, forbidden = load_model(out).score([ad, replace(ad, description="Новая, продаю фрумбли оптом")])
    assert forbidden.probability > max(0.5, fine.probability)


@pytest.mark.slow
def test_violations_whose_rule_nobody_wrote_down_do_not_unlearn_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "ads.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(REQUIRED)
        for labelled in generate(600, seed=8):
            ad = labelled.ad
            if labelled.rule in ("", "contacts"):
                row = [ad.name, ad.description, ad.category, ad.images_qty, ad.is_verified_seller]
                rows.writerow([*row, int(bool(labelled.rule))])
    out = tmp_path / "model.pkl"
    assert train([*SMALL, "--data", str(path), "--out", str(out)]) == 0
    ad = Ad(1, 1, False, "Диван", "Звоните 8 916 000-12-34", category=5, images_qty=1)
    assert load_model(out).explain(ad).rule == "contacts"


def test_a_model_can_be_made_of_two_ads_alone(tmp_path: Path) -> None:
    path = tmp_path / "ads.csv"
    path.write_text(",".join(REQUIRED) + "\nSofa,soft,5,3,1,0\nSofa,call 212 555 0187,5,3,0,1\n")
    out = tmp_path / "model.pkl"
    assert train(["--data", str(path), "--only-data", "--out", str(out)]) == 0
    assert load_model(out).version.startswith("text-2+")


def test_learning_from_nothing_but_ones_own_ads_needs_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--only-data", "--out", str(tmp_path / "model.pkl")]) == 2
    assert "--only-data needs --data" in capsys.readouterr().err
