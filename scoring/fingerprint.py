"""The hash that pins a text model to the code and the knowledge that give its numbers their meaning."""

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
_MODULES = (
    "classifier",
    "evidence",
    "evidence_columns",
    "features",
    "knowledge",
    "links",
    "normalise",
    "numerals",
    "phones",
    "reading",
    "repetition",
    "rules",
    "spacing",
    "topics",
    "wording",
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
