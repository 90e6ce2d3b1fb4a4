"""The cluster and the application that the command is about."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .. import KafkaBroker


class TargetRefused(Exception):
    """The command line does not name a target. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target as the command line names it: an application, a URL, or servers and names.

    Attributes:
      application: ``module`` or ``module:variable``, as for the command ``dramatiq``.
      url: ``kafka://...``, as for ``KafkaBroker(url=...)``.
      bootstrap, namespace, group: The parameters of ``KafkaBroker``.
    """

    application: str | None = None
    url: str | None = None
    bootstrap: str | None = None
    namespace: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """The application, or the namespace with its servers, without a password."""
        if self.application is not None:
            return self.application
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.hostname or ''}{parts.path}"
        return " ".join(filter(None, (self.namespace, self.bootstrap))) or "dkb"

    @property
    def settings(self) -> set[str]:
        """The parameters of ``KafkaBroker`` that it tells: those that decide how topics are created."""
        if self.url is not None:
            return set(parse_qs(urlsplit(self.url).query))
        return set() if self.bootstrap is not None else {"partitions", "retention_ms"}

    def broker(self) -> KafkaBroker:
        """The broker. Nothing connects yet.

        Raises:
          TargetRefused: When the target is none, or there are two.
        """
        named = {"--bootstrap": self.bootstrap, "--namespace": self.namespace, "--group": self.group}
        given = [name for name, value in named.items() if value is not None]
        if self.application is not None:
            if self.url is not None or given:
                others = ", ".join([*(["a URL"] if self.url else []), *given])
                raise TargetRefused(
                    f"The application {self.application!r} names its Kafka: leave out {others}."
                )
            return _of_application(self.application)
        if self.url is not None:
            if given:
                raise TargetRefused(f"The URL has the whole target: leave out {', '.join(given)}.")
            return _constructed({"url": self.url})
        if self.bootstrap is None:
            raise TargetRefused(
                "Which Kafka? Name an application (dkb shop.tasks status), a URL "
                "(dkb 'kafka://host:9092/shop-?group_id=shop' status) or servers "
                "(dkb --bootstrap host:9092 --namespace shop- --group shop status), or set "
                "DKB_URL or DKB_BOOTSTRAP."
            )
        options = {"namespace": self.namespace, "group_id": self.group}
        return _constructed(
            {
                "bootstrap_servers": self.bootstrap,
                **{name: value for name, value in options.items() if value is not None},
            }
        )


def _constructed(options: Mapping[str, Any]) -> KafkaBroker:
    try:
        return KafkaBroker(**options)
    except ValueError as e:
        raise TargetRefused(str(e)) from e


def _of_application(name: str) -> KafkaBroker:
    module_name, _, path = name.partition(":")
    sys.path.insert(0, "")
    try:
        # An application that prints when it is imported must not get into the answer.
        with redirect_stdout(sys.stderr):
            found: Any = importlib.import_module(module_name)
            for part in filter(None, path.split(".")):
                found = getattr(found, part)
            if callable(found) and path:
                found()
    except (ImportError, AttributeError) as e:
        raise TargetRefused(
            f"{name!r} is neither a verb (see --help) nor an application that can be imported: {e}"
        ) from e
    broker = found if isinstance(found, KafkaBroker) else _global_broker()
    if not isinstance(broker, KafkaBroker):
        raise TargetRefused(f"The broker of {name!r} is a {type(broker).__name__}, and no KafkaBroker.")
    return broker


def _global_broker() -> Any:
    import dramatiq.broker

    return dramatiq.broker.global_broker
