"""The Python client over AMQP, against an intake and the broker."""

import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers import AsyncClient, Client, topology
from producers.client import Placed, errors
from producers.management import Management
from tests.rabbitmq.test_amqp_intake import running_intake
from tests.rabbitmq.test_transport import cut, depth
from tests.support import given
from tests.support.given import line, wait_until

pytestmark = pytest.mark.rabbitmq

SERVICE = "4fe769c4-ead1-5229-bb05-0a94e6c3c81e"


@pytest.fixture(scope="module")
def fleet(
    postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ, tmp_path_factory: Any
) -> Iterator[PrivateFleet]:
    folder = tmp_path_factory.mktemp("client")
    fleet = PrivateFleet(folder, postgres, rabbitmq, database=f"fleet_{uuid.uuid4().hex[:8]}")
    fleet.prepare(given.CATALOGUE)
    fleet.setup_broker("upstream-shop")
    yield fleet
    fleet.close()


@pytest.fixture
def intake(fleet: PrivateFleet) -> Iterator[None]:
    with running_intake(fleet):
        yield


@pytest.fixture
def client(fleet: PrivateFleet) -> Iterator[Client]:
    with Client(fleet.broker_url("upstream-shop"), timeout=15) as client:
        yield client


def order(*lines: Any, **changes: Any) -> Any:
    return given.order(f"client-{uuid.uuid4().hex[:12]}", *lines, **changes)


@pytest.mark.usefixtures("intake")
def test_order_is_placed_once_and_refusals_are_errors_of_their_code(
    fleet: PrivateFleet, client: Client
) -> None:
    document = order()

    placed = client.place(document)
    again = client.place(document)

    id = str(fleet.scalar("SELECT id FROM orders WHERE key = :key", key=document["key"]))
    assert placed == Placed(document["key"], id, repeated=False)
    assert again == Placed(document["key"], id, repeated=True)
    with pytest.raises(errors.KeyReused) as reused:
        client.place(document | {"lines": [line("server")]})
    assert reused.value.verdict == "rejected"
    with pytest.raises(errors.PlanUnknown) as unsold:
        client.place(order(line("no-such-plan")))
    assert unsold.value.problems[0].path == "lines.0.plan"
    assert unsold.value.verdict == "refused"
    with pytest.raises(errors.NotJson):
        client.place(b"{")
    with pytest.raises(errors.VersionUnknown):
        client.place(order() | {"version": 7})


@pytest.mark.usefixtures("intake")
def test_commands_are_answered(client: Client) -> None:
    document = order()
    customer = f"c-{document['key']}"
    client.place(document | {"customer": document["customer"] | {"id": customer}})

    assert client.change_customer(customer, email="new@example.com").changed
    assert not client.change_customer(customer, email="new@example.com").changed
    assert client.payment_method(customer, "tok-new", expires="2030-06").changed
    assert not client.accept(customer, [{"contract": "terms", "version": 2}]).changed
    for attempt in (
        lambda: client.stop(customer, SERVICE),
        lambda: client.resume(customer, SERVICE),
        lambda: client.mode(customer, SERVICE, "manual"),
        lambda: client.renew(customer, SERVICE, "2030-01-01"),
    ):
        with pytest.raises(errors.ServiceUnknown):
            attempt()


@pytest.mark.usefixtures("intake")
def test_many_orders_are_under_way_at_once(client: Client) -> None:
    documents = [order() for _ in range(300)] + [order(line("no-such-plan"))]

    answers = client.place_many(documents)

    assert [a.key for a in answers] == [d["key"] for d in documents]
    assert all(isinstance(answer, Placed) for answer in answers[:-1])
    assert isinstance(answers[-1], errors.PlanUnknown)


@pytest.mark.usefixtures("intake")
def test_threads_may_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = [placed.key for placed in pool.map(lambda _: client.place(order()), range(40))]

    assert len(set(keys)) == 40


@pytest.mark.usefixtures("intake")
def test_event_loop_is_not_held_up(fleet: PrivateFleet) -> None:
    async def run() -> None:
        async with AsyncClient(fleet.broker_url("upstream-shop"), timeout=15) as client:
            placed = await asyncio.gather(*(client.place(order()) for _ in range(40)))
            assert len({one.order_id for one in placed}) == 40
            with pytest.raises(errors.CustomerUnknown):
                await client.change_customer("nobody", email="a@example.com")
            answers = await client.place_many([order(), order(line("no-such-plan"))])
            assert [type(answer) for answer in answers] == [Placed, errors.PlanUnknown]
            with pytest.raises(errors.NotOffered):
                await client.order("k-1")

    asyncio.run(run())


@pytest.mark.usefixtures("intake")
def test_order_is_placed_although_the_connection_is_cut(
    fleet: PrivateFleet, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the commit and before the answer: the client asks again."""
    cuts = []

    def lose_the_connection(name: str) -> None:
        if name == "intake.before_commit" and not cuts:
            cuts.append(cut(fleet.rabbitmq, fleet.vhost))

    client.place(order())
    monkeypatch.setattr("producers.intake.intake.failpoint", lose_the_connection)

    assert client.place(order()).order_id
    assert len(cuts) == 1


def test_document_that_is_not_answered_in_time_is_uncertain_and_stays(fleet: PrivateFleet) -> None:
    with Client(fleet.broker_url("upstream-shop"), timeout=1, attempts=1) as client:
        document = order()
        with pytest.raises(errors.Uncertain) as uncertain:
            client.place(document)
        assert uncertain.value.confirmed
        client.publish(document, "order.v1")
    with running_intake(fleet), Client(fleet.broker_url("upstream-shop"), timeout=15) as client:
        assert client.place(document).repeated


def test_queue_that_is_full_is_an_overload_that_leaves_nothing(fleet: PrivateFleet) -> None:
    management = Management(fleet.rabbitmq.management_url, fleet.vhost)
    wanted = topology.policies(management.check(), 1, 2**20)
    topology.set_policies(management, wanted)
    try:
        with Client(fleet.broker_url("upstream-shop"), timeout=5, attempts=1) as client:

            def is_full() -> bool:
                try:
                    client.publish(order(), "order.v1")
                except errors.Overloaded:
                    return True
                return False

            wait_until(is_full, "the queue is full")
    finally:
        fleet.setup_broker()
    with running_intake(fleet):
        wait_until(lambda: depth(fleet, "intake") == 0, "it is empty again")


def test_exchange_without_a_queue_is_said(fleet: PrivateFleet) -> None:
    admin = fleet.rabbitmq.url(vhost=fleet.vhost)
    unbound = Client(admin, exchange="amq.direct", timeout=5)
    with unbound as client, pytest.raises(errors.Misrouted, match="NO_ROUTE"):
        client.place(order())


def test_wrong_password_and_broker_that_is_away_are_one_line(fleet: PrivateFleet) -> None:
    url = fleet.broker_url("upstream-shop")
    for wrong, said in (
        (url.replace("pw-upstream-shop", "wrong"), "wrong user name or password"),
        ("amqp://upstream-shop:x@127.0.0.1:1/", "refused"),
    ):
        with Client(wrong, timeout=10, attempts=1) as client:
            with pytest.raises(errors.Unreachable) as unreachable:
                client.place(order())
            assert said in str(unreachable.value)
            assert "\n" not in str(unreachable.value)
