"""``python -m training.evaluate`` on ads of one's own."""

import json
from pathlib import Path

import pytest

from training.evaluate import main as evaluate

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_users_own_ads_are_measured_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    held_out = ROOT / "training/people/author_3.csv"
    arguments = ["--model", str(ROOT / "model.pkl"), "--data", str(held_out), "--out", str(tmp_path)]
    assert evaluate(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["overall"]["ads"] == sum(figures["decisions"].values())
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_refused_is_not_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert evaluate(["--model", str(tmp_path / "none.pkl")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err
