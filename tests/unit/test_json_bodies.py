"""What is refused before a document is looked at: too much of it, and what is ambiguous."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.imports.rows import NdjsonRows
from schemas.json_bodies import (
    MAX_FIELDS,
    MAX_PROBLEMS,
    MAX_VALUES,
    Problem,
    at_most,
    read,
    summary,
    unambiguous,
)
from schemas.messages import parse

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def found(body: bytes) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in read(body)[1]]


@given(st.dictionaries(st.text(), _JSON, max_size=5))
def test_object_without_ambiguity_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert read(json.dumps(value).encode()) == (value, [])


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"key": "a", "key": "b"}', ["key"]),
        (b'{"lines": [{"quantity": 1}, {"quantity": 1, "quantity": 999}]}', ["lines.1.quantity"]),
        (b'{"customer": {"id": "a", "id": "a"}}', ["customer.id"]),
        (b'{"a": 1, "b": 2, "a": 3, "b": 4, "a": 5}', ["a", "b"]),
        (b'{"\\u0061": 1, "a": 2}', ["a"]),
        (b'{"lines": [[{"x": 1, "x": 1}]]}', ["lines.0.0.x"]),
    ],
)
def test_field_that_is_given_twice_is_refused_with_its_path(body: bytes, paths: list[str]) -> None:
    assert found(body) == [("field_repeated", path) for path in paths]


def test_same_name_in_different_objects_is_no_repetition() -> None:
    assert found(b'{"id": 1, "customer": {"id": 2}, "lines": [{"id": 3}, {"id": 4}]}') == []


def test_key_that_is_given_twice_is_nobodys_key() -> None:
    value, _ = read(b'{"key": "a", "other": 1, "key": "b"}')

    assert value == {"other": 1}


def test_thousands_of_repeated_fields_are_counted_and_not_listed() -> None:
    body = b"{" + b",".join(b'"f%d":1,"f%d":2' % (n, n) for n in range(100)) + b"}"

    problems = read(body)[1]

    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].code == "more_problems"
    assert problems[-1].message == "50 more problems are not listed"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({f"field-{n:020}": 1 for n in range(MAX_FIELDS + 1)}, ""),
        (
            {"lines": [{"configuration": {f"o{n:020}": "" for n in range(500)}}]},
            "lines.0.configuration",
        ),
        ({"lines": [1] * (MAX_VALUES + 1)}, ""),
        ({"lines": [{"a": [1] * 99} for _ in range(101)]}, ""),
    ],
)
def test_document_with_too_many_values_is_refused_before_its_fields_are_looked_at(
    value: dict[str, Any], path: str
) -> None:
    body = json.dumps({"key": "k-1"} | value).encode()

    assert read(body)[0] is None
    assert found(body) == [("too_many_fields", path)]


def test_largest_order_is_not_too_much(document: dict[str, Any]) -> None:
    (line,) = document["lines"][:1]
    options = {f"option-{n}": "v" for n in range(50)}
    document["lines"] = [line | {"configuration": options}] * 100
    document["contracts"] = [{"contract": "web", "version": 1}] * 100

    _, order, problems = parse(json.dumps(document).encode())

    assert problems == []
    assert order is not None


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%x":1' % n for n in range(29_600))[:262_000].rpartition(b",")[0] + b"}",
        b'{"lines":[' + b",".join([b'{"a":1,"b":1,"c":1,"d":1,"e":1}'] * 1600) + b"]}",
        b"{" + b",".join([b'"a":1'] * 40_000) + b"}",
    ],
    ids=["unknown fields", "unknown fields of lines", "one field"],
)
def test_large_document_that_makes_no_sense_costs_little(body: bytes) -> None:
    """0.6 to 0.9 s, and a megabyte of problems, while every unknown field was looked at."""
    started = time.process_time()

    problems = parse(body)[2]

    assert time.process_time() - started < 0.2
    assert 0 < len(problems) <= MAX_PROBLEMS + 1
    assert len(json.dumps([problem.model_dump() for problem in problems])) < 20_000


def test_problems_up_to_the_most_are_all_listed() -> None:
    listed = [Problem(code="c", path=str(n), message="") for n in range(MAX_PROBLEMS)]

    assert at_most(listed) == listed
    assert at_most(listed, 50 + 7)[-1].message == "7 more problems are not listed"


def test_problems_of_an_order_are_listed_up_to_the_most_and_counted(
    document: dict[str, Any],
) -> None:
    document |= {f"unknown-{n}": 1 for n in range(80)}

    problems = parse(json.dumps(document).encode())[2]

    assert [problem.code for problem in problems[:50]] == ["field_unknown"] * 50
    assert [problem.message for problem in problems[50:]] == ["30 more problems are not listed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "a": 2}', "a is given more than once"),
        ('{"lines": [], "city": "x", "city": "y"}', "city is given more than once"),
        (b"{", "EOF"),
    ],
)
def test_row_or_option_that_is_ambiguous_is_no_json_for_us(text: bytes | str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unambiguous(text)
    assert unambiguous('{"a": {"b": 1}, "b": [1]}') == {"a": {"b": 1}, "b": [1]}


def test_row_of_an_import_that_gives_a_field_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="period is given more than once"):
        NdjsonRows().fields(b'{"plan": "site", "period": "P1M", "period": "P1Y"}')


def test_summary_names_the_field_and_how_many_problems_there_are_beside_it() -> None:
    missing = Problem(code="field_missing", path="customer", message="is needed")
    whole = Problem(code="not_json", path="", message="not a JSON object")
    assert summary([missing]) == "customer: is needed"
    assert summary([missing, whole]) == "customer: is needed (1 more in `problems`)"
    assert summary([whole]) == "not a JSON object"
