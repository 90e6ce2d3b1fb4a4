"""Pages that many browsers ask for at once: each is made once for a state of the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

#: Some 60 kB each.
MAX_PAGES = 32


class KeptPages:
    """The last pages. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: OrderedDict[Hashable, tuple[Hashable, str]] = OrderedDict()

    def get(self, key: Hashable, state: Hashable, make: Callable[[], str]) -> str:
        """The page of that key; made when it is not known, or is of another state."""
        with self._lock:
            kept = self._pages.get(key)
        if kept is not None and kept[0] == state:
            return kept[1]
        page = make()
        with self._lock:
            self._pages[key] = (state, page)
            self._pages.move_to_end(key)
            while len(self._pages) > MAX_PAGES:
                self._pages.popitem(last=False)
        return page
