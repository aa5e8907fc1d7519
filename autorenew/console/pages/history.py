"""What operators did, the newest first."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from starlette.responses import Response

from autorenew.console import accounts
from autorenew.console.context import Visit
from autorenew.console.rendering import page
from schemas.tables.history import BY_OPERATORS

PER_PAGE = 100

# Its index holds these alone. ``:before`` is where the page before ended.
_LIST = text(f"""
    SELECT id, at, subject, name, detail FROM events
    WHERE {BY_OPERATORS}
      AND (CAST(:before AS bigint) IS NULL OR id < :before)
      AND (CAST(:by AS text) IS NULL OR detail->>'by' = :by)
      AND (CAST(:name AS text) IS NULL OR name = :name)
    ORDER BY id DESC LIMIT :limit
""")
_ABOVE = ("by", "because", "bulk")


@dataclass(frozen=True, slots=True)
class Deed:
    """Something an operator did.

    Attributes:
        detail: the rest of what is known of it.
    """

    at: datetime
    subject: UUID
    name: str
    by: str
    because: str | None
    detail: dict[str, Any]


def list_deeds(visit: Visit) -> Response:
    before = visit.query.number("before", 0, most=2**62) or None
    chosen = {name: visit.query.get(name) for name in ("by", "name")}
    with visit.console.reading() as tx:
        rows = tx.execute(_LIST, {**chosen, "before": before, "limit": PER_PAGE}).all()
    deeds = [
        Deed(
            r.at, r.subject, r.name, r.detail["by"], r.detail.get("because"),
            {k: v for k, v in r.detail.items() if k not in _ABOVE and v is not None},
        )
        for r in rows
    ]  # fmt: skip
    problem = None if rows or before else _unknown(visit, chosen)
    older = rows[-1].id if len(rows) == PER_PAGE else None
    return page(
        visit, "history.html", deeds=deeds, chosen=chosen, older=older, problem=problem,
        status=422 if problem else 200,
    )  # fmt: skip


def _unknown(visit: Visit, chosen: dict[str, str | None]) -> str | None:
    """Which filter names what there is not: "none" would say that a known one did nothing."""
    by, name = chosen["by"], chosen["name"]
    with visit.console.reading() as tx:
        for field, said in (("by", by), ("name", name)):
            alone = {"by": None, "name": None, field: said}
            if said and not tx.execute(_LIST, {**alone, "before": None, "limit": 1}).first():
                break
        else:
            return None
    if field == "name":
        return f"no operator ever did anything that is called {name!r}, such as lane.paused"
    with visit.console.engine.begin() as tx:
        if accounts.accounts(tx, by):
            return None
    return f"there is no operator {by!r}, and nobody of that name has done anything"
