"""The Python client's models of what it reads, made from the OpenAPI document."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from producers.api.app import application

FILE = Path(__file__).parents[2] / "producers/client/models.py"
# What GET answers with -> what a part of it is, where it is a list in parts.
READ = (
    "/v1/orders/{key}",
    "/v1/customers/{id}",
    "/v1/customers/{id}/upcoming",
    "/v1/customers/{id}/invoices",
    "/v1/services",
    "/v1/services/{id}",
    "/v1/services/{id}/quote",
    "/v1/invoices/{number}",
    "/v1/credit-notes/{number}",
    "/v1/catalogue",
    "/v1/forecast",
)
# The client has it already.
ERRORS = ("Problem",)
_HEAD = '''"""What can be read over HTTP, as frozen dataclasses.

Made by ``python -m autorenew.contract`` from the OpenAPI document: do not edit.
Amounts are in the currency's minor unit; ids are texts, as methods of the client take them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from producers.client.errors import Problem

__all__ = [
{names}
]
'''


def source() -> str:
    """The module."""
    document = application().openapi()
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    wanted: dict[str, None] = {}
    for path in READ:
        answer = document["paths"][path]["get"]["responses"]["200"]
        _collect(answer["content"]["application/json"]["schema"], schemas, wanted)
    models = {
        _name(name): schemas[name]
        for name in wanted
        if schemas[name]["type"] == "object" and not name.startswith("Page_")
    }
    names = sorted({*models, *ERRORS})
    head = _HEAD.format(names="\n".join(f'    "{name}",' for name in names))
    ordered = [name for name in models if name not in ERRORS]
    return head + "".join(f"\n\n{_model(name, models[name], schemas)}" for name in ordered)


def _collect(schema: Any, schemas: Mapping[str, Any], wanted: dict[str, None]) -> None:
    """Names of all models below one, those that it has before it."""
    if isinstance(schema, list):
        for one in schema:
            _collect(one, schemas, wanted)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in wanted:
                _collect(schemas[name], schemas, wanted)
                wanted[name] = None
        for key, value in schema.items():
            if key not in ("default", "examples", "example"):
                _collect(value, schemas, wanted)


def _name(name: str) -> str:
    return name.removesuffix("View")


def _model(name: str, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    said = re.sub(r"``", "`", schema.get("description", "").partition("\n\n")[0])
    lines = ["@dataclass(frozen=True, slots=True, kw_only=True)", f"class {name}:"]
    if said:
        lines += _documented(" ".join(said.split()))
    required = set(schema.get("required", ()))
    for field, of in schema["properties"].items():
        kind = _kind(of, schemas)
        if field in required:
            lines.append(f"    {field}: {kind}")
        elif kind.startswith("tuple["):
            lines.append(f"    {field}: {kind} = ()")
        else:
            optional = kind if kind == "Any" or kind.endswith("| None") else f"{kind} | None"
            lines.append(f"    {field}: {optional} = None")
    return "\n".join(lines) + "\n"


def _documented(said: str) -> Iterator[str]:
    if len(said) <= 88:
        yield f'    """{said}"""'
    else:
        first, *more = textwrap.wrap(said, 90)
        yield f'    """{first}'
        yield from (f"    {one}" for one in more)
        yield '    """'
    yield ""


def _kind(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        # Enumerations are texts: a newer release may have more values.
        return _name(name) if schemas[name]["type"] == "object" else "str"
    if "anyOf" in schema:
        kinds = [_kind(one, schemas) for one in schema["anyOf"] if one != {"type": "null"}]
        (kind,) = set(kinds)
        is_optional = {"type": "null"} in schema["anyOf"]
        return f"{kind} | None" if is_optional else kind
    match schema.get("type"), schema.get("format"):
        case "string", "date-time":
            return "datetime"
        case "string", "date":
            return "date"
        case "string", _:
            return "str"
        case "integer", _:
            return "int"
        case "number", _:
            return "float"
        case "boolean", _:
            return "bool"
        case "array", _:
            return f"tuple[{_kind(schema['items'], schemas)}, ...]"
        case "object", _:
            of = schema.get("additionalProperties")
            return f"Mapping[str, {_kind(of, schemas) if isinstance(of, dict) else 'Any'}]"
    return "Any"
