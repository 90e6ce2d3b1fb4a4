"""Answers as HTML or JSON, with the headers that every answer has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined

from ...process import clock
from ...process.strict_json import dumps
from .. import texts
from ..queue_rows import drain_text
from .actions import TOLD
from .charts import HEIGHT, WIDTH, data_of
from .looks import Console, View
from .sections import Section
from .users import Access, User

HERE = Path(__file__).parent
#: No inline script, no inline style, no request to anywhere else, and in no frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Without an origin in its referrer, a form of this site would send the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NAVIGATION = (
    ("overview", "/", "Overview"),
    ("queues", "/queues", "Queues"),
    ("tasks", "/tasks", "Tasks"),
    ("dead-letters", "/dead-letters", "Dead letters"),
    ("actors", "/actors", "Actors"),
    ("workers", "/workers", "Workers"),
    ("schedules", "/schedules", "Schedules"),
    ("audit", "/audit", "Audit"),
    ("health", "/health", "Health"),
)


def _ago(at_ms: int | None) -> str:
    return texts.NONE if at_ms is None else texts.age(max(0.0, (clock.wall_ms() - at_ms) / 1000))


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _clock_time(at_ms: int | None) -> str:
    """The time of the day in UTC, with the date when it is another one."""
    if not at_ms or at_ms < 0:
        return texts.NONE
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    is_today = at.date() == datetime.fromtimestamp(clock.wall_ms() / 1000, UTC).date()
    return at.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")


def _json(value: Any) -> str:
    return dumps(value, indent=2)


def _call(actor: str | None, message: dict[str, Any]) -> str:
    """The call that the message is: ``actor(1, name="x")``."""
    shown = [dumps(one) for one in message["args"]]
    shown += [f"{k}={dumps(v)}" for k, v in message["kwargs"].items()]
    return f"{actor or '?'}({', '.join(shown)})"


def _query(values: dict[str, Any], **others: Any) -> str:
    """The query of a URL, without empty values."""
    merged = {**values, **others}
    return urlencode({name: value for name, value in merged.items() if value not in (None, "")})


def environment(sections: Sequence[Section] = ()) -> Environment:
    """The templates. Everything that they print is escaped, and an unknown name is an error."""
    of_sections = {section.name: FileSystemLoader(section.templates) for section in sections}
    env = Environment(
        loader=ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(of_sections)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        age=texts.age,
        ago=_ago,
        call=_call,
        chart_data=data_of,
        clock_time=_clock_time,
        drain=drain_text,
        iso=_iso,
        line=texts.line,
        moment=texts.moment,
        number=texts.number,
        pretty=_json,
        query=_query,
        rate=texts.rate,
        short=texts.short,
        size=texts.size,
    )
    navigation = [*NAVIGATION, *((one.name, one.href, one.title) for one in sections)]
    env.globals.update(navigation=navigation, chart_width=WIDTH, chart_height=HEIGHT, plural=texts.plural)
    return env


class Renderer:
    """Makes pages of views."""

    def __init__(self, console: Console, sections: Sequence[Section] = ()) -> None:
        self._console = console
        self._env = environment(sections)
        self._told = {**TOLD, **{key: text for one in sections for key, text in one.told.items()}}

    def page(self, view: View, *, user: User, url: str) -> str:
        """A page with its frame.

        Parameters:
          url: The path and query of the request, which the page loads again when there is something new.
        """
        template = self._env.get_template(view.template)
        return template.render(view.document, **self._frame(view.section, view.title, user, url))

    def log_in(self, *, error: str, to: str, has_passwords: bool) -> str:
        """The page that asks for a name and a password."""
        return self._env.get_template("log_in.html").render(
            error=error, to=to, has_passwords=has_passwords, title="Log in", console=self._console
        )

    def refusal(self, *, status: int, reason: str, user: User | None, url: str) -> str:
        """The page of an error."""
        template = self._env.get_template("refused.html")
        return template.render(status=status, reason=reason, **self._frame("", f"{status}", user, url))

    def _frame(self, section: str, title: str, user: User | None, url: str) -> dict[str, Any]:
        can_change = user is not None and not self._console.is_read_only
        return {
            "console": self._console,
            "condition": self._console.collector.condition,
            "now_ms": clock.wall_ms(),
            "section": section,
            "title": title,
            "user": user,
            "url": url,
            "told": self._told.get(parse_qs(urlsplit(url).query).get("told", [""])[0]),
            "dead_count": sum(row["dead"] for row in self._console.store.get("queues", [])),
            "can_operate": can_change and user is not None and user.has(Access.OPERATE),
            "can_administer": can_change and user is not None and user.has(Access.ADMINISTER),
        }


def document_of(view: View, console: Console) -> str:
    """The JSON of a view, with the age of what it tells."""
    condition = console.collector.condition
    return dumps(
        {
            "v": 1,
            "page": view.section,
            "read_ms": condition.read_ms,
            "failing_since_ms": condition.failing_since_ms,
            **view.document,
        }
    )
