"""A limit on the total size of the bodies that are held at the same time."""


class TooManyBodies(Exception):
    """The bodies of other requests use up the budget."""


class BodyBudget:
    """The number of bytes that bodies may still take. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Take bytes until :meth:`give_back`.

        Raises:
          TooManyBodies: There are fewer bytes left. None is taken.
        """
        if count > self._left:
            raise TooManyBodies
        self._left -= count

    def give_back(self, count: int) -> None:
        self._left += count
