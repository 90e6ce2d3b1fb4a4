"""The routes: each module holds handlers and the operations that describe them."""

from api.routes import health, items, predicting, results, submitting
from api.routes.operation import Operation

#: Every operation of the API. The routes and the OpenAPI document are made from this tuple.
OPERATIONS: tuple[Operation, ...] = (
    *submitting.OPERATIONS,
    *results.OPERATIONS,
    *predicting.OPERATIONS,
    *items.OPERATIONS,
    *health.OPERATIONS,
)

__all__ = ["OPERATIONS"]
