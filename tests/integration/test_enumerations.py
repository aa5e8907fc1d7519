"""What the database lets a state, a mode or a universe be is what their types say."""

import re

from sqlalchemy import CheckConstraint

from schemas.tables import metadata
from tests.conftest import Database

_CHECKS = """
    SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'c' AND pg_get_constraintdef(oid) ~ '= ANY [(]+ARRAY'
"""


def test_every_value_of_a_type_may_be_stored_and_no_other(database: Database) -> None:
    declared = {}
    for table in metadata.tables.values():
        for constraint in {*table.constraints, *(c for col in table.c for c in col.constraints)}:
            if isinstance(constraint, CheckConstraint):
                said = re.fullmatch(r"(\w+) IN \(('.+')\)", str(constraint.sqltext))
                if said:
                    declared[table.name, said[1]] = set(re.findall(r"'(\w+)'", said[2]))
    allowed = {}
    for name, definition in database.all(_CHECKS):
        said = re.match(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.+)\]\)\)\)$", definition)
        if said:
            allowed[name, said[1]] = set(re.findall(r"'(\w+)'::text", said[2]))

    assert declared
    # A type that got another value needs a migration of the check.
    assert declared == {key: allowed.get(key) for key in declared}
