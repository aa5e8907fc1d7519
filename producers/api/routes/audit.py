"""For operators: the last verdict of the audit."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from producers.api.access import Route
from producers.api.problems import not_found, responses
from producers.api.routes.operating import TAG, Reading

router = APIRouter(prefix="/v1", route_class=Route, tags=[TAG])


class FindingView(BaseModel):
    """What one invariant was found to be."""

    invariant: str
    must: str
    checked_at: datetime | None
    seconds: float
    violations: int
    offenders: Sequence[Any]
    problem: str | None
    """Why it could not be checked."""


class AuditView(BaseModel):
    """The last audit over all of the books that came to its end."""

    started_at: datetime
    ended_at: datetime
    seconds: float
    checks: int
    violations: int
    findings: Sequence[FindingView]
    """The newest verdict of each invariant that is broken, or could not be checked."""


# The exporter keeps them; without one there is no audit to tell of.
_IS_KEPT = text("SELECT to_regclass('audit_runs') IS NOT NULL")
_LAST_RUN = text("""
    SELECT started_at, ended_at, seconds, checks, violations FROM audit_runs
    WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1
""")
_FINDINGS = text("""
    SELECT invariant, must, checked_at, seconds, violations, offenders, problem
    FROM audit_findings WHERE violations > 0 OR problem IS NOT NULL ORDER BY invariant
""")


@router.get(
    "/audit",
    summary="The last verdict of the audit",
    description="404 while no audit has come to its end: an exporter does them.",
    responses=responses("not_found"),
)
def get_audit(access: Reading) -> AuditView:
    with access.doors.read.begin() as tx:
        run = None
        if tx.execute(_IS_KEPT).scalar_one():
            run = tx.execute(_LAST_RUN).first()
        if run is None:
            raise not_found("no audit has come to its end yet: an exporter does them, in hours")
        findings = [FindingView.model_validate(row._asdict()) for row in tx.execute(_FINDINGS)]
    return AuditView(**run._mapping, findings=findings)
