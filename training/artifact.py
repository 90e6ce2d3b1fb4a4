"""Writing a model and the manifest that pins it."""

import errno
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import joblib
import sklearn

from scoring.loading import manifest_path


def write_model(pipeline: Any, path: str | Path, *, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write ``pipeline`` to ``path`` and its manifest next to it; return the manifest.

    The version is ``name`` and the first of the file's hash, so two models never share one.
    Each file is replaced whole; between the two a loader refuses the pair, and never takes a half.
    """
    path = Path(path)
    buffer = io.BytesIO()
    joblib.dump(pipeline, buffer, compress=("zlib", 6))
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    whole = {
        "version": f"{name}+{sha256[:8]}",
        "sha256": sha256,
        "scikit_learn": sklearn.__version__,
        "bytes": len(content),
        **manifest,
    }
    _replace(path, content)
    _replace(manifest_path(path), (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode())
    return whole


def try_writing(path: str | Path) -> None:
    """Raise now the OSError that `write_model` would end with at ``path``; leaves a missing folder made."""
    path = Path(path)
    if path.is_dir() or manifest_path(path).is_dir():  # a folder alone has no name for its manifest
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)
