"""Loads model.pkl. Nothing is unpickled before its hash and its scikit-learn are those of the manifest."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import joblib
import sklearn

from scoring.ad import Thresholds
from scoring.fingerprint import features_sha256
from scoring.model import Model

RETRAIN = "Run `make train` to make a model for this environment."


class ModelRefused(RuntimeError):
    """The model file will not be used; the text says why and how to make one that will."""


def manifest_path(model_path: str | Path) -> Path:
    """Return the path of a model's manifest: next to the model, with the suffix ``.json``."""
    return Path(model_path).with_suffix(".json")


def load_model(path: str | Path, *, violation_share: float | None = None) -> Model:
    """Load the model at ``path``, checked against the manifest next to it.

    ``violation_share``, above 0 and below 1, is the share of violations among the ads of the site. Without
    it, probabilities are those of the ads that the model was calibrated on, of which nearly half violate.

    Raises
    ------
    ModelRefused
        The model or its manifest is missing, unreadable, or they do not belong together; or the model was
        made with another scikit-learn.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    content = _read(path, "model")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != manifest["sha256"]:
        raise ModelRefused(
            f"{path} has SHA-256 {sha256}, but {manifest_path(path).name} pins {manifest['sha256']}: "
            f"the file was changed or belongs to another manifest. {RETRAIN}"
        )
    if manifest["scikit_learn"] != sklearn.__version__:
        raise ModelRefused(
            f"{path} was made with scikit-learn {manifest['scikit_learn']}, this is {sklearn.__version__}: "
            f"install the version in requirements.txt, or retrain. {RETRAIN}"
        )
    if manifest.get("features_sha256", features_sha256()) != features_sha256():
        raise ModelRefused(
            f"{path} was made by other feature code than scoring/ has now: its numbers would mean something "
            f"else. {RETRAIN}"
        )
    return Model(
        _unpickle(path, content),
        version=manifest["version"],
        threshold=float(manifest["threshold"]),
        thresholds=_thresholds(path, manifest.get("thresholds", {})),
        trained_share=_trained_share(path, manifest),
        violation_share=violation_share,
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"the {what} {path} cannot be read ({error.strerror}). {RETRAIN}") from error


def _read_manifest(model_path: Path) -> dict[str, Any]:
    path = manifest_path(model_path)
    if path == model_path:
        raise ModelRefused(f"{model_path} is a manifest, not a model: MODEL_PATH names the .pkl file.")
    try:
        manifest = json.loads(_read(path, "model's manifest"))
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"the model's manifest {path} is not JSON ({error}). {RETRAIN}") from error
    expected: dict[str, type | tuple[type, ...]] = {
        "sha256": str,
        "scikit_learn": str,
        "version": str,
        "threshold": (int, float),
    }
    for key, kind in expected.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise ModelRefused(f"the model's manifest {path} lacks a usable {key!r}. {RETRAIN}")
    if not 0 <= manifest["threshold"] <= 1:  # which NaN is not either
        raise ModelRefused(
            f"the model's manifest {path} has the threshold {manifest['threshold']}, "
            f"not one from 0 to 1. {RETRAIN}"
        )
    return manifest


def _trained_share(path: Path, manifest: dict[str, Any]) -> float | None:
    share = manifest.get("calibration", {}).get("violation_share")
    if share is None:
        return None
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ModelRefused(
            f"the model's manifest {manifest_path(path)} has the violation_share {share}, "
            f"not one between 0 and 1. {RETRAIN}"
        )
    return float(share)


def _thresholds(path: Path, written: Any) -> dict[int | None, Thresholds]:
    """Read ``{"usual": [approve_below, reject_from], "12": [...]}``."""
    try:
        thresholds = {
            None if category == "usual" else int(category): Thresholds(float(approve), float(reject))
            for category, (approve, reject) in written.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelRefused(
            f"the thresholds in {manifest_path(path)} are no pairs ({error}). {RETRAIN}"
        ) from error
    for category, pair in thresholds.items():
        if not 0 <= pair.approve_below <= pair.reject_from <= 1:
            raise ModelRefused(
                f"{manifest_path(path)}: thresholds of {category or 'usual'} out of order. {RETRAIN}"
            )
    return thresholds


def _unpickle(path: Path, content: bytes) -> Any:
    try:
        pipeline = joblib.load(io.BytesIO(content))
    except Exception as error:  # unpickling runs whatever the file names, so it can raise anything
        raise ModelRefused(
            f"{path} cannot be unpickled ({type(error).__name__}: {error}). {RETRAIN}"
        ) from error
    if not callable(getattr(pipeline, "predict_proba", None)):
        raise ModelRefused(f"{path} holds a {type(pipeline).__name__} without predict_proba. {RETRAIN}")
    return pipeline
