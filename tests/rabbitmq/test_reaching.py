"""Reaching the broker: encrypted, one of several, refused; and what processes say of it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.ports import free_port
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.broker import BrokerRefuses, BrokerUnreachable, Hosts
from producers.relay.transport import RabbitTransport, TransportLost
from tests.rabbitmq.test_transport import messages
from tests.support.brokers import server_of
from tests.support.given import wait_until

pytestmark = [
    pytest.mark.rabbitmq,
    # pika leaves the socket of a failed handshake to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NOBODY = "amqp://a:b@127.0.0.1:1"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """With TLS, and a certificate for ``localhost`` of an authority that nobody knows."""
    # In the node's own folder: of another one a server that is fetched sees nothing.
    folder, port = tmp_path_factory.mktemp("node"), free_port()
    make_certificates(folder)
    configuration = f"""
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_none
"""
    node = PrivateRabbitMQ(folder, server_of("installed"), configuration)
    node.start()
    node.tls = f"localhost:{port}"  # type: ignore[attr-defined]
    node.cafile = folder / "ca.pem"  # type: ignore[attr-defined]
    yield node
    node.stop()


def make_certificates(folder: Path) -> None:
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout"
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for command in (
        f"req -x509 {key} ca.key -out ca.pem -days 2 -subj /CN=test"
        " -addext basicConstraints=critical,CA:true -addext keyUsage=keyCertSign",
        f"req {key} server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem"
        " -days 2 -extfile names",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def fleet(fleet_of: Any) -> PrivateFleet:
    return fleet_of()  # type: ignore[no-any-return]


def encrypted(fleet: PrivateFleet, user: str, options: str = "") -> str:
    node: Any = fleet.rabbitmq
    url = fleet.broker_url(user).replace("amqp://", "amqps://")
    return url.replace(f"127.0.0.1:{node.port}", node.tls) + options


def trusted(fleet: PrivateFleet, user: str) -> str:
    node: Any = fleet.rabbitmq
    return encrypted(fleet, user, f"?cafile={node.cafile}")


def test_connection_is_encrypted_with_an_authority_of_its_own(fleet: PrivateFleet) -> None:
    Hosts(trusted(fleet, "intake"), name="test").connect().close()
    transport = RabbitTransport(trusted(fleet, "relay"))
    assert transport.publish(messages(3)) == set()
    transport.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{tls}", "its certificate is not trusted: "),
        ("{trusted}&server_name=other", "its certificate is not trusted: Hostname mismatch"),
        (
            "amqp://intake:wrong@127.0.0.1:{port}/{vhost}",
            "wrong user name .* user intake",
        ),
        ("{plain}-not", "refused: vhost .* not found"),
        ("amqps://a:b@127.0.0.1:{port}/", "does not speak TLS on that port"),
    ],
)
def test_refusal_is_one_line_of_relay_and_of_intake(
    fleet: PrivateFleet, url: str, said: str
) -> None:
    for known, value in (
        ("{tls}", encrypted(fleet, "intake")),
        ("{trusted}", trusted(fleet, "intake")),
        ("{plain}", fleet.broker_url("intake")),
        ("{port}", str(fleet.rabbitmq.port)),
        ("{vhost}", fleet.vhost),
    ):
        url = url.replace(known, value)

    with pytest.raises(BrokerRefuses, match=said):
        Hosts(url, name="test").connect()
    with pytest.raises(TransportLost, match=said):
        RabbitTransport(url).publish(messages(1))


def test_hosts_of_a_list_are_tried_in_turn(fleet: PrivateFleet) -> None:
    vhost = fleet.vhost
    urls = f"{NOBODY}/{vhost},{trusted(fleet, 'relay')},{NOBODY}/{vhost}"

    Hosts(urls, name="test").connect().close()
    transport = RabbitTransport(urls)
    assert transport.publish(messages(3)) == set()
    transport.close()


def test_list_of_which_no_host_answers_says_why_of_each(fleet: PrivateFleet) -> None:
    urls = f"{NOBODY}/v,amqp://intake:wrong@127.0.0.1:{fleet.rabbitmq.port}/v"

    with pytest.raises(BrokerUnreachable) as raised:
        Hosts(urls, name="test").connect()

    said = str(raised.value)
    assert "127.0.0.1:1: Connection refused; 127.0.0.1:" in said
    assert not isinstance(raised.value, BrokerRefuses), "the first may come back"


def run(fleet: PrivateFleet, user: str, role: str, urls: str, *command: str) -> Any:
    environment = fleet.environment(user, role) | {"AUTORENEW_BROKER_URL": urls}
    return subprocess.run(
        [sys.executable, "-m", "autorenew", *command],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("user", "role", "command"),
    [
        ("intake", "api", ["intake"]),
        ("relay", "relay", ["relay"]),
        ("orders", "orders", ["worker", "orders"]),
    ],
)
@pytest.mark.parametrize("options", ["", "?cafile=/no/such/file"])
def test_process_that_cannot_use_its_url_ends_with_2_and_one_line(
    fleet: PrivateFleet, user: str, role: str, command: list[str], options: str
) -> None:
    done = run(fleet, user, role, encrypted(fleet, user, options), *command)

    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("autorenew: AUTORENEW_BROKER_URL: ")


def test_outage_of_the_broker_is_one_line_of_each_process_and_one_when_it_is_over(
    fleet: PrivateFleet, tmp_path: Path
) -> None:
    fleet.start_intake()
    fleet.start_relay()
    fleet.start_worker("web", "cloud")
    fleet.wait_for_consumers()
    fleet.rabbitmq.kill()
    threading.Event().wait(4.0)  # several attempts of each, with those while it starts
    fleet.rabbitmq.start()
    fleet.wait_for_consumers()
    logs = {name: tmp_path / f"fleet/{name}.log" for name in ("intake", "relay", "worker-web")}
    for name, log in logs.items():
        back = "connected again" if name == "worker-web" else "works again"
        wait_until(lambda log=log, back=back: back in log.read_text(), f"{name} is back")
    fleet.stop()

    for name, log in logs.items():
        said = [line for line in log.read_text().splitlines() if " WARNING " in line]
        assert len(said) == 1, (name, said)
        speaker = {"worker-web": "worker web,cloud"}.get(name, name)
        assert f" {speaker}[" in said[0]
        assert "Traceback" not in log.read_text()
