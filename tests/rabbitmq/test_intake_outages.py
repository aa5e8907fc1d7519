"""What intake does while its database is away, and with documents that it cannot take."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from autorenew.cli import main
from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from monitoring import metrics
from producers import topology
from producers.intake import Intake, dead
from producers.management import Management
from schemas.database import connect
from tests.rabbitmq.test_amqp_intake import orders, rejected, running_intake, send
from tests.rabbitmq.test_transport import depth
from tests.support.given import body, order, wait_until

pytestmark = pytest.mark.rabbitmq

GIVES_UP_AFTER = 20


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet], monkeypatch: pytest.MonkeyPatch) -> PrivateFleet:
    monkeypatch.setattr("producers.intake.amqp.LONGEST_PAUSE", 0.02)
    return fleet_of()


def management(fleet: PrivateFleet) -> Management:
    return Management(fleet.rabbitmq.management_url, fleet.vhost)


def admin(fleet: PrivateFleet) -> dict[str, str]:
    """The environment of an administrator's commands."""
    return {
        "AUTORENEW_BROKER_URL": fleet.rabbitmq.url(vhost=fleet.vhost),
        "AUTORENEW_BROKER_MANAGEMENT_URL": fleet.rabbitmq.management_url,
    }


def give_up_after(fleet: PrivateFleet, deliveries: int) -> None:
    """As quorum queues of RabbitMQ 4 do without a policy of ours."""
    api = management(fleet)
    policies = topology.policies(api.check(), 1000, 2**30)
    policies["autorenew-intake"]["definition"]["delivery-limit"] = deliveries
    topology.set_policies(api, policies)


def failures() -> float:
    return metrics.loop_failures.labels("intake", "database")._value.get()  # type: ignore[no-any-return]


def repeated() -> float:
    return metrics.documents.labels("amqp", "repeated")._value.get()  # type: ignore[no-any-return]


def left(fleet: PrivateFleet, queue: str = "intake") -> int:
    return depth(fleet, queue)


@contextmanager
def no_database(fleet: PrivateFleet, postgres: PrivatePostgres) -> Iterator[None]:
    """Nobody gets a connection, and those that are open are cut."""
    fleet.owner.dispose()
    engine = connect(postgres.url("postgres"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        tx.execute(text(f"ALTER DATABASE {fleet.database} ALLOW_CONNECTIONS false"))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        tx.execute(text(cut), {"name": fleet.database})
        try:
            yield
        finally:
            tx.execute(text(f"ALTER DATABASE {fleet.database} ALLOW_CONNECTIONS true"))
    engine.dispose()


def test_outage_of_the_database_costs_no_document_however_often_it_is_retried(
    fleet: PrivateFleet, postgres: PrivatePostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """150 s without a database moved 48 of 48 orders to intake.dead, one delivery a retry."""
    caplog.set_level(logging.INFO, "producers.loop")
    give_up_after(fleet, GIVES_UP_AFTER)
    with running_intake(fleet):
        send(fleet, body(order("k-0")))
        wait_until(lambda: orders(fleet) == 1, "the intake is at work")
        before = failures()
        with no_database(fleet, postgres):
            send(fleet, *(body(order(f"k-{n}")) for n in range(1, 49)))
            retries = 2 * GIVES_UP_AFTER
            wait_until(lambda: failures() >= before + retries, "it was tried again and again")

        wait_until(lambda: orders(fleet) == 49, "all are taken in")
        wait_until(lambda: left(fleet) == 0, "all are acknowledged")
        assert left(fleet, "intake.dead") == 0
        wait_until(lambda: "works again" in caplog.text, "the log says so")
    said = [r for r in caplog.records if r.name == "producers.loop" and r.levelname == "WARNING"]
    assert len(said) == 1, [record.getMessage() for record in said]


def test_outage_that_lasts_leaves_the_documents_on_the_queue(
    fleet: PrivateFleet, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.intake.amqp.HOLD_SECONDS", 0.0)
    with running_intake(fleet):
        send(fleet, body(order("k-0")))
        wait_until(lambda: orders(fleet) == 1, "the intake is at work")
        with no_database(fleet, postgres):
            send(fleet, *(body(order(f"k-{n}")) for n in range(1, 9)))
            wait_until(lambda: left(fleet) == 8, "they are given back")
            before = failures()
            wait_until(lambda: failures() >= before + 10, "no database is looked for in vain")
            assert left(fleet) == 8

        wait_until(lambda: orders(fleet) == 9, "all are taken in")


def test_database_that_hangs_costs_no_connection(
    fleet: PrivateFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker closes a connection that answers no heartbeat; what it had comes again."""
    monkeypatch.setattr("producers.intake.amqp.HEARTBEAT_SECONDS", 1)
    before = repeated()
    with running_intake(fleet):
        with fleet.owner.begin() as tx:
            tx.execute(text("LOCK TABLE orders"))
            send(fleet, body(order("k-1")))
            tx.execute(text("SELECT pg_sleep(5)"))

        wait_until(lambda: orders(fleet) == 1, "it is taken in")
        wait_until(lambda: left(fleet) == 0, "it is acknowledged")
        assert repeated() == before


def test_queues_never_give_up_a_document_by_themselves(fleet: PrivateFleet) -> None:
    """By a policy, as the arguments of a queue that exists cannot be changed."""
    import pika

    send(fleet, body(order("k-1")))
    for _ in range(GIVES_UP_AFTER + 5):
        connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("intake")))
        channel = connection.channel()
        wait_until(lambda c=channel: c.basic_get("intake")[0] is not None, "it is there")
        connection.close()

    wait_until(lambda: left(fleet) == 1, "it is back")
    assert left(fleet, "intake.dead") == 0


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Documents with the word ``poison`` bring a defect to light, until it is mended."""
    place = Intake.place
    is_mended = False

    def defective(self: Intake, upstream: str, door: str, documents: Any, traces: Any) -> Any:
        if not is_mended and any(b"poison" in document.body for document in documents):
            raise RuntimeError("a defect")
        return place(self, upstream, door, documents, traces)

    def mend(mended: bool) -> None:
        nonlocal is_mended
        is_mended = mended

    monkeypatch.setattr(Intake, "place", defective)
    return mend


def test_document_that_brings_a_defect_to_light_is_set_aside_and_can_be_put_back(
    fleet: PrivateFleet,
    poisonous: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("producers.intake.link.MEASURE_EVERY_SECONDS", 0.1)
    with running_intake(fleet):
        good = [body(order(f"k-{n}")) for n in range(20)]
        send(fleet, *good[:10], body(order("poison-1")), body(order("poison-2")), *good[10:])

        wait_until(lambda: orders(fleet) == 20, "its neighbours are taken in")
        wait_until(lambda: left(fleet, "intake.dead") == 2, "they are set aside")
        assert "RuntimeError('a defect')" in caplog.text
        gauge = metrics.intake_waiting().labels("intake.dead")
        wait_until(lambda: gauge._value.get() == 2, "the metric shows them")
        assert dead.count(fleet.broker_url("intake")) == 2

        poisonous(True)
        said = CliRunner().invoke(
            main, ["broker", "requeue-dead", "--limit", "1"], env=admin(fleet)
        )
        assert said.output == "1 documents are put back into intake, 1 are left on intake.dead\n"
        assert said.exit_code == 0
        wait_until(lambda: orders(fleet) == 21, "that one is taken in")
        said = CliRunner().invoke(main, ["broker", "requeue-dead"], env=admin(fleet))
        assert said.output == "1 documents are put back into intake, 0 are left on intake.dead\n"
        wait_until(lambda: orders(fleet) == 22, "the other one, too")
        assert fleet.scalar("SELECT DISTINCT upstream FROM orders") == "upstream"
        assert rejected(fleet) == []
        wait_until(lambda: gauge._value.get() == 0, "the metric shows none")


def test_defect_that_every_document_brings_to_light_sets_none_aside(
    fleet: PrivateFleet, poisonous: Callable[[bool], None]
) -> None:
    with running_intake(fleet):
        send(fleet, *(body(order(f"poison-{n}")) for n in range(60)))
        defects = metrics.loop_failures.labels("intake", "defect")._value
        before = defects.get()
        wait_until(lambda: defects.get() > before, "the loop says so")

        poisonous(True)
        wait_until(lambda: orders(fleet) == 60, "they are taken in once it is mended")
        assert left(fleet, "intake.dead") == 0


def test_documents_are_put_back_only_where_a_policy_says_whereto(fleet: PrivateFleet) -> None:
    fleet.rabbitmq.ctl("clear_policy", "-p", fleet.vhost, "autorenew-intake-dead")

    said = CliRunner().invoke(main, ["broker", "requeue-dead"], env=admin(fleet))

    assert said.exit_code == 2
    assert "run `autorenew broker setup`" in said.output


def test_list_of_rejected_documents_names_those_that_are_set_aside(fleet: PrivateFleet) -> None:
    import pika

    send(fleet, body(order("k-1")))
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("intake")))
    channel = connection.channel()
    wait_until(lambda: left(fleet) == 1, "it is there")
    method, _, _ = channel.basic_get("intake")
    channel.basic_nack(method.delivery_tag, requeue=False)
    wait_until(lambda: left(fleet, "intake.dead") == 1, "it is set aside")
    connection.close()
    environment = admin(fleet) | {"AUTORENEW_DATABASE_URL": fleet.database_url("readonly")}

    said = CliRunner().invoke(main, ["rejected", "list"], env=environment)

    assert said.exit_code == 0
    assert "1 documents are set aside on intake.dead" in said.output


def test_old_rejected_documents_are_deleted(fleet: PrivateFleet) -> None:
    with running_intake(fleet, keep_days=30):
        send(fleet, b"not json", b"neither")
        wait_until(lambda: len(rejected(fleet)) == 2, "both are kept")
    with fleet.owner.begin() as tx:
        tx.execute(
            text("""UPDATE rejected_documents SET received_at = now() - interval '31 days'
                 WHERE id = (SELECT min(id::text)::uuid FROM rejected_documents)""")
        )
    with running_intake(fleet, keep_days=30):
        wait_until(lambda: len(rejected(fleet)) == 1, "the old one is gone")
