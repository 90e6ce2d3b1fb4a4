"""The operators' commands of the service: ``python -m submissions --help``."""

import sys


def main() -> None:
    """Run the command, or say which packages it needs."""
    try:
        from submissions.console.command import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"submissions: it needs the package {error.name}: see requirements-service.txt")
    app(prog_name="submissions")


if __name__ == "__main__":
    main()
