"""Versions of documents, and who is answered where."""

from typing import Any

import pytest

from producers.intake.documents import Document
from producers.intake.replies import Address, address
from schemas.json_bodies import read
from tests.support.given import body, order

STOP = {"command": "stop", "customer": "c", "services": ["4fe769c4-ead1-5229-bb05-0a94e6c3c81e"]}


def codes(document: Any, type_: str | None = None) -> list[str]:
    found = Document.read(body(document), type_=type_)
    assert (found.content is None) == bool(found.problems)
    return [problem.code for problem in found.problems]


@pytest.mark.parametrize(
    ("changes", "type_"),
    [
        ({}, None),
        ({"version": 1}, None),
        ({}, "order.v1"),
        ({"version": 1}, "order.v1"),
        ({}, "order.created"),
        ({}, "com.example.order"),
        ({}, ""),
    ],
)
def test_order_of_version_1_is_read(changes: dict[str, Any], type_: str | None) -> None:
    assert codes(order() | changes, type_) == []


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [], {}, 10**30])
def test_any_other_version_is_unknown(version: Any) -> None:
    assert codes(order() | {"version": version}) == ["version_unknown"]
    assert codes(STOP | {"version": version}) == ["version_unknown"]


@pytest.mark.parametrize("type_", ["order.v2", "orders.v1", "order.v0", "refund.v1"])
def test_type_that_is_not_known_is_an_unknown_version(type_: str) -> None:
    found = Document.read(body(order()), type_=type_)

    assert [problem.code for problem in found.problems] == ["version_unknown"]
    assert not found.is_ours


@pytest.mark.parametrize(
    ("document", "type_"),
    [(order(), "customer.v1"), (STOP, "order.v1"), (STOP, "agreement.v1")],
)
def test_type_of_another_document_is_a_mismatch(document: Any, type_: str) -> None:
    assert codes(document, type_) == ["type_mismatch"]


def test_version_that_is_new_may_have_any_form() -> None:
    assert codes({"version": 2, "positions": []}) == ["version_unknown"]
    assert codes([1], "order.v2") == ["not_json"]


def test_type_with_line_breaks_says_nothing() -> None:
    assert codes(order(), "order.v2\r\nX: y") == []
    assert codes(order(), "order.v2\n") == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}',
        b'{"a" : 1, "a" : 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": [{"b": 1, "b": ":"}]}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a:": 1, "a:": 2}',
    ],
)
def test_field_that_is_given_twice_is_found(text: bytes) -> None:
    assert [problem.code for problem in read(text)[1]] == ["field_repeated"]


@pytest.mark.parametrize("text", [b'{"a": ":", "b": "::"}', b'{"a:b": 1}', b'{"a": [{"a": {}}]}'])
def test_colons_within_texts_repeat_nothing(text: bytes) -> None:
    assert read(text)[1] == []


DIRECT = "amq.rabbitmq.reply-to.g1h2AA.abc=="


@pytest.mark.parametrize(
    ("upstream", "reply_to"),
    [
        ("upstream-shop", DIRECT),
        (None, DIRECT),
        ("upstream-shop", "reply.upstream-shop.web-1"),
        ("upstream", "reply.upstream.a"),
    ],
)
def test_own_queue_and_direct_reply_are_answered(upstream: str | None, reply_to: str) -> None:
    assert address(upstream, reply_to, "1") == Address(reply_to, "1")


@pytest.mark.parametrize(
    ("upstream", "reply_to", "correlation_id"),
    [
        ("upstream-shop", None, "1"),
        ("upstream-shop", "", "1"),
        ("upstream-shop", "intake", "1"),
        ("upstream-shop", "reply.upstream-shop", "1"),
        ("upstream-shop", "reply.upstream-shop.a\n", "1"),
        ("upstream-shop", "reply.upstream-shop.a b", "1"),
        ("upstream-shop", "reply.upstream.a", "1"),
        ("upstream", "reply.upstream-shop.a", "1"),
        ("upstream.*", "reply.upstream-shop.a", "1"),
        (None, "reply.None.a", "1"),
        ("upstream-shop", f"{DIRECT}\r\n", "1"),
        ("upstream-shop", "amq.rabbitmq.reply-to", "1"),
        ("upstream-shop", DIRECT, None),
        ("upstream-shop", DIRECT, ""),
        ("upstream-shop", DIRECT, "a\r\nb"),
        ("upstream-shop", DIRECT, "x" * 256),
        ("upstream-shop", DIRECT, b"bytes"),
    ],
)
def test_everything_else_is_not_answered(
    upstream: str | None, reply_to: str | None, correlation_id: Any
) -> None:
    assert address(upstream, reply_to, correlation_id) is None
