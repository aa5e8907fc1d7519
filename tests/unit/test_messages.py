import copy
import json
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import (
    MAX_BODY_BYTES,
    AcceptCommand,
    ModeCommand,
    OrderDocument,
    PaymentMethodCommand,
    Problem,
    RenewCommand,
    ResumeCommand,
    StopCommand,
    last_day,
    parse,
)

# A document with everything in it.
WHOLE: dict[str, Any] = {
    "key": "order-1",
    "customer": {
        "id": "c-1",
        "subsidiary": "FR",
        "country": "DE",
        "language": "de",
        "email": "jane.doe@example.com",
        "vat_number": "DE136695976",
    },
    "payment_method": "tok_4242",
    "contracts": [{"contract": "web", "version": 3}],
    "lines": [
        {"plan": "web", "period": "P1M", "quantity": 2, "configuration": {"domain": "example.com"}}
    ],
}

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


EXPIRES = "payment_method_expires_invalid", "payment_method_expires"

SERVICE = "6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"
SEEN = {"id": SERVICE, "expires_on": "2026-04-02"}
TERMS = {"contract": "terms", "version": 2}

# What each command takes, beside its name and the customer.
COMMANDS: dict[str, tuple[type, dict[str, Any]]] = {
    "stop": (StopCommand, {"services": [SERVICE]}),
    "resume": (ResumeCommand, {"services": [SERVICE]}),
    "mode": (ModeCommand, {"services": [SERVICE], "mode": "manual"}),
    "renew": (RenewCommand, {"services": [SEEN], "contracts": [TERMS]}),
    "accept": (AcceptCommand, {"contracts": [TERMS]}),
    "payment_method": (
        PaymentMethodCommand,
        {"payment_method": "tok_1", "payment_method_expires": "2027-03", "services": [SERVICE]},
    ),
}


def command(name: str, **changes: Any) -> dict[str, Any]:
    """A command with all its fields; None removes one."""
    document = {"command": name, "customer": "c-1", **COMMANDS[name][1], **changes}
    return {field: value for field, value in document.items() if value is not None}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def changed(**fields: Any) -> bytes:
    """The whole document with fields set; ``a__b`` is a field of a field, None removes it."""
    document: Any = copy.deepcopy(WHOLE)
    for path, value in fields.items():
        *parents, name = path.split("__")
        place = document
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        if value is None:
            del place[name]
        else:
            place[name] = value
    return encoded(document)


def problems(body: bytes) -> list[tuple[str, str]]:
    _, order, found = parse(body)
    assert (order is None) == bool(found)
    return [(problem.code, problem.path) for problem in found]


def test_valid_document_is_an_order() -> None:
    value, order, found = parse(encoded(WHOLE))
    assert found == []
    assert value == WHOLE
    assert isinstance(order, OrderDocument)
    assert order.customer.vat_number == "DE136695976"
    assert order.lines[0].configuration == {"domain": "example.com"}


def test_optional_fields_have_defaults() -> None:
    _, order, _ = parse(
        changed(
            contracts=None,
            customer__vat_number=None,
            payment_method=None,
            lines__0__quantity=None,
            lines__0__configuration=None,
        )
    )
    assert isinstance(order, OrderDocument)
    assert (order.contracts, order.customer.vat_number) == ([], None)
    # The customer's saved one.
    assert (order.payment_method, order.payment_method_expires) == (None, None)
    assert (order.lines[0].quantity, order.lines[0].configuration) == (1, {})


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"key": None}, "key_invalid", "key"),
        ({"key": ""}, "key_invalid", "key"),
        ({"key": "k" * 101}, "key_invalid", "key"),
        ({"key": "a\nb"}, "key_invalid", "key"),
        ({"key": "a\x00"}, "key_invalid", "key"),
        ({"key": 5}, "key_invalid", "key"),
        ({"customer": None}, "field_missing", "customer"),
        ({"customer": []}, "field_invalid", "customer"),
        ({"customer__id": None}, "field_missing", "customer.id"),
        ({"customer__email": None}, "email_invalid", "customer.email"),
        ({"customer__email": "jane"}, "email_invalid", "customer.email"),
        ({"customer__email": "jane@"}, "email_invalid", "customer.email"),
        ({"customer__email": "jane@example"}, "email_invalid", "customer.email"),
        ({"customer__email": "ja ne@example.com"}, "email_invalid", "customer.email"),
        ({"customer__email": "a@b@example.com"}, "email_invalid", "customer.email"),
        ({"customer__email": "jane@example.com\n"}, "email_invalid", "customer.email"),
        ({"customer__email": "j" * 65 + "@example.com"}, "email_invalid", "customer.email"),
        ({"customer__email": "j@" + "e" * 254 + ".com"}, "email_invalid", "customer.email"),
        ({"customer__country": "Germany"}, "country_invalid", "customer.country"),
        ({"customer__country": "de"}, "country_invalid", "customer.country"),
        ({"customer__country": "DE\n"}, "country_invalid", "customer.country"),
        ({"customer__subsidiary": "Fr"}, "subsidiary_unknown", "customer.subsidiary"),
        ({"customer__language": "German"}, "language_invalid", "customer.language"),
        ({"customer__vat_number": "'; --"}, "vat_number_invalid", "customer.vat_number"),
        ({"customer__phone": "1"}, "field_unknown", "customer.phone"),
        ({"payment_method": ""}, "payment_method_missing", "payment_method"),
        ({"payment_method": []}, "payment_method_missing", "payment_method"),
        ({"payment_method": "a\nb"}, "payment_method_missing", "payment_method"),
        ({"payment_method_expires": 202703}, *EXPIRES),
        ({"payment_method_expires": "03/2027"}, *EXPIRES),
        ({"payment_method_expires": "2027-13"}, *EXPIRES),
        ({"payment_method_expires": "2027-00"}, *EXPIRES),
        ({"payment_method_expires": "2027-3"}, *EXPIRES),
        ({"payment_method_expires": "2027-03-01"}, *EXPIRES),
        ({"payment_method_expires": "1999-12"}, *EXPIRES),
        ({"payment_method_expires": "2027-03\n"}, *EXPIRES),
        ({"payment_method_expires": "202٢-03"}, *EXPIRES),
        ({"lines__0__payment_method": "t"}, "field_unknown", "lines.0.payment_method"),
        ({"contracts": {}}, "field_invalid", "contracts"),
        ({"contracts__0__version": "3"}, "field_invalid", "contracts.0.version"),
        ({"contracts__0__version": 0}, "field_invalid", "contracts.0.version"),
        ({"lines": None}, "field_missing", "lines"),
        ({"lines": []}, "field_invalid", "lines"),
        ({"lines": WHOLE["lines"] * 101}, "field_invalid", "lines"),
        ({"lines__0__plan": None}, "field_missing", "lines.0.plan"),
        ({"lines__0__period": None}, "period_invalid", "lines.0.period"),
        ({"lines__0__period": "1 month"}, "period_invalid", "lines.0.period"),
        ({"lines__0__period": "P0M"}, "period_invalid", "lines.0.period"),
        ({"lines__0__period": "P1٢M"}, "period_invalid", "lines.0.period"),
        ({"lines__0__quantity": 0}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"lines__0__quantity": 1001}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"lines__0__quantity": 10**400}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"lines__0__quantity": 1.0}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"lines__0__quantity": True}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"lines__0__configuration__domain": 5}, "field_invalid", "lines.0.configuration.domain"),
        ({"lines__0__configuration": []}, "field_invalid", "lines.0.configuration"),
        ({"lines__0__price": 1}, "field_unknown", "lines.0.price"),
        ({"state": "paid"}, "field_unknown", "state"),
        # A code is that of its field, not of one that has the same name, or the same path.
        (
            {"lines__0__configuration__quantity": 5},
            "field_invalid",
            "lines.0.configuration.quantity",
        ),
        ({"lines__0__configuration__period": 5}, "field_invalid", "lines.0.configuration.period"),
        ({"customer__quantity": 5}, "field_unknown", "customer.quantity"),
        ({"customer__period": 5}, "field_unknown", "customer.period"),
        ({"customer__key": "k"}, "field_unknown", "customer.key"),
        ({"quantity": 5}, "field_unknown", "quantity"),
        ({"customer.email": "jane"}, "field_unknown", "customer.email"),
        ({"lines.quantity": 5}, "field_unknown", "lines.quantity"),
    ],
)
def test_a_problem_has_a_stable_code_and_the_path_of_its_field(
    change: dict[str, Any], code: str, path: str
) -> None:
    assert problems(changed(**change)) == [(code, path)]


def test_all_problems_are_reported_at_once() -> None:
    body = changed(
        key=None, customer__email="jane", customer__country="x", payment_method="", extra=1
    )
    assert sorted(problems(body)) == [
        ("country_invalid", "customer.country"),
        ("email_invalid", "customer.email"),
        ("field_unknown", "extra"),
        ("key_invalid", "key"),
        ("payment_method_missing", "payment_method"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"nonsense", b"\xff\xfe", b'{"key": "\xff"}', b'{"key": "\\ud800"}',
        b'{"key": NaN}', b'{"key": Infinity}', b"{'key': 1}", b'{"key": 1}{}', b"[" * 100_000,
        b'{"a":' * 1000, b'{"key": ' + b"9" * 5000 + b"}", b"<order/>", b"\x00", b"\x1f\x8b\x08",
        b"null", b"[]", b"5", b'"order"', b"true",
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_body_that_is_not_a_json_object_is_reported(body: bytes) -> None:
    assert problems(body) == [("not_json", "")]


def test_a_body_that_is_too_large_is_not_even_read() -> None:
    largest = encoded(WHOLE).ljust(MAX_BODY_BYTES)
    assert problems(largest) == []
    value, order, found = parse(largest + b" ")
    assert (value, order) == (None, None)
    assert [problem.code for problem in found] == ["too_large"]


def test_readable_value_is_returned_with_the_problems() -> None:
    value, order, found = parse(b'{"key": "order-7"}')
    assert value == {"key": "order-7"}
    assert order is None
    assert found


def test_problems_never_repeat_secret_values() -> None:
    # Given secrets in fields that are wrong, each in another way
    body = changed(
        customer__email="jane doe@example.com",
        customer__vat_number="DE136695976!",
        payment_method="tok_4242\n",
        lines__0__configuration={"domain": "tok_4242\n"},
    )
    said = " ".join(str(problem) for problem in parse(body)[2])
    assert said
    for secret in ("jane", "136695976", "tok_4242"):
        assert secret not in said


def well_formed(found: list[Problem]) -> bool:
    return all(
        problem.code.isidentifier()
        and problem.message
        and problem.path.isascii()
        and (problem.path == "" or problem.path.isprintable())
        for problem in found
    )


@given(st.binary(max_size=300))
def test_parse_never_raises_whatever_the_bytes(body: bytes) -> None:
    _, order, found = parse(body)
    assert (order is None) == bool(found)
    assert well_formed(found)


@given(_JSON)
def test_parse_never_raises_whatever_the_json(value: Any) -> None:
    _, order, found = parse(encoded(value))
    assert order is None
    assert well_formed(found)


@given(st.data())
def test_parse_never_raises_whatever_one_field_of_an_order_holds(data: st.DataObject) -> None:
    # Given a good document with one value replaced, or one field added
    document: Any = copy.deepcopy(WHOLE)
    place = document
    while True:
        keys: list[Any] = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        key = data.draw(st.text(max_size=5))
    place[key] = data.draw(_JSON)
    # Then it is an order or it has problems, never both or neither.
    _, order, found = parse(encoded(document))
    assert (order is None) == bool(found)
    assert well_formed(found)


class TestCommands:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_valid_command_is_parsed_as_its_kind(self, name: str) -> None:
        value, found, problems = parse(encoded(command(name)))
        assert problems == []
        assert value == command(name)
        assert type(found) is COMMANDS[name][0]

    @pytest.mark.parametrize(
        ("name", "field"),
        [("renew", "contracts"), ("payment_method", "payment_method_expires"),
         ("payment_method", "services")],
    )  # fmt: skip
    def test_optional_fields_of_a_command_may_be_left_out(self, name: str, field: str) -> None:
        assert problems(encoded(command(name, **{field: None}))) == []

    @pytest.mark.parametrize(
        ("name", "field"),
        [(name, "customer") for name in COMMANDS]
        + [(name, "services") for name in ("stop", "resume", "mode", "renew")]
        + [("mode", "mode"), ("accept", "contracts")],
    )
    def test_required_fields_of_a_command_may_not_be_left_out(self, name: str, field: str) -> None:
        body = encoded(command(name, **{field: None}))
        assert problems(body) == [("field_missing", field)]

    def test_missing_payment_method_has_the_same_code_as_in_an_order(self) -> None:
        body = encoded(command("payment_method", payment_method=None))
        assert problems(body) == [("payment_method_missing", "payment_method")]

    @pytest.mark.parametrize("name", ["", "Stop", "explode", None, 5, ["stop"], {"a": 1}])
    def test_unknown_command_is_reported(self, name: Any) -> None:
        body = encoded({"command": name, "customer": "c-1", "services": [SERVICE]})
        assert [code for code, _ in problems(body)] == ["command_unknown"]
        (problem,) = parse(body)[2]
        assert problem.message.startswith("known commands are stop, resume, ")

    @pytest.mark.parametrize(
        ("name", "change", "code", "path"),
        [
            ("stop", {"services": []}, "field_invalid", "services"),
            ("stop", {"services": [SERVICE] * 1001}, "field_invalid", "services"),
            ("stop", {"services": SERVICE}, "field_invalid", "services"),
            ("stop", {"services": [SERVICE.upper()]}, "field_invalid", "services.0"),
            ("stop", {"services": [SERVICE, "s-1"]}, "field_invalid", "services.1"),
            ("stop", {"services": [f"{SERVICE}\n"]}, "field_invalid", "services.0"),
            ("stop", {"services": [SEEN]}, "field_invalid", "services.0"),
            ("stop", {"customer": ""}, "field_invalid", "customer"),
            ("stop", {"customer": "a\x00"}, "field_invalid", "customer"),
            ("stop", {"customer": {"id": "c-1"}}, "field_invalid", "customer"),
            ("stop", {"mode": "stop"}, "field_unknown", "mode"),
            # A name of a command is also that of a field, or stands within a path.
            ("stop", {"stop": True}, "field_unknown", "stop"),
            ("mode", {"mode": "later"}, "field_invalid", "mode"),
            ("mode", {"mode": "Automatic"}, "field_invalid", "mode"),
            ("mode", {"mode": ""}, "field_invalid", "mode"),
            ("renew", {"services": [SERVICE]}, "field_invalid", "services.0"),
            ("renew", {"services": [{"id": SERVICE}]}, "field_missing", "services.0.expires_on"),
            ("renew", {"services": [SEEN | {"id": "s"}]}, "field_invalid", "services.0.id"),
            ("renew", {"services": [SEEN | {"expires_on": "02/04/2026"}]}, "field_invalid",
             "services.0.expires_on"),
            ("renew", {"services": [SEEN | {"expires_on": "2026-04-02T00:00"}]}, "field_invalid",
             "services.0.expires_on"),
            ("renew", {"services": [SEEN | {"periods": 2}]}, "field_unknown",
             "services.0.periods"),
            ("accept", {"contracts": []}, "field_invalid", "contracts"),
            ("accept", {"contracts": [TERMS | {"version": 0}]}, "field_invalid",
             "contracts.0.version"),
            ("payment_method", {"payment_method": ""}, "payment_method_missing",
             "payment_method"),
            ("payment_method", {"payment_method": 5}, "payment_method_missing", "payment_method"),
            ("payment_method", {"payment_method_expires": "soon"}, *EXPIRES),
            ("payment_method", {"services": []}, "field_invalid", "services"),
        ],
    )  # fmt: skip
    def test_a_problem_has_a_stable_code_and_the_path_of_its_field(
        self, name: str, change: dict[str, Any], code: str, path: str
    ) -> None:
        assert problems(encoded(command(name, **change))) == [(code, path)]

    @pytest.mark.parametrize("field", ["key", "payment_method"])
    def test_field_of_another_command_is_unknown(self, field: str) -> None:
        body = encoded(command("stop", **{field: "x"}))
        assert problems(body) == [("field_unknown", field)]

    def test_problems_never_repeat_secret_values(self) -> None:
        body = encoded(command("payment_method", payment_method="tok_4242\n"))
        said = " ".join(str(problem) for problem in parse(body)[2])
        assert said
        assert "tok_4242" not in said

    def test_document_is_either_a_command_or_an_order(self) -> None:
        found = problems(encoded(WHOLE | {"command": "stop"}))
        assert ("field_missing", "services") in found
        assert ("field_unknown", "contracts") in found

    @given(st.data())
    def test_parse_never_raises_whatever_one_field_of_a_command_holds(
        self, data: st.DataObject
    ) -> None:
        name = data.draw(st.sampled_from(sorted(COMMANDS)))
        document = command(name)
        field = data.draw(st.sampled_from(sorted(document)) | st.text(max_size=5))
        document[field] = data.draw(_JSON)
        _, found, problems = parse(encoded(document))
        assert (found is None) == bool(problems)
        assert well_formed(problems)


@pytest.mark.parametrize(
    ("month", "day"),
    [
        ("2027-01", date(2027, 1, 31)),
        ("2027-02", date(2027, 2, 28)),
        ("2028-02", date(2028, 2, 29)),
        ("2027-04", date(2027, 4, 30)),
        ("2026-12", date(2026, 12, 31)),
        ("2099-12", date(2099, 12, 31)),
    ],
)
def test_last_day_of_a_month(month: str, day: date) -> None:
    assert last_day(month) == day


@given(st.from_regex(r"\A20[0-9]{2}-(0[1-9]|1[0-2])\Z"))
def test_day_after_the_last_day_begins_another_month(month: str) -> None:
    day = last_day(month)
    assert f"{day:%Y-%m}" == month
    assert (day + timedelta(days=1)).day == 1
