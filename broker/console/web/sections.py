"""Pages that an application adds to its console: in the same frame, behind the same guard, in the same audit.

An application imports what its pages need from here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from .actions import carry_out as carry_out
from .actions import reason_of as reason_of
from .looks import Look as Look
from .looks import NotFound as NotFound
from .looks import Redirect as Redirect
from .looks import Route as Route
from .looks import Unreachable as Unreachable
from .looks import Unusable as Unusable
from .looks import View as View
from .users import Access as Access


class SectionRefused(Exception):
    """The pages of an application cannot be added. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the navigation with its pages.

    Attributes:
      name: What ``View.section`` names. Its templates are ``name/file.html``.
      title: The text of the entry.
      href: The path of the entry's page. All routes are at or below it.
      routes: The pages and changes. Each names its right; a change needs that of operators at least.
      templates: The directory of the templates. They extend ``page.html``, as the console's do.
      told: The sentences after a change, by the value of ``told`` in the URL of a redirect.
    """

    name: str
    title: str
    href: str
    routes: Sequence[Route]
    templates: Path
    told: Mapping[str, str] = field(default_factory=dict)


def check(sections: Sequence[Section], *, taken: Collection[str]) -> None:
    """Raise SectionRefused when a section has a path of the console, of another section, or none of its own.

    Parameters:
      taken: The first parts of the console's paths.
    """
    seen = set(taken)
    for section in sections:
        place = section.href.strip("/")
        if section.href != f"/{place}" or not place or "/" in place:
            raise SectionRefused(f"The path {section.href!r} is not of the form '/name'.")
        if place in seen:
            raise SectionRefused(f"The path {section.href!r} is taken by other pages of the console.")
        seen.add(place)
        for route in section.routes:
            if route.path != section.href and not route.path.startswith(f"{section.href}/"):
                raise SectionRefused(f"The path {route.path!r} is not below {section.href!r}.")


def section_of(name: str) -> Section:
    """The section that ``module:variable`` names.

    Raises:
      SectionRefused: When the module or the variable does not exist, or is no section.
    """
    module_name, _, variable = name.partition(":")
    sys.path.insert(0, "")
    try:
        # A module that prints when it is imported must not get into the answer.
        with redirect_stdout(sys.stderr):
            found = getattr(importlib.import_module(module_name), variable)
    except (ImportError, AttributeError, ValueError) as e:
        raise SectionRefused(f"The pages {name!r} cannot be imported as 'module:variable': {e}") from e
    if not isinstance(found, Section):
        raise SectionRefused(f"{name!r} is a {type(found).__name__}, and no Section.")
    return found
