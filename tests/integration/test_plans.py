"""What must not grow with what lies in a table: plans that were made while it was small, and the
operations of services with a long history."""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, TextClause, text

from producers.ledger import claims, dispatching, tasks
from schemas.tables.bulk import Bulk
from tests.conftest import Database
from tests.integration.test_grants import SAMPLES
from workers.provisioning import store


def scans(tx: Connection, query: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The scans of tables in the plan of a statement, which is not executed."""
    found = tx.execute(text(f"EXPLAIN (FORMAT JSON) {query.text}"), parameters).scalar_one()

    def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
        own = [node] if "Relation Name" in node and node["Node Type"].endswith("Scan") else []
        return own + [scan for below in node.get("Plans", []) for scan in walk(below)]

    return walk((found if isinstance(found, list) else json.loads(found))[0]["Plan"])


STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}{name}": statement
    for module in (claims, dispatching, tasks)
    for name, statement in vars(module).items()
    if isinstance(statement, Bulk | TextClause) and "SET LOCAL" not in str(statement)
}
# Batches are found by their ids, or are among the few that are held.
BY = {"tasks": ("subject", "run_at", "ctid"), "batches": ("id", "queue", "batches_held")}
GIVEN = {"cap": 4000, "horizon": 5.0, "longest": 4.0, "rescue": 30.0, "shortest": 0.5, "suspect": 3}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_of_the_ledger_reads_all_tasks_whatever_its_plan_was_made_for(
    database: Database, name: str
) -> None:
    """Tasks come and go: in a quiet hour their tables are empty, and plans are kept."""
    with database.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) tasks, batches"))
    statement = STATEMENTS[name]
    query = text(statement.sql) if isinstance(statement, Bulk) else statement

    with database.owner.begin() as tx:
        tx.execute(text("SET LOCAL enable_seqscan = off"))  # as it is set for roles
        given = SAMPLES | GIVEN
        parameters = {each: given.get(each, [UUID(int=1)]) for each in query.compile().params}
        found = scans(tx, query, parameters)

    for scan in found:
        if (keys := BY.get(scan["Relation Name"])) and scan["Node Type"] != "Bitmap Heap Scan":
            found_by = {part: scan.get(part) for part in ("Index Name", "Index Cond", "TID Cond")}
            assert any(key in str(found_by) for key in keys), found_by


def test_tasks_whose_time_has_come_are_found_as_if_their_table_were_large(
    database: Database,
) -> None:
    with database.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) tasks"))  # as in a quiet hour

    with database.engine("relay").begin() as tx:
        found = scans(tx, dispatching._GATHER, {"horizon": 5.0, "gather": 1000})

    of_tasks = [scan for scan in found if scan["Relation Name"] == "tasks"]
    assert {scan["Alias"]: scan["Node Type"] for scan in of_tasks} == {
        "t": "Tid Scan",
        "d": "Index Scan",
    }
    assert [scan["Index Name"] for scan in of_tasks if "Index Name" in scan] == ["tasks_unbatched"]


def test_what_a_service_has_had_extended_is_not_read_for_the_next_extension(
    database: Database,
) -> None:
    database.run("SET session_replication_role = replica; INSERT INTO operations"
                 " (key, service_id, kind, generation, paid_until, state, ended_at)"
                 " SELECT gen_random_uuid(), md5('service ' || n % 20)::uuid,"
                 " CASE WHEN n < 20 THEN 'create' ELSE 'extend' END, 1, current_date, 'done', now()"
                 " FROM generate_series(0, 1999) AS n")  # fmt: skip
    database.run("ANALYZE operations")

    with database.engine("provisioning").begin() as tx:
        found = scans(tx, store.READ, {"ids": [UUID(int=1)]})

    read = [scan["Index Name"] for scan in found if scan["Relation Name"] == "operations"]
    assert read == ["operations_telling", "operations_telling"]
