"""An earlier version beside this one: ``python -m bench.versions 77f0854d noop send-16``.

Each round runs ``python -m bench`` once in a directory with the files of the earlier commit and once here,
with the packages of this environment, so that the other load of the machine affects both alike. The output
is, for each number of each row, the median of both and the median of the ratios of the rounds. Only this
broker is measured. The exit code is 1 when a run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.command import say
from bench.rows import ROWS
from dev.earlier_version import VersionMissing, extract_version
from dev.stack import ROOT

EARLIER, NOW = "earlier", "now"
CONTESTANT = "kafka"
#: Figures by row and metric, one for each round.
Figures = dict[tuple[str, str], list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.versions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("commit", help="the earlier version")
    parser.add_argument("rows", nargs="+", metavar="ROW", help="rows of `python -m bench` that both have")
    parser.add_argument("--rounds", type=int, default=5, help="5 by default")
    given = parser.parse_args()
    if unknown := set(given.rows) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    home = Path(tempfile.mkdtemp(prefix="bench-versions-"))
    try:
        extract_version(given.commit, home / EARLIER)
        found: dict[str, Figures] = {EARLIER: {}, NOW: {}}
        for number in range(given.rounds):
            for version, directory in ((EARLIER, home / EARLIER), (NOW, ROOT)):
                kept = home / f"{version}-{number}"
                _run(directory, given.rows, kept)
                _take(json.loads((kept / "results.json").read_text(encoding="utf-8")), found[version])
                say(f"round {number + 1}, {version}: {_shown(found[version])}")
    except VersionMissing as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)} failed:\n{error.stdout}{error.stderr}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    _print(found)
    return 0


def _run(directory: Path, rows: list[str], kept: Path) -> None:
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--keep", str(kept)]
    jars = os.environ.get("DEV_DIR", str(ROOT / ".dev"))
    subprocess.run(
        [*command, *rows, "--only", CONTESTANT],
        cwd=directory,
        env={**os.environ, "DEV_DIR": jars},
        check=True,
        capture_output=True,
        text=True,
    )


def _take(results: dict[str, Any], figures: Figures) -> None:
    for name, row in results["rows"].items():
        for metric, value in row["rounds"][0][CONTESTANT].items():
            figures.setdefault((name, metric), []).append(value)


def _shown(figures: Figures) -> str:
    return ", ".join(f"{row} {metric} {values[-1]:,.2f}" for (row, metric), values in figures.items())


def _print(found: dict[str, Figures]) -> None:
    say("\n| row | earlier, median | now, median | now / earlier, median of the rounds |")
    say("| --- | ---: | ---: | ---: |")
    for key, before in found[EARLIER].items():
        if (now := found[NOW].get(key)) is None:
            continue
        ratios = [later / earlier for earlier, later in zip(before, now, strict=True) if earlier]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        say(
            f"| `{key[0]}`, {key[1]} | {statistics.median(before):,.2f} | {statistics.median(now):,.2f} "
            f"| {ratio} |"
        )


if __name__ == "__main__":
    sys.exit(main())
