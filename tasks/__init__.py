"""The actor and its worker. ``dramatiq tasks`` runs a worker; plain Python sends messages.

    >>> from tasks import moderate_item
    >>> message = moderate_item.send(1)
    >>> message.get_result(block=True)
    {'is_violation': True, 'probability': 0.99}

Importing connects to nothing: each process opens its connections, and loads its model, at the first use.
"""

# The broker comes first: an actor belongs to the broker that is set when it is declared.
from tasks.wiring import broker  # isort: skip
from tasks.moderation import moderate_item  # isort: skip

__all__ = ["broker", "moderate_item"]
