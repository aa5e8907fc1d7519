"""Intake over AMQP: plain JSON on the exchange ``intake``, acknowledged after the commit."""

import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest
from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from autorenew.local.rabbitmq import PrivateRabbitMQ
from monitoring import metrics
from producers.intake import Intake
from producers.intake.amqp import AmqpIntake
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from tests.rabbitmq.test_transport import cut, depth
from tests.support.given import body, line, order, wait_until

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def fleet(fleet_of: Any) -> Iterator[PrivateFleet]:
    """With an intake that runs in this process."""
    fleet = fleet_of()
    with running_intake(fleet):
        yield fleet


@contextmanager
def running_intake(fleet: PrivateFleet, **options: Any) -> Iterator[None]:
    """An intake that runs in a thread of this process."""
    engine = connect(fleet.database_url("api"))
    intake = Intake(engine, CatalogueCache(), SystemClock())
    consumer = AmqpIntake(fleet.broker_url("intake"), intake, **options)
    thread = threading.Thread(target=consumer.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(30)
        engine.dispose()
    assert not thread.is_alive()


def send(
    fleet: PrivateFleet,
    *bodies: bytes,
    user: str = "upstream",
    exchange: str = "intake",
    **properties: Any,
) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url(user)))
    channel = connection.channel()
    channel.confirm_delivery()
    fields = {"user_id": user, "delivery_mode": 2} | properties
    for each in bodies:
        channel.basic_publish(exchange, "", each, pika.BasicProperties(**fields), mandatory=True)
    connection.close()


def orders(fleet: PrivateFleet) -> int:
    return int(fleet.scalar("SELECT count(*) FROM orders"))


def rejected(fleet: PrivateFleet) -> list[str]:
    query = "SELECT coalesce(string_agg(code, ' ' ORDER BY code), '') FROM rejected_documents"
    return str(fleet.scalar(query)).split()


def test_orders_are_taken_in_and_their_upstream_is_the_amqp_user(fleet: PrivateFleet) -> None:
    send(fleet, *(body(order(f"k-{n}")) for n in range(50)))

    wait_until(lambda: orders(fleet) == 50, "all orders are taken in")
    assert fleet.scalar("SELECT DISTINCT upstream FROM orders") == "upstream"
    wait_until(lambda: depth(fleet, "intake") == 0, "all are acknowledged")


def test_each_upstream_user_has_keys_of_its_own(fleet: PrivateFleet) -> None:
    fleet.setup_broker("upstream-shop", "upstream-partner")

    for user in ("upstream-shop", "upstream-partner"):
        send(fleet, body(order("k-1", customer=user)), user=user)

    wait_until(lambda: orders(fleet) == 2, "both are taken in")


def test_bad_documents_are_kept_and_do_not_loop(fleet: PrivateFleet) -> None:
    send(
        fleet,
        b"not json",
        b"\xff\x00",
        b"",
        body(order("k-1", line("no-such-plan"))),
        body(order("k-2")),
    )

    wait_until(lambda: len(rejected(fleet)) == 4, "four are kept")
    assert rejected(fleet) == ["not_json", "not_json", "not_json", "plan_unknown"]
    wait_until(lambda: depth(fleet, "intake") == 0, "nothing is left")
    accepted = "SELECT count(*) FROM orders WHERE state = 'accepted'"
    wait_until(lambda: fleet.scalar(accepted) == 1, "the good one is taken, perhaps later")


def test_commands_come_in_by_the_same_queue_and_are_done_in_order(
    fleet: PrivateFleet,
) -> None:
    one_click = {"customer": "alice", "payment_method": "tok-new"}
    send(
        fleet,
        body(order("k-1")),
        body({"command": "payment_method"} | one_click),
        body({"command": "stop", "customer": "alice", "services": [str(uuid.uuid4())]}),
    )

    wait_until(lambda: rejected(fleet) == ["service_unknown"], "what cannot be done is kept")
    saved = """SELECT token FROM customers JOIN payment_methods AS m ON m.id = payment_method_id
            WHERE customers.id = 'alice'"""
    assert fleet.scalar(saved) == "tok-new"
    wait_until(lambda: depth(fleet, "intake") == 0, "all are acknowledged")


def test_document_without_a_user_id_is_kept_and_not_taken(fleet: PrivateFleet) -> None:
    send(fleet, body(order("k-1")), user_id=None)

    wait_until(lambda: rejected(fleet) == ["user_id_missing"], "it is kept")
    assert orders(fleet) == 0


def test_document_with_any_routing_key_is_taken(
    fleet: PrivateFleet,
) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    properties = pika.BasicProperties(user_id="upstream")
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("intake", "orders.new.fr", body(order()), properties, mandatory=True)
    connection.close()

    wait_until(lambda: orders(fleet) == 1, "it is taken in")


def test_document_with_undecodable_headers_does_not_stop_the_others(
    fleet: PrivateFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timestamp in milliseconds, as many publishers send it."""

    def encode(pieces: list[bytes], _table: Any) -> int:
        entry = b"\x04sent" + b"T" + struct.pack(">Q", 1_700_000_000_000)
        pieces.append(struct.pack(">I", len(entry)) + entry)
        return 4 + len(entry)

    with monkeypatch.context() as patch:
        patch.setattr("pika.data.encode_table", encode)
        send(fleet, body(order("k-1")), headers={"sent": 1})
    send(fleet, body(order("k-2")))

    wait_until(lambda: orders(fleet) == 1, "the neighbour is taken in")
    wait_until(lambda: rejected(fleet) == ["user_id_missing"], "the other one is kept")
    wait_until(lambda: depth(fleet, "intake") == 0, "nothing loops")


def test_redelivered_documents_change_nothing(
    fleet: PrivateFleet, rabbitmq: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost between the commit and the acknowledgement, twice."""
    cuts = 0

    def lose_the_connection(name: str) -> None:
        nonlocal cuts
        if name == "intake.before_ack" and cuts < 2:
            cuts += 1
            cut(rabbitmq, fleet.vhost)

    monkeypatch.setattr("producers.intake.amqp.failpoint", lose_the_connection)
    repeated = metrics.documents.labels("amqp", "repeated")._value
    before = repeated.get()

    send(fleet, *(body(order(f"k-{n}")) for n in range(20)))
    wait_until(lambda: repeated.get() > before, "some come again")
    send(fleet, *(body(order(f"more-{n}")) for n in range(20)))

    wait_until(lambda: orders(fleet) == 40, "all are taken in, once")
    wait_until(lambda: depth(fleet, "intake") == 0, "all are acknowledged")
    assert cuts == 2
    assert fleet.scalar("SELECT count(*) FROM tasks") == 40
    assert rejected(fleet) == []


def test_intake_goes_on_after_its_queue_was_deleted_and_declared_again(
    fleet: PrivateFleet, rabbitmq: PrivateRabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleting a queue cancels its consumers, which raises nothing by itself."""
    send(fleet, body(order("k-1")))
    wait_until(lambda: orders(fleet) == 1, "the intake is at work")

    failures = metrics.loop_failures.labels("intake", "broker")._value
    before = failures.get()
    rabbitmq.ctl("delete_queue", "intake", "-p", fleet.vhost)
    wait_until(lambda: "cancelled the consumer" in caplog.text, "the intake has noticed")
    assert "run `autorenew broker setup`" in caplog.text
    wait_until(lambda: failures.get() >= before + 3, "it has looked for the queue")
    fleet.setup_broker()

    send(fleet, body(order("k-2")))
    wait_until(lambda: orders(fleet) == 2, "it is taken in")
    assert "Traceback" not in caplog.text


def test_error_nobody_foresaw_stops_the_intake_only_for_a_moment(
    fleet: PrivateFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_once = iter([RuntimeError("a defect")])

    def defect(name: str) -> None:
        if name == "intake.before_ack" and (error := next(fail_once, None)):
            raise error

    monkeypatch.setattr("producers.intake.amqp.failpoint", defect)
    repeated = metrics.documents.labels("amqp", "repeated")._value
    before = repeated.get()

    send(fleet, body(order("k-1")))

    wait_until(lambda: repeated.get() > before, "the order comes again, as it was not acknowledged")
    assert orders(fleet) == 1
    assert "RuntimeError: a defect" in caplog.text


def test_accepted_command_is_done_and_a_refused_one_is_kept(fleet: PrivateFleet) -> None:
    with fleet.owner.begin() as tx:
        service = tx.execute(DELIVERED).scalar_one()
    stop = {"command": "stop", "customer": "alice", "services": [str(service)]}

    send(fleet, body(stop), body(stop), body({**stop, "customer": "bob"}))

    wait_until(lambda: rejected(fleet) == ["service_unknown"], "the one of a stranger is refused")
    assert fleet.scalar("SELECT mode FROM services") == "stop"
    changes = "SELECT count(*) FROM events WHERE name = 'mode.changed'"
    assert fleet.scalar(changes) == 1
    kept = fleet.scalar("SELECT upstream || ' ' || door FROM rejected_documents")
    assert kept == "upstream amqp"
    wait_until(lambda: depth(fleet, "intake") == 0, "all are acknowledged")


DELIVERED = text("""
    INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,
        configuration, period_months, state, desired, anchor, paid_periods, expires_at)
    VALUES (gen_random_uuid(), 'alice', 'FR', 'site', 'web', 'ovh', 'web', '{}', 1, 'active',
        'active', '2026-01-01', 1, '2026-02-01')
    RETURNING id
""")
