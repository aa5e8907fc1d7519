"""What must not grow with what lies in a table: plans that were made while it was small, and the
operations of services with a long history."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from producers.ledger import dispatching
from tests.conftest import Database
from workers.provisioning import store


def scans(tx: Connection, query: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The scans of tables in the plan of a statement, which is not executed."""
    found = tx.execute(text(f"EXPLAIN (FORMAT JSON) {query.text}"), parameters).scalar_one()

    def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
        own = [node] if "Relation Name" in node and node["Node Type"].endswith("Scan") else []
        return own + [scan for below in node.get("Plans", []) for scan in walk(below)]

    return walk((found if isinstance(found, list) else json.loads(found))[0]["Plan"])


def test_tasks_whose_time_has_come_are_found_as_if_their_table_were_large(
    database: Database,
) -> None:
    with database.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) tasks"))  # as in a quiet hour

    with database.engine("relay").begin() as tx:
        found = scans(tx, dispatching._GATHER, {"horizon": 5.0, "gather": 1000})

    tasks = [scan for scan in found if scan["Relation Name"] == "tasks"]
    assert {scan["Alias"]: scan["Node Type"] for scan in tasks} == {
        "t": "Tid Scan",
        "d": "Index Scan",
    }
    assert [scan["Index Name"] for scan in tasks if "Index Name" in scan] == ["tasks_unbatched"]


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
