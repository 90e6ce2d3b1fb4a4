"""A model is used only when it is the very file that its manifest pins, made with this scikit-learn."""

import hashlib
import json
from pathlib import Path

import joblib
import pytest

from scoring import ModelRefused, load_model
from training.__main__ import main as train


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    assert train(["--features", "four", "--ads", "500", "--out", str(path)]) == 0
    return path


def edit_manifest(model_path: Path, **changes: object) -> None:
    manifest_path = model_path.with_suffix(".json")
    manifest = json.loads(manifest_path.read_text()) | changes
    manifest_path.write_text(json.dumps(manifest))


def test_a_trained_model_loads_with_the_version_of_its_manifest(model_path: Path) -> None:
    manifest = json.loads(model_path.with_suffix(".json").read_text())
    assert load_model(model_path).version == manifest["version"]
    assert load_model(str(model_path)).version == manifest["version"]


def test_a_model_with_one_changed_byte_is_refused_and_says_how_to_retrain(model_path: Path) -> None:
    content = bytearray(model_path.read_bytes())
    content[-1] ^= 1
    model_path.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"SHA-256.*make train"):
        load_model(model_path)


def test_a_model_of_another_scikit_learn_is_refused_before_it_is_unpickled(model_path: Path) -> None:
    edit_manifest(model_path, scikit_learn="0.24.2")
    with pytest.raises(ModelRefused, match=r"made with scikit-learn 0\.24\.2.*make train"):
        load_model(model_path)


def test_a_missing_model_is_refused_by_name(model_path: Path) -> None:
    model_path.unlink()
    with pytest.raises(ModelRefused, match=r"model\.pkl cannot be read.*make train"):
        load_model(model_path)


def test_a_model_without_its_manifest_is_refused(model_path: Path) -> None:
    model_path.with_suffix(".json").unlink()
    with pytest.raises(ModelRefused, match=r"model\.json cannot be read.*make train"):
        load_model(model_path)


@pytest.mark.parametrize("threshold", [-0.1, 5, float("nan")])
def test_a_threshold_that_no_probability_or_any_reaches_is_refused(
    model_path: Path, threshold: float
) -> None:
    edit_manifest(model_path, threshold=threshold)
    with pytest.raises(ModelRefused, match="not one from 0 to 1"):
        load_model(model_path)


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"sha256": 5}', "[" * 10**5], ids=len)
def test_a_manifest_that_pins_nothing_is_refused(model_path: Path, text: str) -> None:
    model_path.with_suffix(".json").write_text(text)
    with pytest.raises(ModelRefused, match="manifest"):
        load_model(model_path)


def test_the_manifest_itself_is_not_taken_for_a_model(model_path: Path) -> None:
    with pytest.raises(ModelRefused, match="MODEL_PATH"):
        load_model(model_path.with_suffix(".json"))


def test_a_pickle_of_something_else_is_refused_though_its_hash_is_right(model_path: Path) -> None:
    joblib.dump({"not": "a model"}, model_path)
    pin(model_path)
    with pytest.raises(ModelRefused, match="predict_proba"):
        load_model(model_path)


def test_a_file_that_is_no_pickle_is_refused_though_its_hash_is_right(model_path: Path) -> None:
    model_path.write_bytes(b"<html>not found</html>")
    pin(model_path)
    with pytest.raises(ModelRefused, match="cannot be unpickled"):
        load_model(model_path)


def test_a_model_of_other_feature_code_is_refused(model_path: Path) -> None:
    edit_manifest(model_path, features_sha256="0" * 64)
    with pytest.raises(ModelRefused, match=r"other feature code.*make train"):
        load_model(model_path)


@pytest.mark.parametrize(
    ("thresholds", "complaint"),
    [
        ([0.1, 0.9], "no pairs"),
        ({"usual": [0.1]}, "no pairs"),
        ({"cars": [0.1, 0.9]}, "no pairs"),
        ({"usual": [0.9, 0.1]}, "usual out of order"),
        ({"12": [0.1, 1.5]}, "12 out of order"),
        ({"usual": [float("nan"), 0.5]}, "usual out of order"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(
    model_path: Path, thresholds: object, complaint: str
) -> None:
    edit_manifest(model_path, thresholds=thresholds)
    with pytest.raises(ModelRefused, match=complaint):
        load_model(model_path)


@pytest.mark.parametrize("share", [0, 1, -0.5, "half"])
def test_a_share_of_violations_that_no_set_of_ads_has_is_refused(model_path: Path, share: object) -> None:
    edit_manifest(model_path, calibration={"violation_share": share})
    with pytest.raises(ModelRefused, match="violation_share"):
        load_model(model_path)


def pin(model_path: Path) -> None:
    edit_manifest(model_path, sha256=hashlib.sha256(model_path.read_bytes()).hexdigest())
