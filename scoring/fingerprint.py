"""What the numbers of a text model mean depends on this code and its knowledge; a model is pinned to both."""

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
_MODULES = (
    "classifier",
    "evidence",
    "features",
    "knowledge",
    "links",
    "normalise",
    "numerals",
    "phones",
    "reading",
    "repetition",
    "spacing",
    "topics",
    "words",
)


def features_sha256() -> str:
    """Return a hash of the modules that make a model's features and of the knowledge they read.

    Line ends do not count, so that a checkout on another system has the same hash.
    """
    digest = hashlib.sha256()
    files = [_HERE / f"{name}.py" for name in _MODULES] + sorted((_HERE / "knowledge").glob("*.txt"))
    for path in files:
        digest.update(path.name.encode() + b"\n")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()
