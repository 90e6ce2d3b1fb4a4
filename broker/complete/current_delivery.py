"""The delivery that a worker thread is finishing. Messages that the thread enqueues meanwhile join it."""

from __future__ import annotations

import threading

from dramatiq.broker import MessageProxy

from ..deliveries.delivery import Delivery


class CurrentDelivery(threading.local):
    """Thread-local. ``with current_delivery.of(message):`` sets the delivery that is being finished.

    Attributes:
      delivery: The delivery that this thread is finishing, or None.
      failure: Why a message that follows from it was lost; None when none was.
    """

    delivery: Delivery | None = None
    failure: BaseException | None = None

    def of(self, message: MessageProxy) -> CurrentDelivery:
        """Messages join only a delivery of this broker, and no other message."""
        self.delivery, self.failure = message if isinstance(message, Delivery) else None, None
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *exc: object) -> None:
        self.delivery = self.failure = None
