"""What a check is, what it is told, and what it finds."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum, auto
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from monitoring.audit.changed import Changed, narrowed
from monitoring.audit.marks import Mark
from schemas.books import FarSides
from schemas.catalogue import Catalogue, store
from schemas.database import is_circumstance
from schemas.errors import AutorenewError, first_line

SHOWN = 20
# A right or a table that is missing is no finding.
NOT_THE_DATA = ("42501", "42P01", "42703")
STREAMED = 5000


class Offence(NamedTuple):
    """One thing that breaks a check.

    Attributes:
        kind: what it is, such as ``order`` or ``invoice``: see ``naming``.
        id: by which it is found.
    """

    kind: str
    id: str


class Piece(NamedTuple):
    """A range of ids, both ends in it. Ids are drawn evenly, so halves of it are halves of all."""

    low: uuid.UUID
    high: uuid.UUID

    @property
    def is_first(self) -> bool:
        return self.low.int == 0


WHOLE = Piece(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1))


def pieces(count: int) -> list[Piece]:
    """All ids, cut into so many ranges."""
    bounds = [2**128 * n // count for n in range(count + 1)]
    return [Piece(uuid.UUID(int=low), uuid.UUID(int=high - 1)) for low, high in pairwise(bounds)]


_NOW = text("""
    SELECT now() AS now,
        now() + coalesce((SELECT ahead FROM virtual_clock), interval '0') AS business
""")


@dataclass
class Books:
    """What checks look at: one snapshot of the database, and the far sides' books.

    Attributes:
        piece: which ids to look at.
        given: parameters of statements beside the ids and the times.
        changed: to look at that alone, instead of a piece.
        mark: where an earlier run ended; what is chained is looked at from there on.
    """

    tx: Connection
    piece: Piece = WHOLE
    far_sides: FarSides | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    changed: Changed | None = None
    mark: Mark | None = None

    @cached_property
    def _times(self) -> Any:
        return self.tx.execute(_NOW).one()

    @property
    def now(self) -> datetime:
        """The time of the business, which may be another than the database's."""
        business: datetime = self._times.business
        return business

    @cached_property
    def catalogue(self) -> Catalogue:
        return store.read(self.tx)

    def rows(self, statement: TextClause, **more: Any) -> Iterable[Any]:
        """What a statement finds; it is given what it names."""
        statement = self._narrowed(statement)
        return self.tx.execute(statement, self._wanted(statement, more))

    def stream(self, statement: TextClause) -> Iterable[Any]:
        """The same for many rows: some at a time. PostgreSQL uses one process for it."""
        statement = self._narrowed(statement)
        streamed = statement.execution_options(yield_per=STREAMED)
        return self.tx.execute(streamed, self._wanted(statement, {}))

    def _narrowed(self, statement: TextClause) -> TextClause:
        return statement if self.changed is None else narrowed(statement.text)

    def _wanted(self, statement: TextClause, more: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            "low": self.piece.low,
            "high": self.piece.high,
            "now": self.now,
            "db_now": self._times.now,
            # A virtual clock may be behind, too.
            "latest": max(self.now, self._times.now),
            **self.given,
            **more,
        }
        if self.changed is not None:
            known |= {one.name: getattr(self.changed, one.name) for one in fields(self.changed)}
        return {name: known[name] for name in statement.compile().params}


Look = Callable[[Books], Iterable[Offence]]


class Since(Enum):
    """How a check is done by a run that continues an earlier one.

    Attributes:
        CHANGED: of what changed.
        ONCE: of all there is, which is little, or work that waits; or from a mark on.
        NEVER: not at all: what it compares is known to a run over everything alone.
    """

    CHANGED = auto()
    ONCE = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be true.

    Attributes:
        code: stable, as ``area.what``.
        must: what must be true, as a sentence.
        look: finds what breaks it.
        whole: it cannot be done piece by piece.
        since: how a run that continues an earlier one does it.
    """

    code: str
    must: str
    look: Look
    whole: bool = False
    since: Since = Since.CHANGED


def sql(code: str, must: str, statement: str, *, since: Since = Since.CHANGED) -> Check:
    """A check by one statement, which selects (kind, id) of what breaks it.

    One that has ``BETWEEN :low AND :high`` looks at the subjects with ids in that range.
    """
    clause = text(statement)

    def look(books: Books) -> Iterator[Offence]:
        for kind, subject in books.rows(clause):
            yield Offence(kind, str(subject))

    return Check(code, must, look, "low" not in clause.compile().params, since)


@dataclass(slots=True)
class Finding:
    """A check and what breaks it.

    Attributes:
        invariant: what must be true.
        broken: how many things break it.
        ids: the first of them.
        named: the same, said with what they are.
        is_done: False: a run that continues an earlier one does not look at it.
    """

    invariant: str
    broken: int = 0
    ids: list[str] = field(default_factory=list)
    code: str = ""
    named: list[str] = field(default_factory=list)
    offences: list[Offence] = field(default_factory=list)
    is_done: bool = True
    # What is found more than once; None: nothing is.
    known: set[Offence] | None = None

    def add(self, found: Iterable[Offence]) -> None:
        for offence in found:
            if self.known is not None:
                if offence in self.known:
                    continue
                self.known.add(offence)
            self.broken += 1
            if len(self.offences) < SHOWN and offence not in self.offences:
                self.offences.append(offence)
                self.ids.append(offence.id)

    def look(self, check: Check, books: Books) -> None:
        """Do a check of our own books. What keeps it from being done is what breaks it: such as a
        definition that cannot be read."""
        try:
            with books.tx.begin_nested():
                self.add(check.look(books))
        except DBAPIError as error:
            if is_circumstance(error) or _sqlstate(error) in NOT_THE_DATA:
                raise
            self.add([Offence("cannot be checked:", first_line(error))])
        except (KeyError, TypeError, ValueError, AutorenewError) as error:
            self.add(
                [Offence("cannot be checked:", f"{type(error).__name__}: {first_line(error)}")]
            )


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
