"""The HTTP API, in JSON. It knows nothing of Kafka.

``create_app`` makes the Sanic application; ``python main.py`` serves it.
"""

from api.app import create_app

__all__ = ["create_app"]
