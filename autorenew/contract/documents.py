"""JSON Schemas of what goes over AMQP. They are as strict as they can be: what they allow may still
be refused, with a code, since they cannot say what is sold or whether a country exists."""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas import messages
from schemas.messages import KINDS, VERSIONS
from schemas.replies import REPLY_TYPE, Reply

DRAFT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]

TITLES: Mapping[str, str] = {
    "order": "An order, for a customer of upstream",
    "service-command": "What a customer wants done with existing services",
    "agreement": "A customer has accepted contracts",
    "payment-method": "A customer has another payment method",
    "customer": "Something about a customer has changed",
}


def schemas_of(models: Iterable[type[BaseModel]], where: str, mode: Any = "validation") -> Json:
    """Name -> schema, of models and of all that they consist of.

    Args:
        where: they are to be found, such as ``#/$defs/``.
    """
    found = models_json_schema(
        [(model, mode) for model in models], ref_template=f"{where}{{model}}"
    )[1]["$defs"]
    described = _descriptions()
    for name, schema in found.items():
        for field, said in described.get(name, {}).items():
            if "description" not in (property_ := schema.get("properties", {}).get(field, {})):
                property_["description"] = said
    return {name: _plain(schema) for name, schema in sorted(found.items())}


def message_schema(kind: str, where: str) -> Json:
    """The schema of one kind of document; the models are at ``where``."""
    references = [{"$ref": f"{where}{model.__name__}"} for model in KINDS[kind]]
    return references[0] if len(references) == 1 else {"oneOf": references}


def _file(name: str, title: str, models: Iterable[type[BaseModel]], mode: str) -> Json:
    schemas = schemas_of(models, "#/$defs/", mode)
    references = [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
    whole = references[0] if len(references) == 1 else {"oneOf": references}
    return {
        "$schema": DRAFT,
        "$id": f"urn:autorenew:{name}",
        "title": title,
        **whole,
        "$defs": schemas,
    }


SCHEMAS: Mapping[str, Callable[[], Json]] = {
    f"{kind}.v{version}": partial(
        _file, f"{kind}.v{version}", TITLES[kind], KINDS[kind], "validation"
    )
    for kind in KINDS
    for version in VERSIONS
} | {
    REPLY_TYPE: partial(_file, REPLY_TYPE, "The outcome of one document", [Reply], "serialization")
}


def _plain(schema: Any, *, names: bool = False) -> Any:
    """Without pydantic's titles, and without defaults that say no more than that it may be left
    out.

    Args:
        names: the keys are those of somebody, such as fields, and no words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema.replace("``", "`") if isinstance(schema, str) else schema
    if not names and schema.get("discriminator"):
        schema = {key: value for key, value in schema.items() if key != "discriminator"}
    left_out = () if names else ("title",)
    return {
        key: _plain(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if key not in left_out and not (not names and key == "default" and value in (None, "", {}))
    }


@cache
def _descriptions() -> dict[str, dict[str, str]]:
    """Class -> field -> the docstring below it, in the module of the messages and of replies."""
    found: dict[str, dict[str, str]] = {}
    for module in (messages, inspect.getmodule(Reply)):
        assert module is not None
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                own = dict(_fields(node))
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                inherited = [found.get(base, {}) for base in bases]
                found[node.name] = {k: v for base in inherited for k, v in base.items()} | own
    return found


def _fields(node: ast.ClassDef) -> Iterable[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield field.target.id, inspect.cleandoc(below.value.value)
