"""A page that shows the API: every operation, what it takes, what it needs.

Drawn from the OpenAPI description by the server, so it brings no script and can
never say another thing than the API does.
"""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from polar_site.api import api

Json = dict[str, Any]


@require_GET
def api_page(request: HttpRequest) -> HttpResponse:
    return render(request, "api.html", {"groups": groups()})


@cache
def groups() -> list[Json]:
    """Shape: [{"tag", "operations": [{"id", "method", "path", "says", "scope", "role",
    "takes"}]}]."""
    schema: Json = dict(api.get_openapi_schema())
    found: dict[str, list[Json]] = {}
    for path, methods in sorted(schema["paths"].items()):
        for method, operation in methods.items():
            entry = {
                "id": operation["operationId"],
                "method": method.upper(),
                "path": path,
                "says": operation.get("description", "").strip(),
                "scope": operation["x-scope"],
                "role": operation.get("x-role", ""),
                "takes": [*_parameters(operation), *_body(schema, operation)],
            }
            found.setdefault(operation.get("tags", ["other"])[0], []).append(entry)
    return [{"tag": tag, "operations": each} for tag, each in sorted(found.items())]


def _parameters(operation: Json) -> list[Json]:
    return [
        {
            "name": each["name"],
            "where": each["in"],
            "type": _type(each.get("schema", {})),
            "required": each.get("required", False),
        }
        for each in operation.get("parameters", [])
    ]


def _body(schema: Json, operation: Json) -> list[Json]:
    content = operation.get("requestBody", {}).get("content", {})
    shape = _resolved(schema, content.get("application/json", {}).get("schema", {}))
    required = shape.get("required", [])
    return [
        {
            "name": name,
            "where": "body",
            "type": _type(facts),
            "required": name in required,
        }
        for name, facts in shape.get("properties", {}).items()
    ]


def _resolved(schema: Json, shape: Json) -> Json:
    name = shape.get("$ref", "").rsplit("/", 1)[-1]
    found: Json = schema["components"]["schemas"].get(name, shape)
    return found


def _type(shape: Json) -> str:
    """Say in a word what a value is."""
    if "$ref" in shape:
        return str(shape["$ref"]).rsplit("/", 1)[-1]
    for several in ("anyOf", "allOf", "oneOf"):
        if several in shape:
            return " or ".join(_type(each) for each in shape[several])
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    return str(shape.get("format") or shape.get("type", "any"))
