"""Rows are held against their statement and their table before anything is sent."""

import uuid
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import Column, Date, MetaData, Numeric, SmallInteger, Table, Text, Uuid

from schemas.errors import DataError
from schemas.tables.bulk import Bulk, insert
from schemas.values import Money, Period, ServiceId

TABLE = Table(
    "things", MetaData(), Column("id", Uuid, primary_key=True), Column("name", Text),
    Column("rate", Numeric(5, 2)), Column("number", SmallInteger), Column("day", Date),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    id: ServiceId
    name: str | None
    number: int


@dataclass(frozen=True, slots=True)
class Priced:
    id: uuid.UUID
    net: Money
    currency: str


PRICE = (
    "UPDATE t SET net = r.net FROM json_to_recordset(CAST(:rows AS json)) AS"
    " r(id uuid, net bigint, currency text) WHERE t.id = r.id"
)


class Sent:
    """Stands for a connection: keeps what it was asked to execute."""

    def execute(self, statement: object, parameters: dict[str, object]) -> None:
        self.parameters = parameters


def test_insert_lists_the_fields_with_the_types_of_the_table() -> None:
    assert "AS r(id uuid, name text, number smallint)" in insert(Thing, TABLE).sql


def test_field_that_is_no_column_of_the_table_is_refused() -> None:
    @dataclass(frozen=True)
    class Misspelt:
        id: uuid.UUID
        nmae: str

    with pytest.raises(TypeError, match="things has no column nmae"):
        insert(Misspelt, TABLE)


def test_field_of_another_type_than_its_column_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong:
        id: uuid.UUID
        day: str

    with pytest.raises(TypeError, match=r"Wrong\.day is a date"):
        insert(Wrong, TABLE)


def test_statement_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(TypeError, match="differ in number"):
        Bulk(Thing, "SELECT 1 FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, name text)")


def test_statement_without_rows_is_refused() -> None:
    with pytest.raises(TypeError, match="reads no rows"):
        Bulk(Thing, "SELECT 1")


def test_rows_are_sent_as_one_json_document() -> None:
    sent, id_ = Sent(), ServiceId(uuid.uuid4())
    insert(Thing, TABLE)(sent, [Thing(id_, None, 3)])  # type: ignore[arg-type]
    assert sent.parameters == {"rows": f'[{{"id":"{id_}","name":null,"number":3}}]'}


def test_amount_is_sent_in_minor_units_beside_its_currency() -> None:
    sent, id_ = Sent(), uuid.uuid4()
    Bulk(Priced, PRICE)(sent, [Priced(id_, Money(4544, "EUR"), "EUR")])  # type: ignore[arg-type]
    assert sent.parameters == {"rows": f'[{{"id":"{id_}","net":4544,"currency":"EUR"}}]'}


def test_amount_beside_another_currency_is_an_error() -> None:
    with pytest.raises(ValueError, match="beside CZK"):
        Bulk(Priced, PRICE)(Sent(), [Priced(uuid.uuid4(), Money(1, "EUR"), "CZK")])  # type: ignore[arg-type]


def test_each_amount_stands_beside_its_own_currency() -> None:
    @dataclass(frozen=True)
    class Told:
        net: Money
        currency: str
        announced: Money | None
        announced_currency: str | None

    told = Bulk(
        Told,
        "SELECT 1 FROM json_to_recordset(CAST(:rows AS json)) AS"
        " r(net bigint, currency text, announced bigint, announced_currency text)",
    )
    sent = Sent()
    told(sent, [Told(Money(1, "EUR"), "EUR", Money(25, "CZK"), "CZK")])  # type: ignore[arg-type]
    assert sent.parameters == {
        "rows": '[{"net":1,"currency":"EUR","announced":25,"announced_currency":"CZK"}]'
    }
    with pytest.raises(ValueError, match=r"Told\.announced: 0\.25 CZK beside EUR"):
        told(sent, [Told(Money(1, "EUR"), "EUR", Money(25, "CZK"), "EUR")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Told\.net: 0\.01 EUR beside CZK"):
        told(sent, [Told(Money(1, "EUR"), "CZK", None, None)])  # type: ignore[arg-type]


def test_amount_without_a_currency_is_refused() -> None:
    @dataclass(frozen=True)
    class Bare:
        net: Money

    with pytest.raises(TypeError, match="no currency"):
        Bulk(Bare, "SELECT 1 FROM json_to_recordset(CAST(:rows AS json)) AS r(net bigint)")


def test_rate_with_digits_is_read_as_one_column() -> None:
    @dataclass(frozen=True)
    class Rated:
        id: uuid.UUID
        rate: Decimal
        day: date

    sent, id_ = Sent(), uuid.uuid4()
    insert(Rated, TABLE)(sent, [Rated(id_, Decimal("20.00"), date(2026, 1, 31))])  # type: ignore[arg-type]
    assert sent.parameters == {"rows": f'[{{"id":"{id_}","rate":"20.00","day":"2026-01-31"}}]'}


def test_lone_surrogate_in_a_text_is_a_data_error() -> None:
    with pytest.raises(DataError):
        insert(Thing, TABLE)(Sent(), [Thing(ServiceId(uuid.uuid4()), "\ud800", 1)])  # type: ignore[arg-type]


def test_class_that_is_not_a_dataclass_is_refused() -> None:
    with pytest.raises(TypeError, match="not a dataclass"):
        Bulk(Period.__mro__[1], PRICE)
