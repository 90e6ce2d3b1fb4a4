"""The OpenAPI document, made of the operations that also make the routes."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from api.http.parameters import Parameter
from api.http.problems import CONTENT_TYPE, RETRY_AFTER_S
from api.routes import OPERATIONS
from api.routes.operation import Answer, Operation
from api.schemas.base import component_name
from api.schemas.problem import ProblemBody

VERSION = "1.0.0"
_SCHEMA_PATH = "#/components/schemas/{model}"


class _ComponentSchemas(GenerateJsonSchema):
    """Names the component of ``AdBody`` ``Ad``."""

    def normalize_name(self, name: str) -> str:
        return component_name(super().normalize_name(name))


def document() -> dict[str, Any]:
    """Return the document: OpenAPI 3.1, whose schemas are plain JSON Schema."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Moderation of classified ads",
            "version": VERSION,
            "description": "Hand an ad in, ask later what became of it. Every error is an RFC 9457 problem.",
        },
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(int(answer.status)): _response(answer) for answer in operation.answers},
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
    if answer.status == 503:
        response["headers"] = {
            "Retry-After": {"description": "seconds", "schema": {"type": "integer", "const": RETRY_AFTER_S}}
        }
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
