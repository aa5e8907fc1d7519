"""Documents that are not accepted are kept with their secrets masked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.intake.rejected import redact
from schemas.messages import parse

MOST = 4000

# What comes from upstream, once it is JSON: what parse() hands on.
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_kept_document_has_its_secrets_masked_and_the_rest_readable(
    document: dict[str, Any],
) -> None:
    document["customer"]["vat_number"] = "DE136695976"
    kept = redact(json.dumps(document).encode(), document)
    for secret in ("jane.doe", "example.com", "tok_4242", "DE136695976"):
        assert secret not in kept
    # And the rest can be read.
    read = json.loads(kept)
    assert read["customer"]["email"] == read["payment_method"] == "***"
    assert (read["key"], read["lines"]) == (document["key"], document["lines"])


def test_only_fields_that_are_known_to_be_harmless_are_shown_however_deep() -> None:
    value = {
        "a": [{"b": "tok_1"}],
        "customer": {"id": "c-1", "email": ["x@example.com"], "e-mail": "x@example.com"},
        "lines": [{"plan": "web", "payment_method": {"token": "tok_1"}}],
    }
    assert json.loads(redact(b"", value)) == {
        "a": "***",
        "customer": {"id": "c-1", "email": "***", "e-mail": "***"},
        "lines": [{"plan": "web", "payment_method": "***"}],
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"payment_method": "pm_card_visa_secret"',
        b'{"customer": {"vat_number": "FR 40 303 265 045"}',
        b'"pm_card_visa_secret@example.com"',
        b'["pm_card_visa_secret@example.com"]',
        b'{"e-mail": "secret@example.com"}',
        b'{"Email": "secret@example.com"}',
        b'{"customer": "secret@example.com"}',
        b'{"paymentMethod": "tok_secret"}',
        b"payment_method=tok_secret&email=secret@example.com",
        b"\xff\xfepm_card_visa_secret",
    ],
)
def test_secret_is_masked_wherever_it_stands(body: bytes) -> None:
    kept = redact(body, parse(body)[0])
    assert "secret" not in kept
    assert "303 265" not in kept


def test_kept_command_shows_its_services_and_masks_its_payment_method() -> None:
    value = {
        "command": "payment_method",
        "customer": "c-1",
        "payment_method": "tok_4242",
        "payment_method_expires": "2027-03",
        "services": [{"id": "s-1", "expires_on": "2026-04-02", "note": "tok_4242"}, "s-2"],
        "mode": "manual",
    }
    assert json.loads(redact(b"", value)) == value | {
        "payment_method": "***",
        "payment_method_expires": "***",
        "services": [{"id": "s-1", "expires_on": "2026-04-02", "note": "***"}, "s-2"],
    }


def test_redacting_does_not_change_the_document(document: dict[str, Any]) -> None:
    before = json.dumps(document)
    redact(b"", document)
    assert json.dumps(document) == before


def test_text_that_is_not_json_is_kept_without_addresses_tokens_and_numbers() -> None:
    body = b'{"email": "jane.doe@example.com", "payment_method": "tok_4242", "card": 4242424242424'
    kept = redact(body, None)
    assert f"{len(body)} bytes that are not an order" in kept
    for secret in ("jane", "example.com", "tok_", "4242"):
        assert secret not in kept


def test_text_that_is_not_json_still_shows_its_shape() -> None:
    kept = redact(b'{"key": "k-1", "lines": [{"plan": "web"', None)
    for shown in ("key", "lines", "plan", "{"):
        assert shown in kept


def test_kept_copy_has_a_longest_length() -> None:
    assert len(redact(b"", {"lines": [{"plan": "x" * 100}] * 1000})) == MOST
    assert len(redact(b"\xff" * 100_000, None)) <= MOST


def test_kept_copy_holds_no_character_that_postgresql_refuses() -> None:
    for kept in (redact(b"", {"key": "a\x00b"}), redact(b"a\x00b", None)):
        assert "\x00" not in kept
        assert "\\u0000" not in kept
        assert kept.isascii()


@given(st.binary(max_size=600))
def test_any_bytes_are_kept_as_readable_text(body: bytes) -> None:
    value, _, _ = parse(body)
    kept = redact(body, value)
    assert kept.isascii()
    assert kept.isprintable()
    assert 0 < len(kept) <= MOST


@given(_JSON)
def test_secret_field_is_masked_whatever_json_surrounds_it(value: Any) -> None:
    secret = "pm-secret-4242"
    document = {"before": value, "payment_method": secret, "customer": {"email": secret}}
    assert secret not in redact(b"", document)
