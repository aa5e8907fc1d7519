"""Orders over HTTP: taken once, answered after the commit, followed to their end."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.api import Client
from tests.support.given import body, line, order
from tests.support.life import Life


def orders_of(world: Life, customer: str) -> int:
    query = "SELECT count(*) FROM orders WHERE customer_id = :customer"
    return int(world.database.value(query, customer=customer))


class TestOne:
    def test_is_committed_before_202_and_delivered_after(self, shop: Client, world: Life) -> None:
        answer = shop("POST", "/v1/orders", order("o-1", customer="ann"))
        assert (answer.status, answer.json["key"]) == (202, "o-1")
        assert answer.json["state"] == "accepted"
        assert answer.headers["location"] == "/v1/orders/o-1"
        assert orders_of(world, "ann") == 1
        world.fleet.settle(30)

        shown = shop("GET", "/v1/orders/o-1")
        assert shown.status == 200
        assert (shown.json["state"], shown.json["is_ended"]) == ("delivered", True)
        assert shown.json["payment"]["total"] == {"amount": 4544, "currency": "EUR"}
        told = [one["event"] for one in shown.json["timeline"]]
        assert told[0] == "order.accepted"
        assert "service.delivered" in told

    def test_wait_answers_as_soon_as_it_has_ended(self, shop: Client) -> None:
        began = time.monotonic()
        answer = shop("POST", "/v1/orders?wait=20", order("o-2", customer="ben"))
        assert answer.status == 200
        assert answer.json["state"] == "delivered"
        assert time.monotonic() - began < 15

    def test_wait_for_what_does_not_end_is_answered_with_202(
        self, shop: Client, world: Life
    ) -> None:
        with world.fleet.engine("api").begin() as tx:
            from producers.control import lanes

            lanes.pause(tx, "gateway", "test")
        try:
            began = time.monotonic()
            answer = shop("POST", "/v1/orders?wait=1", order("o-3", customer="cat"))
            assert answer.status == 202
            assert 0.9 < time.monotonic() - began < 10
            followed: list[Any] = []
            thread = threading.Thread(
                target=lambda: followed.append(shop("GET", "/v1/orders/o-3?wait=30"))
            )
            thread.start()
        finally:
            with world.fleet.engine("api").begin() as tx:
                lanes.resume(tx, "gateway")
        thread.join(30)
        assert followed[0].json["state"] == "delivered"

    def test_same_body_gets_the_same_answer_and_another_one_409(
        self, shop: Client, world: Life
    ) -> None:
        first = shop("POST", "/v1/orders", order("o-4", customer="dan"), Idempotency_Key="o-4")
        again = shop("POST", "/v1/orders", order("o-4", customer="dan"))
        assert (again.status, again.data) == (first.status, first.data)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        changed = shop("POST", "/v1/orders", order("o-4", line("vm"), customer="dan"))
        assert (changed.status, changed.code) == (409, "key_reused")
        assert orders_of(world, "dan") == 1

    def test_refusal_names_each_field_and_is_repeated(self, shop: Client) -> None:
        document = order("o-5", line("gone"), line("site", "P9M"), customer="eve")
        first = shop("POST", "/v1/orders", document)
        again = shop("POST", "/v1/orders", document)
        assert first.status == again.status == 422
        assert first.headers["content-type"] == "application/problem+json"
        found = {(p["code"], p["path"]) for p in first.json["problems"]}
        assert ("plan_unknown", "lines.0.plan") in found
        assert first.json["type"] == "urn:autorenew:problem:invalid"
        assert again.data == first.data
        shown = shop("GET", "/v1/orders/o-5")
        assert shown.json["state"] == "refused"
        assert {p["code"] for p in shown.json["problems"]} >= {"plan_unknown"}

    def test_header_that_is_not_the_key_is_a_slip(self, shop: Client, world: Life) -> None:
        answer = shop("POST", "/v1/orders", order("o-6", customer="fay"), Idempotency_Key="x")
        assert (answer.status, answer.json["problems"][0]["path"]) == (
            422,
            "header.Idempotency-Key",
        )
        assert orders_of(world, "fay") == 0

    def test_command_is_no_order(self, shop: Client, world: Life) -> None:
        command = {"command": "stop", "customer": "ann", "services": []}
        assert shop("POST", "/v1/orders", command).codes == ["command_unknown"]

    @pytest.mark.parametrize(
        ("sent", "status", "code"),
        [
            (b"", 400, "malformed"),
            (b"{", 400, "malformed"),
            (b"[]", 400, "malformed"),
            (b"null", 400, "malformed"),
            (b'"\xff"', 400, "malformed"),
            (b'{"key":"\xed\xa0\x80"}', 400, "malformed"),
            (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400, "malformed"),
            (b"[" * 200_000, 400, "malformed"),
            (b'{"key":"k","key":"l"}', 400, "malformed"),
            (b'{"key":1e999}', 422, "invalid"),
            (b'{"key":NaN}', 400, "malformed"),
            (b'{"key":"' + b"x" * 300_000 + b'"}', 413, "too_large"),
            (body(order("o-\r\nX: y")), 422, "invalid"),
            (body(order("o-71") | {"colour": "red"}), 422, "invalid"),
            (body(order("o-72") | {"lines": "none"}), 422, "invalid"),
            (body(order("o-73", line("site") | {"quantity": "1"})), 422, "invalid"),
            (body(order("o-74", line("site") | {"quantity": True})), 422, "invalid"),
            (json.dumps(order("o-75", line(domain="\0"))).encode(), 422, "invalid"),
        ],
    )
    def test_what_is_no_order_gets_a_reason(
        self, shop: Client, sent: bytes, status: int, code: str
    ) -> None:
        answer = shop("POST", "/v1/orders", sent)
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["detail"]

    def test_sentence_of_a_refusal_stands_alone(self, shop: Client) -> None:
        for document, said in (
            (order("o-91") | {"colour": "red"}, "colour: there is no such field"),
            (order("o-92") | {"lines": []}, "lines: "),
            ({"key": "o-93"}, "customer: is needed (1 more in `problems`)"),
        ):
            assert shop("POST", "/v1/orders", body(document)).json["detail"].startswith(said)
        no_body = shop("POST", f"/v1/services/{uuid.uuid4()}:renew", b"", Idempotency_Key="o-94")
        assert no_body.json["detail"] == "a JSON object is needed as the body"

    def test_path_that_there_is_not_is_told_from_a_name_that_is_not_known(
        self, shop: Client
    ) -> None:
        misspelt, unknown = shop("GET", "/v1/order"), shop("GET", "/v1/orders/nothing")
        assert (misspelt.status, unknown.status) == (404, 404)
        assert "no such path" in misspelt.json["detail"]
        assert "nothing of this name" in unknown.json["detail"]

    def test_other_media_type_is_refused(self, shop: Client) -> None:
        for media_type in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = shop("POST", "/v1/orders", body(order("o-8")), Content_Type=media_type)
            assert (answer.status, answer.code) == (415, "media_type")

    @pytest.mark.parametrize(
        "query", ["wait=-1", "wait=x", "wait=31", "wait=1e1", "wat=1", "wait="]
    )
    def test_wrong_parameter_is_refused(self, shop: Client, query: str) -> None:
        assert shop("POST", f"/v1/orders?{query}", order("o-9")).status == 422
        assert shop("GET", f"/v1/orders/o-1?{query}").status == 422


class TestMany:
    def test_each_line_has_its_answer(self, shop: Client, world: Life) -> None:
        sent = b"\n".join(
            [
                body(order("b-1", customer="gus")),
                b"",
                b"nonsense",
                body(order("b-2", line("gone"), customer="gus")),
                body({"command": "stop", "customer": "gus", "services": ["x"]}),
                body(order("b-1", customer="gus")),
                body(order("b-1", line("vm"), customer="gus")),
            ]
        )
        answer = shop("POST", "/v1/orders:batch", sent, Content_Type="application/x-ndjson")
        assert answer.status == 200
        said = [(one["line"], one["status"], one.get("key")) for one in answer.lines]
        assert said == [
            (1, 202, "b-1"), (3, 400, None), (4, 422, "b-2"), (5, 422, None), (6, 202, "b-1"),
            (7, 409, "b-1"),
        ]  # fmt: skip
        assert [one.get("repeated") for one in answer.lines] == [
            False, None, False, None, True, None,
        ]  # fmt: skip
        assert answer.lines[2]["problem"]["problems"][0]["code"] == "plan_unknown"
        assert orders_of(world, "gus") == 1

    def test_too_many_or_none_is_refused(self, shop: Client, world: Life) -> None:
        sent = b"\n".join(body(order(f"m-{n}", customer="hal")) for n in range(1001))
        answer = shop("POST", "/v1/orders:batch", sent, Content_Type="application/x-ndjson")
        assert (answer.status, answer.code) == (413, "too_large")
        assert shop("POST", "/v1/orders:batch", b"\n\n").status == 422
        assert orders_of(world, "hal") == 0


def test_orders_that_come_together_each_get_their_own_answer(shop: Client, world: Life) -> None:
    def one(number: int) -> Any:
        document = order(f"t-{number}", customer="ida")
        if number % 7 == 0:
            document |= {"lines": []}
        return number, shop("POST", "/v1/orders", document)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(one, range(140)))
    assert {n for n, a in answers if a.status == 422} == set(range(0, 140, 7))
    assert all(a.json["key"] == f"t-{n}" for n, a in answers if a.status == 202)
    assert orders_of(world, "ida") == 120


def test_what_a_key_did_is_told_with_its_name(shop: Client, world: Life) -> None:
    shop("POST", "/v1/orders", order("h-1", customer="jim"))
    query = """
        SELECT e.detail->>'by' FROM events AS e JOIN orders AS o ON o.id = e.subject
        WHERE o.key = 'h-1' AND e.name = 'order.accepted'
    """
    assert world.database.value(query) == "key shop-key"


def test_names_with_slashes_are_found_by_them(shop: Client) -> None:
    document = order("2026/0001")
    document["customer"] |= {"id": "de/4711"}
    assert shop("POST", "/v1/orders?wait=30", document).status == 200
    assert shop("GET", "/v1/orders/2026%2F0001").json["key"] == "2026/0001"
    assert shop("GET", "/v1/orders/2026").status == 404
    assert shop("GET", "/v1/customers/de%2F4711").json["id"] == "de/4711"
    assert len(shop("GET", "/v1/customers/de%2F4711/upcoming").json["items"]) == 1
    assert len(shop("GET", "/v1/customers/de%2F4711/invoices").json["items"]) == 1
    changed = shop("PATCH", "/v1/customers/de%2F4711", {"name": "Somebody"})
    assert (changed.status, changed.json) == (200, {"changed": True})
    token = {"payment_method": "tok-2"}
    assert shop("PUT", "/v1/customers/de%2F4711/payment-method", token).status == 200


def test_another_realms_order_does_not_exist(
    shop: Client, other: Client, client_of: Callable[..., Client]
) -> None:
    assert shop("POST", "/v1/orders", order("r-1", customer="kim")).status == 202
    theirs, nothing = other("GET", "/v1/orders/r-1"), other("GET", "/v1/orders/r-2")
    assert theirs.status == nothing.status == 404
    assert theirs.data == nothing.data
    refused = other("POST", "/v1/orders", order("r-1", customer="kim"))
    assert refused.codes == ["customer_not_yours"]
    partner = client_of(upstream="partner")  # of the same realm
    assert partner("GET", "/v1/orders/r-1").status == 404  # its keys are its own
    assert partner("GET", "/v1/customers/kim").status == 200


def test_narrowed_key_cannot_order_or_see_anything_else(
    client_of: Callable[..., Client], shop: Client
) -> None:
    narrow = client_of(brands=["kimsufi"], subsidiaries=["FR"])
    refused = narrow("POST", "/v1/orders", order("n-1", line("site"), customer="lea"))
    nothing = narrow("POST", "/v1/orders", order("n-2", line("nothing"), customer="lea"))
    assert refused.codes == nothing.codes == ["plan_unknown"]
    irish = order("n-3", line("server"), customer="lea")
    irish["customer"] |= {"subsidiary": "IE", "country": "IE"}
    assert narrow("POST", "/v1/orders", irish).codes == ["subsidiary_unknown"]
    assert narrow("POST", "/v1/orders", order("n-4", line("server"), customer="lea")).status == 202
    assert narrow("GET", "/v1/orders/n-4").status == 200
    assert shop("POST", "/v1/orders", order("n-5", line("site"), customer="lea")).status == 202
    assert narrow("GET", "/v1/orders/n-5").status == 404
