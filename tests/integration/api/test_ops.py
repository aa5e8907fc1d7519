"""Operations over HTTP: what failed is listed, retried, corrected and given up; lanes are held."""

from typing import Any

import pytest

from tests.support.api import Client
from tests.support.given import line, order, wait_until
from tests.support.life import Life


@pytest.fixture(scope="module")
def failed(world: Life, ops: Client, shop: Client) -> list[str]:
    """Five sites that the far side refuses to make."""
    faults = world.fleet.simulator.simulator.faults
    faults.add({"fault": "refuse", "operation": "create", "customer": "ned"})
    for number in range(5):
        document = order(f"f-{number}", line("site", domain="old.example"), customer="ned")
        assert shop("POST", "/v1/orders", document).status == 202
    world.fleet.settle(30)
    items = ops("GET", "/v1/failed").json["items"]
    assert len(items) == 5
    return [item["subject"] for item in items]


class TestFailed:
    def test_is_listed_in_groups_and_parts(self, ops: Client, failed: list[str]) -> None:
        shown = ops("GET", "/v1/failed?customer=ned&limit=2").json
        assert (shown["total"], len(shown["items"])) == (5, 2)
        assert [g["tasks"] for g in shown["groups"]] == [5]
        assert "retry" in shown["items"][0]["possible"]
        assert ops("GET", "/v1/failed?step=charge").json["total"] == 0
        unknown = ops("GET", "/v1/failed?step=nothing")
        assert (unknown.status, unknown.codes) == (422, ["unknown_name"])

    def test_dry_run_changes_nothing(self, ops: Client, failed: list[str]) -> None:
        body: dict[str, Any] = {"filters": {"customer": "ned"}, "dry_run": True}
        retry = ops("POST", "/v1/failed:retry", body).json
        assert (retry["dry_run"], retry["total"], retry["bulk"]) == (True, 5, None)
        cancel = ops("POST", "/v1/failed:cancel", body).json
        assert cancel["refunds"] == [{"amount": 5 * 4544 + 2, "currency": "EUR"}] or cancel[
            "refunds"
        ] == [{"amount": 5 * 4544, "currency": "EUR"}]
        edit = body | {"changes": {"domain": "new.example"}, "because": "a typo"}
        assert ops("POST", "/v1/failed:edit", edit).json["edited"] == 5
        assert ops("GET", "/v1/failed").json["total"] == 5

    def test_needs_a_filter_or_everything(self, ops: Client, failed: list[str]) -> None:
        for body in ({}, {"filters": {"customer": "ned"}, "everything": True}):
            assert ops("POST", "/v1/failed:retry", body).codes == ["field_invalid"]
        nothing = ops("POST", "/v1/failed:retry", {"filters": {"step": "charge"}})
        assert (nothing.status, nothing.code) == (409, "conflict")

    def test_retry_is_one_bulk_operation_under_its_key(
        self, ops: Client, failed: list[str], world: Life
    ) -> None:
        body = {"filters": {"service": failed[0]}, "because": "it is mended"}
        first = ops("POST", "/v1/failed:retry", body, Idempotency_Key="retry-1").json
        again = ops("POST", "/v1/failed:retry", body, Idempotency_Key="retry-1").json
        assert first == again
        world.fleet.settle(30)
        shown = ops("GET", f"/v1/bulk/{first['bulk']}").json
        assert (shown["asked_by"], shown["note"]) == ("key ops-key", "it is mended")
        assert shown["total"] == 1
        stopped = ops("POST", f"/v1/bulk/{first['bulk']}:stop")
        assert stopped.status in (200, 409)
        assert ops("GET", "/v1/bulk/nothing").status == 404

    def test_edit_corrects_and_tries_again(
        self, ops: Client, failed: list[str], world: Life
    ) -> None:
        body = {
            "filters": {"service": failed[1]},
            "changes": {"domain": "new.example"},
            "because": "a typo",
        }
        edited = ops("POST", "/v1/failed:edit", body, Idempotency_Key="edit-1").json
        assert edited["items"][0]["after"] == {"domain": "new.example"}
        wrong = ops("POST", "/v1/failed:edit", body | {"changes": {"colour": "red"}})
        world.fleet.settle(30)
        assert wrong.status in (200, 409)
        if wrong.status == 200:
            assert wrong.json["edited"] == 0

    def test_cancel_gives_up_and_refunds(self, ops: Client, failed: list[str], world: Life) -> None:
        body = {"filters": {"service": failed[2]}, "because": "sold out"}
        started = ops("POST", "/v1/failed:cancel", body, Idempotency_Key="cancel-1")
        assert started.status == 200
        query = "SELECT state FROM services WHERE id = :id"
        wait_until(
            lambda: world.database.value(query, id=failed[2]) == "cancelled", "it is given up"
        )

    def test_key_of_a_realm_has_no_such_scope(self, shop: Client) -> None:
        assert shop("GET", "/v1/failed").status == 403
        assert shop("GET", "/v1/lanes").status == 403


def test_audit_is_told_once_there_was_one(ops: Client, world: Life) -> None:
    assert ops("GET", "/v1/audit").status == 404
    kept = world.database.value("SELECT to_regclass('audit_runs') IS NOT NULL")
    if not kept:  # as the exporter keeps them
        world.database.run("""
            CREATE TABLE audit_runs (id BIGINT GENERATED ALWAYS AS IDENTITY, started_at TIMESTAMPTZ
                DEFAULT now(), ended_at TIMESTAMPTZ, seconds FLOAT8, checks INT, violations INT)
        """)
        world.database.run("""
            CREATE TABLE audit_findings (invariant TEXT, must TEXT, checked_at TIMESTAMPTZ,
                seconds FLOAT8, violations INT, offenders JSONB, problem TEXT)
        """)
        world.database.run("GRANT SELECT ON audit_runs, audit_findings TO autorenew_readonly")
    world.database.run("""
        INSERT INTO audit_runs (ended_at, seconds, checks, violations) VALUES (now(), 1.5, 40, 2)
    """)
    world.database.run("""
        INSERT INTO audit_findings (invariant, must, seconds, violations, offenders)
        VALUES ('x', 'be so', 0.1, 2, '["a", "b"]')
    """)
    shown = ops("GET", "/v1/audit").json
    assert (shown["checks"], shown["violations"]) == (40, 2)
    assert [f["invariant"] for f in shown["findings"]] == ["x"]


class TestLanes:
    def test_pause_and_resume_are_told(self, ops: Client, world: Life) -> None:
        held = ops("POST", "/v1/lanes", {"lane": "mail", "action": "pause", "because": "storm"})
        assert held.status == 200, held.data
        (lane,) = held.json["lanes"]
        assert [(p["paused_by"], p["reason"]) for p in lane["pauses"]] == [("key ops-key", "storm")]
        listed = {one["lane"] for one in ops("GET", "/v1/lanes").json["lanes"]}
        assert {"mail", "gateway", "destructive"} <= listed
        resumed = ops("POST", "/v1/lanes", {"lane": "mail", "action": "resume", "because": "calm"})
        assert resumed.json["lanes"][0]["pauses"] == []
        missing = ops("POST", "/v1/lanes", {"lane": "x", "action": "pause", "because": "y"})
        assert missing.status == 404
        told = world.database.all(
            "SELECT name FROM events WHERE detail->>'by' = 'key ops-key' AND name LIKE 'lane.%'"
        )
        assert [row.name for row in told] == ["lane.paused", "lane.resumed"]
