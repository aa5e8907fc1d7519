"""Customers and services over HTTP: read within the realm, changed by commands."""

import itertools
import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.api import Client
from tests.support.given import line, order
from tests.support.life import Life

_numbers = itertools.count(1)


@pytest.fixture
def anna(shop: Client, world: Life) -> str:
    """A customer with two delivered services: a site and a machine."""
    customer = f"anna-{next(_numbers)}"
    document = order(f"{customer}-1", line("site", domain=f"{customer}.example"), line("vm"))
    document["customer"] |= {"id": customer}
    document["payment_method"] = "tok-secret-of-anna"
    answer = shop("POST", "/v1/orders?wait=30", document)
    assert answer.status == 200, answer.data
    return customer


def services_of(client: Client, customer: str) -> dict[str, Any]:
    page = client("GET", f"/v1/services?customer={customer}").json
    return {one["plan"]: one for one in page["items"]}


class TestReading:
    def test_service_says_what_is_next_and_what_it_costs(self, shop: Client, anna: str) -> None:
        site = services_of(shop, anna)["site"]
        shown = shop("GET", f"/v1/services/{site['id']}").json
        assert shown["customer"] == anna
        assert shown["next"]["step"] == "remind"
        assert shown["next"]["why"] == "notice_due"
        assert shown["renewal"]["total"] == {"amount": 4544, "currency": "EUR"}
        quote = shop("GET", f"/v1/services/{site['id']}/quote").json
        assert (quote["periods"], quote["rate"]) == (1, "20")
        assert quote["total"] == {"amount": 4544, "currency": "EUR"}

    def test_customer_is_shown_without_a_token(self, shop: Client, anna: str) -> None:
        shown = shop("GET", f"/v1/customers/{anna}")
        assert shown.json["payment_methods"][0]["is_saved"] is True
        assert b"tok-secret-of-anna" not in shown.data
        upcoming = shop("GET", f"/v1/customers/{anna}/upcoming").json["items"]
        assert [u["renewal"]["total"]["amount"] for u in upcoming] == [4544, 4544]
        assert {u["decision"] for u in upcoming} == {"will_renew"}
        (invoice,) = shop("GET", f"/v1/customers/{anna}/invoices").json["items"]
        whole = shop("GET", f"/v1/invoices/{invoice['number']}").json
        assert whole["total"] == invoice["total"] == {"amount": 9089, "currency": "EUR"}
        assert whole["customer"] == anna

    def test_lists_go_on_with_their_cursor(self, shop: Client, anna: str) -> None:
        first = shop("GET", f"/v1/services?customer={anna}&limit=1").json
        second = shop("GET", f"/v1/services?customer={anna}&limit=1&cursor={first['next']}").json
        assert second["next"] is None
        assert first["items"][0]["id"] < second["items"][0]["id"]
        for wrong in ("cursor=x", "limit=0", "limit=501", "state=gone", "colour=red"):
            assert shop("GET", f"/v1/services?{wrong}").status == 422, wrong

    def test_another_realm_sees_what_does_not_exist(
        self, shop: Client, other: Client, anna: str
    ) -> None:
        site = services_of(shop, anna)["site"]["id"]
        (invoice,) = shop("GET", f"/v1/customers/{anna}/invoices").json["items"]
        nobody = str(uuid.uuid4())
        for method, path, missing, body in [
            ("GET", f"/v1/customers/{anna}", "/v1/customers/nobody", None),
            ("GET", f"/v1/customers/{anna}/upcoming", "/v1/customers/nobody/upcoming", None),
            ("GET", f"/v1/customers/{anna}/invoices", "/v1/customers/nobody/invoices", None),
            ("PATCH", f"/v1/customers/{anna}", "/v1/customers/nobody", {"name": "X"}),
            ("GET", f"/v1/services/{site}", f"/v1/services/{nobody}", None),
            ("GET", f"/v1/services/{site}/quote", f"/v1/services/{nobody}/quote", None),
            ("POST", f"/v1/services/{site}:stop", f"/v1/services/{nobody}:stop", None),
            ("GET", f"/v1/invoices/{invoice['number']}", "/v1/invoices/FR-0000000", None),
        ]:
            theirs, nothing = other(method, path, body), other(method, missing, body)
            assert theirs.status == nothing.status == 404, path
            assert theirs.data == nothing.data
        assert services_of(other, anna) == {}
        assert services_of(shop, anna)["site"]["mode"] == "automatic"

    def test_narrowed_key_sees_its_brand_alone(
        self, client_of: Callable[..., Client], shop: Client, anna: str
    ) -> None:
        narrow = client_of(brands=["ovh"])
        assert services_of(narrow, anna).keys() == {"site"}
        machine = services_of(shop, anna)["vm"]["id"]
        assert narrow("GET", f"/v1/services/{machine}").status == 404
        assert narrow("POST", f"/v1/services/{machine}:stop").status == 404
        assert narrow("GET", f"/v1/customers/{anna}/invoices").json["items"] == []
        method = {"payment_method": "tok-9"}
        refused = narrow("PUT", f"/v1/customers/{anna}/payment-method", method)
        assert (refused.status, refused.codes) == (422, ["field_missing"])
        site = services_of(shop, anna)["site"]["id"]
        chosen = narrow(
            "PUT", f"/v1/customers/{anna}/payment-method", method | {"services": [site]}
        )
        assert chosen.json == {"changed": True}
        both = method | {"services": [site, machine]}
        assert narrow("PUT", f"/v1/customers/{anna}/payment-method", both).status == 404


class TestChanging:
    def test_one_click_is_done_once(self, shop: Client, anna: str) -> None:
        site = services_of(shop, anna)["site"]
        for command, body, mode in [
            ("stop", None, "stop"),
            ("resume", {"because": "changed my mind"}, "automatic"),
            ("mode", {"mode": "manual"}, "manual"),
        ]:
            path = f"/v1/services/{site['id']}:{command}"
            assert shop("POST", path, body).json == {"changed": True}
            assert shop("POST", path, body).json == {"changed": False}
            assert services_of(shop, anna)["site"]["mode"] == mode

    def test_renewal_is_charged_with_the_quote(self, shop: Client, anna: str, world: Life) -> None:
        site = services_of(shop, anna)["site"]["id"]
        shown = shop("GET", f"/v1/services/{site}").json
        body = {"expires_on": shown["expires_on"]}
        assert shop("POST", f"/v1/services/{site}:renew", body).json == {"changed": True}
        world.fleet.settle(30)
        invoices = shop("GET", f"/v1/customers/{anna}/invoices").json["items"]
        assert invoices[0]["total"] == shown["renewal"]["total"]
        again = shop("GET", f"/v1/services/{site}").json
        assert again["expires_on"] == shown["renewal"]["paid_until"]
        wrong = shop("POST", f"/v1/services/{site}:renew", {"expires_on": "2099-01-01"})
        assert (wrong.status, wrong.codes) == (422, ["expiry_unknown"])

    def test_idempotency_key_gives_the_first_answer(self, shop: Client, anna: str) -> None:
        site = services_of(shop, anna)["site"]["id"]
        name = f"stop-{anna}"
        first = shop("POST", f"/v1/services/{site}:stop", Idempotency_Key=name)
        assert shop("POST", f"/v1/services/{site}:resume").json == {"changed": True}
        again = shop("POST", f"/v1/services/{site}:stop", Idempotency_Key=name)
        assert first.json == again.json == {"changed": True}
        assert services_of(shop, anna)["site"]["mode"] == "automatic"  # it was not done again
        reused = shop("POST", f"/v1/services/{site}:resume", Idempotency_Key=name)
        assert (reused.status, reused.code) == (409, "key_reused")

    def test_same_idempotency_key_at_the_same_moment_is_done_once(
        self, shop: Client, anna: str, world: Life
    ) -> None:
        site = services_of(shop, anna)["site"]["id"]

        def stop(_: int) -> Any:
            return shop("POST", f"/v1/services/{site}:stop", Idempotency_Key=f"twice-{anna}").json

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(stop, range(8)))
        assert answers == [{"changed": True}] * 8
        query = "SELECT count(*) FROM events WHERE subject = :id AND name = 'mode.changed'"
        assert world.database.value(query, id=site) == 1

    def test_refusal_is_kept_under_its_idempotency_key_too(self, shop: Client, anna: str) -> None:
        agreed = {"contracts": [{"contract": "nothing", "version": 1}]}
        name = f"agree-{anna}"
        path = f"/v1/customers/{anna}/agreements"
        first = shop("POST", path, agreed, Idempotency_Key=name)
        again = shop("POST", path, agreed, Idempotency_Key=name)
        assert (first.status, first.codes) == (422, ["contract_unknown"])
        assert (again.status, again.json) == (first.status, first.json)

    def test_customer_is_changed_and_replaced(self, shop: Client, anna: str) -> None:
        path = f"/v1/customers/{anna}"
        changes = {"name": "Anna", "address": {"lines": ["1 rue X"], "city": "Lille"}}
        assert shop("PATCH", path, changes).json == {"changed": True}
        assert shop("GET", path).json["address"] == changes["address"]
        assert shop("PATCH", path, {"name": None}).json == {"changed": True}
        whole = {"country": "FR", "language": "en", "email": "anna@example.org"}
        assert shop("PUT", path, whole).json == {"changed": True}
        shown = shop("GET", path).json
        assert (shown["language"], shown["address"], shown["name"]) == ("en", None, None)
        assert shop("PUT", "/v1/customers/nobody-at-all", whole).status == 404
        for wrong, code in [
            ({}, "field_missing"),
            ({"colour": "red"}, "field_unknown"),
            ({"email": "x\r\nBcc: y@example.com"}, "field_invalid"),
            ({"country": 7}, "field_invalid"),
        ]:
            assert shop("PATCH", path, wrong).codes == [code]

    @pytest.mark.parametrize(
        ("sent", "status"),
        [(b"{", 400), (b"[]", 400), (b'{"name":1,"name":2}', 400), (b"\xff", 400),
         (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400), (b" " * 300_000, 413)],
    )  # fmt: skip
    def test_malformed_body_gets_a_reason(
        self, shop: Client, anna: str, sent: bytes, status: int
    ) -> None:
        answer = shop("PATCH", f"/v1/customers/{anna}", sent)
        assert answer.status == status
        assert answer.json["detail"]

    def test_history_says_which_key_it_was(self, shop: Client, anna: str, world: Life) -> None:
        site = services_of(shop, anna)["site"]["id"]
        shop("POST", f"/v1/services/{site}:stop", {"because": "too dear"})
        told = world.database.all(
            "SELECT detail FROM events WHERE subject = :id AND name = 'mode.changed'", id=site
        )
        assert told[-1].detail == {"mode": "stop", "by": "key shop-key", "because": "too dear"}

    def test_token_reaches_no_table_but_its_own(self, shop: Client, anna: str, world: Life) -> None:
        path = f"/v1/customers/{anna}/payment-method"
        assert shop("PUT", path, {"payment_method": "tok-very-secret"}).status == 200
        wrong = shop("PUT", path, {"payment_method": "tok very-secret", "x": 1})
        assert b"very-secret" not in wrong.data
        for table in ("api_answers", "events", "rejected_documents", "tasks"):
            kept = world.database.value(
                f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} AS t"
            )
            assert "very-secret" not in kept, table


def test_catalogue_and_forecast_are_answered(shop: Client, ops: Client, anna: str) -> None:
    plans = shop("GET", "/v1/catalogue?brand=kimsufi").json["plans"]
    assert [plan["code"] for plan in plans] == ["server"]
    assert shop("GET", "/v1/forecast").status == 403
    rows = ops("GET", "/v1/forecast?by=month").json["rows"]
    assert sum(row["services"] for row in rows if row["decision"] == "will_renew") >= 2
    assert ops("GET", "/v1/forecast?until=2001-01-01").status == 422
    assert json.dumps(rows)
