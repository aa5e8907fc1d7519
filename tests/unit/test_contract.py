"""The contract over AMQP: its files are fresh, and say what intake says."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from autorenew.catalogues import bundled
from autorenew.contract import FOLDER, files, outdated
from autorenew.contract.__main__ import main
from autorenew.contract.examples import EXAMPLES, REPLIES
from schemas.messages import KINDS, CommandDocument, OrderDocument, command_of, parse
from tests.support.given import body
from tests.support.servers import node_packages

CASES = [(kind, name) for kind, named in EXAMPLES.items() for name in named]
SERVICE = "4fe769c4-ead1-5229-bb05-0a94e6c3c81e"
each_example = pytest.mark.parametrize(("kind", "name"), CASES)


def schema(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.schema.json").read_text())


def asyncapi() -> Any:
    return json.loads((FOLDER / "asyncapi.json").read_text())


def is_valid(kind: str, document: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema(f"{kind}.v1")).is_valid(document))


def test_every_command_is_of_a_kind_and_has_an_example() -> None:
    (commands, _) = get_args(CommandDocument)
    models = {model for kind in KINDS.values() for model in kind}

    assert models == {OrderDocument, *get_args(commands)}
    examples = [example for named in EXAMPLES.values() for example in named.values()]
    shown = {example["command"] for example in examples if "command" in example}
    assert shown == {command_of(model) for model in models} - {None}


def test_files_are_fresh() -> None:
    assert outdated() == []


def test_file_that_is_old_missing_or_too_many_is_named(tmp_path: Path) -> None:
    for name, content in files().items():
        (tmp_path / name).write_text(content)
    assert outdated(tmp_path) == []

    (tmp_path / "order.v1.schema.json").write_text("{}")
    (tmp_path / "order.v0.schema.json").write_text("{}")
    (tmp_path / "asyncapi.json").unlink()

    assert outdated(tmp_path) == ["asyncapi.json", "order.v0.schema.json", "order.v1.schema.json"]


def test_command_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_asyncapi_document_is_one_by_the_specification() -> None:
    specification = node_packages() / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    jsonschema.Draft7Validator(json.loads(specification.read_text())).validate(asyncapi())


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()

    def check(part: Any) -> None:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            if key == "$ref":
                found = document
                for word in value.removeprefix("#/").split("/"):
                    found = found[word]
            elif isinstance(value, dict | list):
                check(value)

    check(document)


@each_example
def test_example_is_valid_and_of_its_kind(kind: str, name: str) -> None:
    document = EXAMPLES[kind][name]

    _, content, problems = parse(body(document), f"{kind}.v1")

    assert problems == []
    assert isinstance(content, KINDS[kind])
    assert is_valid(kind, document)


@pytest.mark.parametrize("name", REPLIES)
def test_reply_of_the_examples_is_valid(name: str) -> None:
    jsonschema.validate(REPLIES[name], schema("reply.v1"))


@each_example
def test_example_is_valid_in_the_asyncapi_document(kind: str, name: str) -> None:
    document = asyncapi()
    message = document["components"]["messages"][f"{kind}.v1"]
    shown = next(example for example in message["examples"] if example["name"] == name)
    whole = {**message["payload"], "components": document["components"]}

    jsonschema.Draft202012Validator(whole).validate(shown["payload"])
    other = shown["payload"] | {"no_such_field": 1}
    assert not jsonschema.Draft202012Validator(whole).is_valid(other)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("order", {"version": 2}),
        ("order", {"key": ""}),
        ("order", {"key": "x" * 101}),
        ("order", {"key": 7}),
        ("order", {"lines": []}),
        ("order", {"payment_method": "two words"}),
        ("order", {"payment_method_expires": "2028-13"}),
        ("order", {"lines": [{"plan": "a", "period": "P1W"}]}),
        ("order", {"lines": [{"plan": "a", "period": "P1M", "quantity": 0}]}),
        ("service-command", {"command": "restart"}),
        ("service-command", {"services": []}),
        ("service-command", {"services": [SERVICE.upper()]}),
        ("customer", {"country": "fr"}),
        ("customer", {"email": None}),
        ("agreement", {"contracts": [{"contract": "web", "version": "3"}]}),
    ],
)
def test_what_the_schema_refuses_intake_refuses(kind: str, change: dict[str, Any]) -> None:
    document = next(iter(EXAMPLES[kind].values())) | change

    assert not is_valid(kind, document)
    assert parse(body(document))[2] != []


def test_every_event_has_a_message() -> None:
    from schemas.events import Kind, type_of

    messages = asyncapi()["components"]["messages"]

    assert {type_of(kind) for kind in Kind} <= messages.keys()


def test_example_order_can_be_sold_from_the_bundled_catalogue() -> None:
    """So that a reader can send it to a fleet that was just started."""
    catalogue = bundled()
    for line in EXAMPLES["order"]["order"]["lines"]:
        assert catalogue.plan(line["plan"]) is not None
