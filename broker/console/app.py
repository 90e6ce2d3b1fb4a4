"""The command without its verbs: the common options, and how the target is found among the arguments."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import KafkaBroker
from ..version import VERSION
from .exits import ExitCode
from .output import Output, OutputFailed, prepare_streams
from .session import Session, configure_logging
from .target import Target

#: The options that may stand anywhere, each with whether a value follows.
COMMON = {
    "--app": True,
    "--url": True,
    "--bootstrap": True,
    "--namespace": True,
    "--group": True,
    "--timeout": True,
    "--json": False,
    "--verbose": False,
}

HELP = ("-h", "--help")

EXIT_CODES = (
    "Exit codes: 0 done; 1 a finding, or nothing found; 2 wrong usage; 3 Kafka does not answer; 4 a right is "
    "missing; 5 done in part, or undecided; 6 not confirmed; 70 a fault of the command; 130 interrupted."
)


class VerbGroup(TyperGroup):
    """The group of all verbs.

    ``dkb shop.tasks status`` names an application first, as the command ``dramatiq`` does, and
    ``dkb kafka://host/shop- status`` a URL. The common options may follow the verb.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        verbs = set(self.commands)
        # A shell completes a line that is not whole yet.
        if not ctx.resilient_parsing and (reason := without_verb(args, verbs)) is not None:
            ctx.fail(reason)
        return super().parse_args(ctx, arranged(args, verbs))


def arranged(args: list[str], verbs: set[str]) -> list[str]:
    """The arguments in the order that the parser needs: common options, verb, its arguments."""
    common, others = _apart(args)
    if others and not others[0].startswith("-") and others[0] not in verbs:
        first = others.pop(0)
        common += ["--url" if "://" in first else "--app", first]
    return common + others


def without_verb(args: list[str], verbs: set[str]) -> str | None:
    """Why the arguments name no verb, when their first word may be a misspelt one; else None.

    The parser would take it for the name of an application, and not mention it.
    """
    _, words = _apart(args)
    if not words or words[0] in verbs or not words[0].isidentifier() or (words[1:2] and words[1] in verbs):
        return None
    if set(words) & set(HELP):
        return None
    named = [words[0], *(word for word in words[1:2] if not word.startswith("-"))]
    close = [one for word in named for one in get_close_matches(word, sorted(verbs), n=1, cutoff=0.8)]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if len(named) == 1:
        reason = f"{named[0]!r} is no verb"
    else:
        reason = f"Neither {named[0]!r} nor {named[1]!r} is a verb"
    return f"{reason}.{hint} A verb follows an application: dkb {words[0]} status."


def _apart(args: list[str]) -> tuple[list[str], list[str]]:
    """The common options, and the other arguments."""
    common: list[str] = []
    others: list[str] = []
    remaining = list(args)
    while remaining:
        argument = remaining.pop(0)
        name, equals, _ = argument.partition("=")
        if argument == "--":
            others += [argument, *remaining]
            break
        if name in COMMON:
            common.append(argument)
            if COMMON[name] and not equals and remaining:
                common.append(remaining.pop(0))
        else:
            others.append(argument)
    return common, others


app = typer.Typer(
    name="dkb",
    cls=VerbGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": list(HELP)},
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dramatiq-kafka-broker {VERSION}")
        raise typer.Exit


@app.callback()
def common_options(
    context: typer.Context,
    application: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE[:BROKER]",
            envvar="DKB_APP",
            help="The application; also the first argument.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="kafka://...",
            envvar="DKB_URL",
            help="Servers, login, namespace and options; also the first argument.",
        ),
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", envvar="DKB_BOOTSTRAP", help="Kafka's servers.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(envvar="DKB_NAMESPACE", help="The prefix of the topics.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(envvar="DKB_GROUP", help="The broker's group_id; by default dramatiq.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="The time within which Kafka has to answer first."),
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what the clients do, to stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Shows and controls the queues, workers and messages of a Dramatiq application on Kafka.

    The state is read from Kafka: no worker is asked, so busy, frozen and dead workers are shown, too. These
    options may stand before or after the verb.

    \b
    Examples:
      dkb shop.tasks status
      dkb --bootstrap kafka:9092 --namespace shop- --group shop status --watch
      DKB_URL="kafka://kafka:9092/shop-?group_id=shop" dkb workers --json
    """
    try:
        prepare_streams()
    except OutputFailed as e:
        typer.echo(f"dkb: {e}", err=True)
        raise typer.Exit(ExitCode.USAGE) from e
    given = context.obj if isinstance(context.obj, KafkaBroker) else None
    if given is None:
        configure_logging(verbose=verbose)
    target = _target(
        context,
        {"app": application, "url": url, "bootstrap": bootstrap, "namespace": namespace, "group": group},
    )
    context.obj = Session(target, Output(as_json=as_json), timeout, given)


def _target(context: typer.Context, values: dict[str, str | None]) -> Target:
    """The target. Values of the environment are defaults: a target on the command line replaces them."""
    names = {"app": "application"}
    given = set()
    for name in values:
        source = context.get_parameter_source(names.get(name, name))
        if source is not None and source.name == "COMMANDLINE":
            given.add(name)
    kind = next((kind for kind in ("app", "url", "bootstrap") if kind in given), None)
    kind = kind or next((kind for kind in ("app", "url", "bootstrap") if values[kind] is not None), None)
    ignored = {"app", "url", "bootstrap"} - {kind}
    if kind in ("app", "url"):
        ignored |= {"namespace", "group"}
    used = {name: value for name, value in values.items() if name not in ignored or name in given}
    return Target(
        used.get("app"), used.get("url"), used.get("bootstrap"), used.get("namespace"), used.get("group")
    )
