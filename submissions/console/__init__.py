"""The operators' commands of the service, in the style of the broker's: show, redrive, requeue, stats.

Only these modules import typer. The tables, documents and exit codes are those of ``broker.console``.
"""
