"""``autorenew broker setup``: what it takes, what it declares, and in which order it fails."""

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pika
import pytest
from click.testing import CliRunner, Result
from pika.exceptions import NackError

from autorenew.cli import main
from autorenew.local.fleet import PrivateFleet
from producers import topology
from producers.management import Management
from tests.rabbitmq.test_amqp_intake import orders, running_intake, send
from tests.rabbitmq.test_transport import depth
from tests.support.given import body, order, wait_until

pytestmark = pytest.mark.rabbitmq

PASSWORD = "p/w:@?#%ä,x"


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet]) -> PrivateFleet:
    return fleet_of()


@pytest.fixture
def vhost(fleet: PrivateFleet) -> str:
    """A virtual host in which nothing is declared, with an administrator whose password is hard."""
    name = f"{fleet.vhost}/empty"
    fleet.rabbitmq.add_vhost(name)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    Management(fleet.rabbitmq.management_url, name).put_user(fleet.vhost, PASSWORD, everything)
    fleet.rabbitmq.ctl("set_user_tags", fleet.vhost, "administrator")
    return name


def environment(fleet: PrivateFleet, vhost: str, password: str = PASSWORD) -> dict[str, str]:
    who = f"{fleet.vhost}:{quote(password, safe='')}"
    return {
        "AUTORENEW_BROKER_URL": f"amqp://{who}@127.0.0.1:{fleet.rabbitmq.port}/"
        f"{quote(vhost, safe='')}",
        "AUTORENEW_BROKER_MANAGEMENT_URL": f"http://{who}@127.0.0.1:"
        f"{fleet.rabbitmq.management_port}",
    }


def setup(variables: dict[str, str], **more: Any) -> Result:
    more = {f"AUTORENEW_{name.upper()}": json.dumps(value) for name, value in more.items()}
    return CliRunner().invoke(main, ["broker", "setup"], env={**variables, **more})


def queues(fleet: PrivateFleet, vhost: str) -> str:
    return fleet.rabbitmq.ctl("list_queues", "--vhost", vhost, "name")


def test_password_and_vhost_may_have_any_characters(fleet: PrivateFleet, vhost: str) -> None:
    secret = "s/e:c@r?e#t%" + "0123456789"
    users = {"intake": secret, f"upstream-{fleet.vhost}": secret}

    done = setup(environment(fleet, vhost), broker_passwords=users)

    assert done.exit_code == 0, done.output
    assert f"users: intake, upstream-{fleet.vhost}" in done.output
    url = f"amqp://intake:{quote(secret, safe='')}@127.0.0.1:{fleet.rabbitmq.port}/"
    pika.BlockingConnection(pika.URLParameters(url + quote(vhost, safe=""))).close()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AUTORENEW_BROKER_MANAGEMENT_URL": "http://a:wrong@127.0.0.1:{port}"}, "wrong user name"),
        ({"AUTORENEW_BROKER_MANAGEMENT_URL": "http://127.0.0.1:{port}"}, "no administrator and"),
        ({"AUTORENEW_BROKER_MANAGEMENT_URL": "http://a:b@127.0.0.1:1"}, "cannot be reached"),
        ({"AUTORENEW_BROKER_PASSWORDS": '{"nobody": "0123456789abcdefgh"}'}, "no user nobody"),
        ({"AUTORENEW_INTAKE_UPSTREAMS": '["shop"]'}, "'shop' is no broker user upstream-NAME"),
    ],
)
def test_mistake_is_one_line_and_found_before_anything_is_declared(
    fleet: PrivateFleet, vhost: str, variables: dict[str, str], said: str
) -> None:
    port = str(fleet.rabbitmq.management_port)
    given = {name: value.replace("{port}", port) for name, value in variables.items()}

    done = setup({**environment(fleet, vhost), **given})

    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1
    assert said in done.output
    assert "intake" not in queues(fleet, vhost)


def test_wrong_password_is_one_line(fleet: PrivateFleet, vhost: str) -> None:
    done = setup(environment(fleet, vhost, "wrong"))

    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1
    assert "wrong user name or password" in done.output


def test_setup_without_the_management_api_says_what_is_missing(
    fleet: PrivateFleet, vhost: str
) -> None:
    variables = environment(fleet, vhost)
    del variables["AUTORENEW_BROKER_MANAGEMENT_URL"]

    done = setup(variables)

    assert done.exit_code == 1
    assert "no policies: AUTORENEW_BROKER_MANAGEMENT_URL is not set" in done.output
    assert "intake" in queues(fleet, vhost)


def test_policy_of_others_that_wins_is_named(fleet: PrivateFleet, vhost: str) -> None:
    all_queues = {"pattern": ".*", "apply-to": "all", "definition": {"max-length": 5}}
    api = Management(fleet.rabbitmq.management_url, vhost)
    api.put_policy("theirs", {**all_queues, "priority": 99})
    api.put_policy("below", {**all_queues, "priority": 1})

    done = setup(environment(fleet, vhost))

    assert done.exit_code == 1
    assert "the policy theirs wins over autorenew-intake:" in done.output
    assert "the policy below" not in done.output


def test_queues_of_the_release_before_are_brought_up_to_date(
    fleet: PrivateFleet, vhost: str
) -> None:
    """The arguments of a queue cannot be changed, and setting it up again must not fail."""
    connection = pika.BlockingConnection(
        pika.URLParameters(environment(fleet, vhost)["AUTORENEW_BROKER_URL"])
    )
    channel = connection.channel()
    of_before = {
        "x-dead-letter-exchange": "intake.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    for name, arguments in (("intake.dead", {}), ("intake", of_before), ("orders", {})):
        channel.exchange_declare(name, "fanout", durable=True)
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", **arguments})
    connection.close()

    done = setup(environment(fleet, vhost))

    assert done.exit_code == 0, done.output
    api = Management(fleet.rabbitmq.management_url, vhost)
    policies = {policy["name"]: policy["definition"] for policy in api.policies()}
    is_4 = api.check() >= (4,)
    assert ("autorenew-tasks" in policies) == is_4
    wanted = topology.MOST_DELIVERIES if is_4 else None
    assert policies["autorenew-intake"].get("delivery-limit") == wanted


def test_log_of_a_queue_that_nobody_uses_does_not_grow(fleet: PrivateFleet, vhost: str) -> None:
    """RabbitMQ 4.0 writes a policy into it again and again that says -1: rabbitmq-server 14202."""
    if Management(fleet.rabbitmq.management_url, vhost).check() < (4,):
        pytest.skip("policies are looked at again and again since version 4")
    fleet.rabbitmq.ctl("eval", "application:set_env(rabbit, quorum_tick_interval, 100).")
    assert setup(environment(fleet, vhost)).exit_code == 0

    def length(queue: str) -> int:
        status = f'rabbit_quorum_queue:status(<<"{vhost}">>, <<"{queue}">>).'
        found = re.search(r"Last Log Index\W+(\d+)", fleet.rabbitmq.ctl("eval", status))
        assert found is not None
        return int(found[1])

    every = ("orders", topology.INTAKE_QUEUE, topology.DEAD_INTAKE)  # one of each policy
    before = {queue: length(queue) for queue in every}
    time.sleep(1)  # ten looks

    assert {queue: length(queue) for queue in every} == before


def test_full_queue_tells_the_publisher(fleet_of: Callable[..., PrivateFleet]) -> None:
    fleet = fleet_of(intake_cap="10")

    def publish() -> None:
        send(fleet, *(body(order(f"k-{n}")) for n in range(20)))

    with pytest.raises(NackError):
        publish()

    wait_until(lambda: depth(fleet, "intake") >= 10, "it is full")
    with running_intake(fleet):
        wait_until(lambda: orders(fleet) >= 10, "what was confirmed is taken in")
        wait_until(lambda: depth(fleet, "intake") == 0, "it is empty")
        send(fleet, body(order("k-again")))


def test_upstream_with_a_queue_of_its_own_does_not_wait_for_what_another_floods(
    fleet: PrivateFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.intake.link.PREFETCH", 50)
    upstream = "upstream-partner"
    fleet.setup_broker(upstream, upstreams=[upstream])
    send(fleet, *(body(order(f"flood-{n}", customer="a")) for n in range(600)))
    send(fleet, body(order("k-1", customer="b")), user=upstream, exchange=f"intake.{upstream}")
    query = "SELECT count(*) FROM orders WHERE upstream = :name"

    with running_intake(fleet, upstreams=[upstream]):
        wait_until(lambda: fleet.scalar(query, name=upstream) == 1, "it is taken in")
        before_it = fleet.scalar(
            """SELECT count(*) FROM events WHERE name = 'order.accepted' AND id <
               (SELECT e.id FROM events AS e JOIN orders AS o ON o.id = e.subject
                WHERE e.name = 'order.accepted' AND o.upstream = :name)""",
            name=upstream,
        )
        assert before_it <= 200
        wait_until(lambda: orders(fleet) == 601, "the flood is taken in as well")


def test_upstream_may_write_to_its_own_exchange_and_to_that_of_no_other(
    fleet: PrivateFleet,
) -> None:
    fleet.setup_broker("upstream-a", "upstream-b", upstreams=["upstream-a", "upstream-b"])
    for exchange in ("intake", "intake.upstream-a"):
        send(fleet, body(order()), user="upstream-a", exchange=exchange)

    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        send(fleet, body(order()), user="upstream-a", exchange="intake.upstream-b")


def test_names_of_queues_and_permissions_of_intake_agree() -> None:
    import re

    reads = topology.PERMISSIONS["intake"][2]

    assert re.fullmatch(reads, topology.queue_of("upstream-a"))
    assert not re.fullmatch(reads, topology.DEAD_INTAKE)
