"""What tasks are about, in words that others know: the orders behind their subjects."""

import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Behind:
    """The order behind a task.

    Attributes:
        key: by which its upstream knows it.
        trace: the W3C trace context in which it is.
    """

    order_id: uuid.UUID
    upstream: str
    key: str
    trace: str | None


_BEHIND = text("""
    SELECT subject, order_id, upstream, key, trace FROM orders_behind(CAST(:subjects AS uuid[]))
""")


def orders_behind(engine: Engine, subjects: Collection[uuid.UUID]) -> dict[uuid.UUID, Behind]:
    """Of each subject that has one. Only lines and spans depend on it: it never raises."""
    try:
        with engine.connect() as tx:
            rows = tx.execute(_BEHIND, {"subjects": list(subjects)}).all()
    except SQLAlchemyError as error:
        log.debug("the orders behind tasks cannot be read: %s", first_line(error))
        return {}
    return {row.subject: Behind(*row[1:]) for row in rows}
