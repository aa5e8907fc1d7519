"""What upstream is told, as values."""

import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from producers.events.composing import Composer
from producers.events.deliveries import is_wanted
from producers.events.reading import Facts, Happened
from producers.topology import topics_of
from schemas.events import DATA, Kind, envelope, realm_word, routing_key

AT = datetime(2026, 3, 1, 8, tzinfo=UTC)


def happened(kind: Kind, subject: uuid.UUID, number: int = 1, **detail: Any) -> Happened:
    return Happened(number, subject, AT, kind, detail, number, 0)


def order(id_: uuid.UUID, **changes: Any) -> Any:
    fields = {"id": id_, "key": "o-1", "upstream": "upstream-shop", "customer_id": "alice",
              "reason": None, "problems": None, "realm": None}  # fmt: skip
    return SimpleNamespace(**(fields | changes))


def test_every_kind_has_a_model_and_a_schema() -> None:
    assert set(DATA) == set(Kind)
    for kind in Kind:
        assert envelope(kind).model_json_schema()["properties"]["data"]


def test_an_event_that_cannot_be_told_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    known, unknown = uuid.uuid4(), uuid.uuid4()
    events, left_out = Composer("/test", str).compose(
        [happened(Kind.ORDER_CANCELLED, unknown), happened(Kind.ORDER_CANCELLED, known)],
        Facts(orders={known: order(known)}),
    )
    assert [event.subject for event in events] == [f"order/{known}"]
    assert [(one.event_id, one.kind) for one in left_out] == [(1, Kind.ORDER_CANCELLED)]
    assert "cannot be told" in caplog.text


def test_id_follows_from_what_happened_and_when() -> None:
    id_ = uuid.uuid4()
    facts = Facts(orders={id_: order(id_)})

    def told(one: Happened) -> uuid.UUID:
        return Composer("/test", str).compose([one], facts)[0][0].id

    one = happened(Kind.ORDER_CANCELLED, id_)
    assert told(one) == told(one)
    later = Happened(1, id_, datetime(2026, 3, 2, tzinfo=UTC), one.kind, {}, 1, 0)
    assert told(later) != told(one)


def test_a_customer_from_before_there_were_realms_is_of_that_of_the_upstream() -> None:
    id_ = uuid.uuid4()
    composer = Composer("/test", {"upstream-shop": "shops"}.__getitem__)
    (event,), _ = composer.compose(
        [happened(Kind.ORDER_CANCELLED, id_)], Facts(orders={id_: order(id_)})
    )
    assert event.routing_key == "shops.order.cancelled"


@pytest.mark.parametrize(
    ("realm", "word"),
    [("upstream-shop", "upstream-shop"), ("a.b", "a%2Eb"), ("#", "%23"), ("*", "%2A"),
     ("a b", "a%20b"), ("é", "%C3%A9"), ("", "%")],
)  # fmt: skip
def test_a_realm_is_one_word_of_a_routing_key(realm: str, word: str) -> None:
    assert realm_word(realm) == word
    assert routing_key(realm, Kind.ORDER_DELIVERED) == f"{word}.order.delivered"


def test_kinds_are_chosen_by_name_or_by_family() -> None:
    assert is_wanted(Kind.ORDER_DELIVERED, [])
    assert is_wanted(Kind.ORDER_DELIVERED, ["service.renewed", "order.*"])
    assert not is_wanted(Kind.ORDER_DELIVERED, ["service.*", "order.refused"])


def test_only_upstreams_have_topics_and_only_those_of_their_realm() -> None:
    assert topics_of("events", {}) is None
    assert topics_of("upstream-a", {}) == ("^$", r"^upstream\-a\..+$")
    assert topics_of("upstream-a", {"upstream-a": "x.y"}) == ("^$", r"^x%2Ey\..+$")
