"""The first model is reproducible and learned the rules that are written for it."""

from pathlib import Path

from scoring import Ad, load_model
from training.__main__ import main as train


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train(["--features", "four", "--ads", "500", "--seed", seed, "--out", str(tmp_path / f"{name}.pkl")])
    first = (tmp_path / "a.pkl").read_bytes()
    assert (tmp_path / "b.pkl").read_bytes() == first
    assert (tmp_path / "c.pkl").read_bytes() != first


def test_an_unverified_seller_without_pictures_is_more_suspect_than_a_verified_one_with_them(
    tmp_path: Path,
) -> None:
    train(["--features", "four", "--ads", "2000", "--out", str(tmp_path / "model.pkl")])
    suspect = Ad(1, 1, False, "n", "short", category=10, images_qty=0)
    plain = Ad(2, 2, True, "n", "d" * 300, category=10, images_qty=8)
    model = load_model(tmp_path / "model.pkl")
    verdicts = model.score([suspect, plain])
    assert verdicts[0].probability > verdicts[1].probability
    assert [verdict.is_violation for verdict in verdicts] == [True, False]


def test_no_ads_get_no_verdicts(tmp_path: Path) -> None:
    train(["--features", "four", "--ads", "500", "--out", str(tmp_path / "model.pkl")])
    assert load_model(tmp_path / "model.pkl").score([]) == []
