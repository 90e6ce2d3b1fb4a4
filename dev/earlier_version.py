"""Files of an earlier version, from the repository's history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from dev.stack import ROOT


class VersionMissing(LookupError):
    """The history of the repository does not have the version, as in a shallow clone."""


def extract_version(revision: str, directory: Path, *paths: str) -> None:
    """Write files of a commit below ``directory``.

    Parameters:
      paths: Files and directories, relative to the repository; everything without one.

    Raises:
      VersionMissing: When the history has no such commit.
    """
    archive = subprocess.run(["git", "archive", revision, *paths], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise VersionMissing(f"the history of the repository has no {revision} here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
