"""Typed rows in bulk: what a statement is given is a list of dataclasses, sent as one parameter.

A batch travels as one JSON document and is read by ``json_to_recordset`` (decision 0004). The
fields of the dataclass are held against the statement's own column list, or against the table, when
the module is imported: a field that was renamed, forgotten or given another type is an error at
start, and two texts that were swapped are an error of the type checker.
"""

import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Connection, CursorResult, Table, text
from sqlalchemy.dialects.postgresql import dialect

from schemas.errors import DataError
from schemas.values import Money

R = TypeVar("R")

# Type of a field -> the types a column may have for it, as PostgreSQL writes them.
_TYPES: dict[type, tuple[str, ...]] = {
    uuid.UUID: ("uuid",),
    str: ("text",),
    bool: ("boolean",),
    int: ("smallint", "integer", "bigint"),
    float: ("float8", "double precision", "real"),
    Decimal: ("numeric",),
    date: ("date",),
    datetime: ("timestamptz", "timestamp with time zone"),
    dict: ("jsonb", "json"),
    list: ("jsonb", "json", "smallint[]", "integer[]", "uuid[]", "text[]"),
    Money: ("bigint",),
}
_COLUMNS = re.compile(
    r"json_to_recordset\(CAST\(:rows AS json\)\) AS \w+\(((?:[^()]|\([0-9, ]*\))*)\)"
)


class Bulk(Generic[R]):
    """A statement over rows of one type.

    Args:
        row: a dataclass; an optional field is a column that may be NULL.
        sql: reads its rows by ``json_to_recordset(CAST(:rows AS json)) AS r(name type, …)``,
            whose columns are the fields of ``row``, in any order.

    Raises:
        TypeError: the statement and the dataclass do not agree.
    """

    def __init__(self, row: type[R], sql: str) -> None:
        if not is_dataclass(row):
            raise TypeError(f"{row.__name__} is not a dataclass")
        listed = _COLUMNS.search(sql)
        if listed is None:
            raise TypeError(f"the statement of {row.__name__} reads no rows from :rows")
        columns = dict(column.split(None, 1) for column in _split(listed[1]))
        _check(row, columns)
        self.row = row
        self.sql = sql
        self._statement = text(sql)
        self._encode = _encoder(row)

    def __call__(
        self, tx: Connection, rows: Iterable[R], /, **parameters: Any
    ) -> CursorResult[Any]:
        """Execute it for ``rows``; the other parameters are bound by name.

        Raises:
            DataError: ``text_invalid``: a text cannot be written as UTF-8.
            ValueError: an amount stands beside another currency.
        """
        return tx.execute(self._statement, {"rows": self._encode(list(rows)), **parameters})


def insert(row: type[R], table: Table, conflict: str = "", *, order: str = "") -> Bulk[R]:
    """INSERT of rows into ``table``, in the order of its primary key.

    Args:
        conflict: what follows, such as ``ON CONFLICT DO NOTHING``; the table is named ``t`` there.
        order: the columns to insert by, where it is not the primary key.
    """
    names = [field.name for field in fields(row)]  # type: ignore[arg-type]
    unknown = [name for name in names if name not in table.c]
    if unknown:
        raise TypeError(f"{row.__name__}: {table.name} has no column {', '.join(unknown)}")
    compiler = dialect()  # type: ignore[no-untyped-call]
    columns = ", ".join(f"{name} {table.c[name].type.compile(dialect=compiler)}" for name in names)
    listed = ", ".join(names)
    by = order or ", ".join(column.name for column in table.primary_key if column.name in names)
    return Bulk(
        row,
        f"INSERT INTO {table.name} AS t ({listed})\n"
        f"SELECT {listed} FROM json_to_recordset(CAST(:rows AS json)) AS r({columns.lower()})\n"
        f"{f'ORDER BY {by}' if by else ''} {conflict}",
    )


def _check(row: type[Any], columns: dict[str, str]) -> None:
    hints = get_type_hints(row)
    names = {field.name for field in fields(row)}
    if names != columns.keys():
        differing = ", ".join(sorted(names ^ columns.keys()))
        raise TypeError(f"{row.__name__} and its statement differ in {differing}")
    for name in names:
        allowed = _TYPES[plain_type(hints[name])]
        found = columns[name].lower()
        if found.partition("(")[0] not in allowed:
            raise TypeError(f"{row.__name__}.{name} is a {found} in its statement, not {allowed}")


def plain_type(hint: Any) -> type:
    """What a type is without None, NewType and type arguments."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
        return plain_type(hint)
    kind = origin or hint
    if issubclass(kind, StrEnum):
        return str
    if issubclass(kind, list | tuple | Sequence) and not issubclass(kind, str):
        return list
    return kind  # type: ignore[no-any-return]


def _encoder(row: type[R]) -> Any:
    """How rows become JSON. Where there is money, its currency has to be that beside it: the field
    ``NAME_currency`` for ``NAME``, or else ``currency`` for all amounts of the row."""
    hints = get_type_hints(row)
    names = [field.name for field in fields(row)]  # type: ignore[arg-type]
    amounts = {
        name: f"{name}_currency" if f"{name}_currency" in names else "currency"
        for name in names
        if plain_type(hints[name]) is Money
    }
    if not set(names).issuperset(amounts.values()):
        raise TypeError(f"{row.__name__} has an amount and no currency")
    values = attrgetter(*names)

    def plain(one: R) -> dict[str, Any]:
        shown = dict(zip(names, values(one), strict=True))
        for name, beside in amounts.items():
            money = shown[name]
            if money is None:
                continue
            if money.currency != shown[beside]:
                raise ValueError(f"{row.__name__}.{name}: {money} beside {shown[beside]}")
            shown[name] = money.amount
        return shown

    return lambda rows: rows_as_json([plain(one) for one in rows])


def rows_as_json(rows: Sequence[Any]) -> str:
    """Rows as ``json_to_recordset`` reads them; ids, dates and enums as they are.

    Raises:
        DataError: ``text_invalid``: a text cannot be written as UTF-8.
    """
    try:
        return to_json(rows).decode()
    except PydanticSerializationError as error:
        raise DataError(str(error), code="text_invalid") from None


def _split(columns: str) -> list[str]:
    """The columns of a list; a comma within parentheses, as in numeric(5, 2), ends none."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", columns)]
