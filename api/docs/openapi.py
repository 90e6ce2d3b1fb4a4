"""The OpenAPI document, made of the operations that also make the routes."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from api.http.parameters import Parameter
from api.http.problems import CONTENT_TYPE, RETRY_AFTER_S
from api.routes import OPERATIONS
from api.routes.operation import OF_KEYS, Answer, Operation
from api.schemas.base import component_name
from api.schemas.problem import ProblemBody
from submissions.callers import SCOPES

VERSION = "1.0.0"
_KEY = "apiKey"
_SECONDS = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
_CHALLENGE = {"description": "as in RFC 6750", "schema": {"type": "string"}}
_LIMITS = {
    name: {"description": "as in draft-ietf-httpapi-ratelimit-headers-11", "schema": {"type": "string"}}
    for name in ("RateLimit", "RateLimit-Policy")
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": _CHALLENGE},
    403: {"WWW-Authenticate": _CHALLENGE},
    429: {"Retry-After": _SECONDS, **_LIMITS},
    503: {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "const": RETRY_AFTER_S}}},
}
_SCHEMA_PATH = "#/components/schemas/{model}"


class _ComponentSchemas(GenerateJsonSchema):
    """Names the component of ``AdBody`` ``Ad``."""

    def normalize_name(self, name: str) -> str:
        return component_name(super().normalize_name(name))


def document(*, needs_keys: bool = False) -> dict[str, Any]:
    """Return the document: OpenAPI 3.1, whose schemas are plain JSON Schema.

    Parameters:
      needs_keys: Whether requests need an API key; otherwise they may have one.
    """
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        described = _operation(operation)
        if operation.scope is not None:
            described["security"] = [{_KEY: [operation.scope]}] + ([] if needs_keys else [{}])
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moderation of classified ads",
            "version": VERSION,
            "description": "Hand an ad in, ask later what became of it. Every error is an RFC 9457 problem.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                _KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of python -m submissions.keys. Its scopes are "
                    f"{', '.join(SCOPES)}; an operation names the one that it needs.",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            str(int(answer.status)): _response(answer)
            for answer in sorted(
                (*operation.answers, *(OF_KEYS if operation.scope else ())), key=lambda one: one.status
            )
        },
    }
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    return described


def _parameter(parameter: Parameter[Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _response(answer: Answer) -> dict[str, Any]:
    references = [_reference(body) for body in answer.bodies]
    schema = references[0] if len(references) == 1 else {"oneOf": references}
    media_type = CONTENT_TYPE if answer.bodies == (ProblemBody,) else "application/json"
    response: dict[str, Any] = {
        "description": answer.description,
        "content": {media_type: {"schema": schema}},
    }
    if headers := _HEADERS.get(answer.status):
        response["headers"] = headers
    return response


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMA_PATH.format(model=component_name(model.__name__))}


def _schemas() -> dict[str, Any]:
    models = {
        model
        for operation in OPERATIONS
        for model in (operation.body, *(body for answer in operation.answers for body in answer.bodies))
        if model
    }
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "serialization") for model in ordered],
        ref_template=_SCHEMA_PATH,
        schema_generator=_ComponentSchemas,
    )
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas
