"""The entry point: ``dkb``, ``dramatiq-kafka-broker`` and ``python -m broker.console``."""

from __future__ import annotations

import sys
import traceback

from .exits import ExitCode

DEFECT = int(ExitCode.DEFECT)


def main() -> None:
    """Run the command, or say which packages it needs: an entry point exists without its extra, too."""
    try:
        try:
            from .command import app
        except ModuleNotFoundError as e:
            if e.name not in ("typer", "rich"):
                raise
            sys.exit(f"dkb: it needs the package {e.name}: pip install 'dramatiq-kafka-broker[cli]'")
        app(prog_name="dkb")
    except KeyboardInterrupt:
        # In the imports of the command; later ones are its own matter, as they may end a change half done.
        sys.stderr.write("dkb: interrupted\n")
        sys.exit(int(ExitCode.INTERRUPTED))
    except Exception:  # noqa: BLE001 - it is not swallowed: its traceback is printed
        # Python's own exit code, 1, is a finding of the command: an orchestrator would restart a worker.
        traceback.print_exc()
        sys.exit(DEFECT)


if __name__ == "__main__":
    main()
