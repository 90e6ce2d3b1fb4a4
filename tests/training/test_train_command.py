"""``python -m training`` refuses at once, and by name, what it could not do in the end."""

import pytest

from training.__main__ import main as train


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--out", "model.json"], "where the manifest goes"),
        (["--features", "four", "--data", "ads.csv"], "does not learn from --data"),
        (["--ads", "0"], "--ads 0 is too few"),
        (["--ads", "-5", "--features", "four"], "--ads -5 is too few"),
        (["--out", "."], "--out . cannot be written: Is a directory"),
        (["--out", f"{__file__}/model.pkl"], "cannot be written: "),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_training(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(arguments)
    assert complaint in capsys.readouterr().err
