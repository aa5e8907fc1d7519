"""What the routes of operators share: their scopes, and what they filter failed tasks by."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from producers.api.access import Access, Moment, needs
from producers.api.keys import KeyScope
from producers.api.problems import Failed
from producers.control.selection import Filters
from schemas.errors import AutorenewError
from schemas.json_bodies import Problem

Reading = Annotated[Access, needs(KeyScope.OPS_READ)]
Writing = Annotated[Access, needs(KeyScope.OPS_WRITE)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
TAG = "operations"


class Chosen(BaseModel):
    """Which failed tasks; those that fit all of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    names: Annotated[tuple[Name, ...], Field(max_length=100, strict=False)] = ()
    """Ids of subjects; or ``order:KEY``, ``service:ID``, ``customer:ID``, ``domain:NAME``."""
    queue: Name | None = None
    step: Name | None = None
    lane: Name | None = None
    driver: Name | None = None
    universe: Name | None = None
    reason: Name | None = None
    """Ours, or the far side's own code."""
    plan: Name | None = None
    customer: Name | None = None
    order: Name | None = None
    service: Name | None = None
    upstream: Name | None = None
    """Needed where several upstreams use the same key of an order."""
    older_than_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    since: Moment | None = None

    @property
    def filters(self) -> Filters:
        given = self.model_dump(include=set(Chosen.model_fields) - {"older_than_seconds"})
        age = self.older_than_seconds
        return Filters(
            **given,
            older_than=None if age is None else timedelta(seconds=age),
        )


def unknown(error: AutorenewError) -> Failed:
    """Of a filter that names what there is not."""
    lines = str(error).splitlines()
    problems = [Problem(code=error.code, path="filters", message=line) for line in lines]
    return Failed("invalid", lines[0], problems=problems)
