"""A limit on the bodies of all requests together: each may be small enough, and all of them too much."""


class TooManyBodies(Exception):
    """The bodies of other requests take all the memory that there is for bodies."""


class BodyBudget:
    """Bytes of bodies that are held at the same time. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Take bytes, to be given back.

        Raises:
          TooManyBodies: when so many are not left; none is taken then.
        """
        if count > self._left:
            raise TooManyBodies
        self._left -= count

    def give_back(self, count: int) -> None:
        self._left += count
