"""The worker takes no task before it has its model, and none at all when the model is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.child import ChildDied
from dev.stack import ROOT
from tests.service import Worker

StartWorker = Callable[..., Worker]


@pytest.fixture
def model_path(server_home: Callable[[], Path]) -> Path:
    """A copy of the model and its manifest, to be spoilt."""
    home = server_home()
    for name in ("model.pkl", "model.json"):
        shutil.copy(ROOT / name, home / name)
    return home / "model.pkl"


def change_a_byte(model_path: Path) -> None:
    content = bytearray(model_path.read_bytes())
    content[len(content) // 2] ^= 1
    model_path.write_bytes(content)


def claim_another_scikit_learn(model_path: Path) -> None:
    manifest = model_path.with_suffix(".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "scikit_learn": "0.0.1"}))


def remove_the_manifest(model_path: Path) -> None:
    model_path.with_suffix(".json").unlink()


def remove_the_model(model_path: Path) -> None:
    model_path.unlink()


@pytest.mark.parametrize(
    "spoil", [change_a_byte, claim_another_scikit_learn, remove_the_manifest, remove_the_model]
)
def test_a_worker_whose_model_is_refused_ends_and_says_how_to_retrain(
    start_worker: StartWorker, model_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(model_path)
    with pytest.raises(ChildDied) as died:
        start_worker(MODEL_PATH=str(model_path))
    assert "The worker does not start" in str(died.value)
    assert "make train" in str(died.value)
    assert "Traceback" not in str(died.value)
    assert "exit code 0" not in str(died.value)


def test_a_worker_says_which_model_it_loaded(worker: Worker) -> None:
    version = json.loads((ROOT / "model.json").read_text())["version"]
    assert f"Model {version} is loaded" in worker.child.tail(100_000)
