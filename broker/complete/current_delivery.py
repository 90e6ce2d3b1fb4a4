"""What a worker thread finishes at the moment. What it enqueues meanwhile joins that delivery."""

from __future__ import annotations

import threading

from dramatiq.broker import MessageProxy

from ..deliveries.delivery import Delivery


class CurrentDelivery(threading.local):
    """Each thread sees its own. ``with finishing.of(message):`` names what is being finished.

    Attributes:
      delivery: The delivery that is being finished by this thread, or None.
      failure: Why something that follows from it was lost, if it was.
    """

    delivery: Delivery | None = None
    failure: BaseException | None = None

    def of(self, message: MessageProxy) -> CurrentDelivery:
        """Nothing joins a message that is no delivery of this broker."""
        self.delivery, self.failure = message if isinstance(message, Delivery) else None, None
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *exc: object) -> None:
        self.delivery = self.failure = None
