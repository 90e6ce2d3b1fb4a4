"""Dramatiq's dictionary of the declared queues, which also answers how they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .admin.queue_states import QueueState


class DeclaredQueues(dict[str, None]):
    """``broker.queues``: Dramatiq's dictionary of the declared queues, and ``broker.queues()``.

    Dramatiq and its extensions read the dictionary; a method of that name could not stand beside it.

    Attributes:
      read: Reads the state of queues from Kafka.
    """

    read: Callable[[Sequence[str]], list[QueueState]]

    def __call__(self, *names: str) -> list[QueueState]:
        """The state of queues, read from Kafka alone: waiting and incomplete messages, lag, dead letters.

        Any process can call this, and no worker is asked. The first call reads all dead letters, a
        later one those written since.

        Parameters:
          names: The queues, which need not be declared; by default the declared ones.

        Raises:
          QueueNotFound: When a queue is neither declared nor has a topic.
          InvalidQueueName: When there cannot be a queue of that name.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client lacks a right; the text names it.
        """
        return self.read(names or sorted(self))
