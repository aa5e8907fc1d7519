"""Names that a command was given are looked up first: an unknown one is told, and never "none"."""

from collections.abc import Collection

from sqlalchemy import Connection, TextClause, text

from producers.control.naming import UnknownName

_CUSTOMERS = text("SELECT id FROM customers WHERE id = ANY(:names)")
_BRANDS = text("SELECT DISTINCT brand FROM plans ORDER BY brand")
_SUBSIDIARIES = text("SELECT code FROM subsidiaries ORDER BY code")


def check_customers(tx: Connection, ids: Collection[str]) -> None:
    """
    Raises:
        UnknownName: there is no such customer; all of them are told.
    """
    known = set(tx.execute(_CUSTOMERS, {"names": list(ids)}).scalars())
    if unknown := [id_ for id_ in dict.fromkeys(ids) if id_ not in known]:
        raise UnknownName("\n".join(f"there is no customer {id_!r}" for id_ in unknown))


def check_brands(tx: Connection, names: Collection[str]) -> None:
    """
    Raises:
        UnknownName: no plan is of such a brand.
    """
    _check(tx, "brand", names, _BRANDS)


def check_subsidiaries(tx: Connection, codes: Collection[str]) -> None:
    """
    Raises:
        UnknownName: the catalogue has no such subsidiary.
    """
    _check(tx, "subsidiary", codes, _SUBSIDIARIES)


def _check(tx: Connection, kind: str, names: Collection[str], known: TextClause) -> None:
    if not names:
        return
    there = tx.execute(known).scalars().all()
    if unknown := [name for name in dict.fromkeys(names) if name not in there]:
        listed = ", ".join(there) or "none: load a catalogue first"
        said = "\n".join(f"there is no {kind} {name!r}" for name in unknown)
        raise UnknownName(f"{said}; there are {listed}")
