"""The entry point: ``dkb``, ``dramatiq-kafka-broker`` and ``python -m broker.console``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say which packages it needs: an entry point exists without its extra, too."""
    try:
        from .command import app
    except ModuleNotFoundError as e:
        if e.name not in ("typer", "rich"):
            raise
        sys.exit(f"dkb: it needs the package {e.name}: pip install 'dramatiq-kafka-broker[cli]'")
    app(prog_name="dkb")


if __name__ == "__main__":
    main()
