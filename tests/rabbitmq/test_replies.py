"""Whoever asks for it is answered over AMQP, after the commit; who may not is not answered."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from autorenew.contract.examples import EXAMPLES
from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from monitoring import metrics
from producers import topology
from producers.management import Management
from tests.rabbitmq.test_amqp_intake import rejected, running_intake, send
from tests.rabbitmq.test_transport import cut
from tests.support import given
from tests.support.given import body, line, wait_until
from tests.support.servers import node_packages

pytestmark = pytest.mark.rabbitmq

PUBLISH_JS = Path(__file__).parents[2] / "docs/examples/publish.js"
DIRECT = "amq.rabbitmq.reply-to"


@pytest.fixture(scope="module")
def running(
    postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ, tmp_path_factory: Any
) -> Iterator[PrivateFleet]:
    """One intake for all tests here."""
    folder = tmp_path_factory.mktemp("replies")
    fleet = PrivateFleet(folder, postgres, rabbitmq, database=f"fleet_{uuid.uuid4().hex[:8]}")
    fleet.prepare(given.CATALOGUE)
    fleet.setup_broker("upstream-shop", "upstream-partner")
    with running_intake(fleet):
        yield fleet
    fleet.close()


@pytest.fixture
def fleet(running: PrivateFleet) -> PrivateFleet:
    global prefix
    prefix = uuid.uuid4().hex[:8]
    return running


prefix = ""
"""Of the keys of a test."""


def order(key: str = "one", *lines: Any, **changes: Any) -> Any:
    return given.order(f"{prefix}-{key}", *lines, **changes)


def orders(fleet: PrivateFleet) -> int:
    """Of this test."""
    query = "SELECT count(*) FROM orders WHERE starts_with(key, :prefix)"
    return int(fleet.scalar(query, prefix=prefix))


class Upstream:
    """A connection of a broker user that asks for answers."""

    def __init__(self, fleet: PrivateFleet, user: str) -> None:
        self.user = user
        self._connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url(user)))
        self.channel = self._connection.channel()
        self.answers: dict[str, Any] = {}
        self.received: list[pika.BasicProperties] = []

    def listen(self, queue: str = DIRECT) -> None:
        if queue != DIRECT:
            self.channel.queue_declare(queue)
        self.channel.basic_consume(queue, self._on_answer, auto_ack=True)

    def publish(
        self, document: Any, correlation_id: str, reply_to: str = DIRECT, **more: Any
    ) -> None:
        properties = {"user_id": self.user, "reply_to": reply_to, "correlation_id": correlation_id}
        self.channel.basic_publish(
            "intake",
            "",
            document if isinstance(document, bytes) else body(document),
            pika.BasicProperties(**(properties | more)),
        )

    def answer(self, correlation_id: str, timeout: float = 15.0) -> Any:
        end = time.monotonic() + timeout
        while correlation_id not in self.answers:
            assert time.monotonic() < end, f"{correlation_id} is not answered: {self.answers}"
            self._connection.process_data_events(0.1)
        return self.answers[correlation_id]

    def close(self) -> None:
        self._connection.close()

    def _on_answer(self, _channel: Any, _method: Any, properties: Any, content: bytes) -> None:
        self.received.append(properties)
        self.answers[properties.correlation_id] = json.loads(content)


@contextmanager
def upstream(fleet: PrivateFleet, user: str = "upstream-shop") -> Iterator[Upstream]:
    found = Upstream(fleet, user)
    try:
        yield found
    finally:
        found.close()


def refused() -> float:
    return float(metrics.replies.labels("refused")._value.get())


def test_each_outcome_is_answered_with_its_code(fleet: PrivateFleet) -> None:
    stop = {"command": "stop", "customer": "alice", "services": [str(uuid.uuid4())]}
    with upstream(fleet) as shop:
        shop.listen()
        shop.publish(order("k-1"), "new")
        shop.publish(order("k-1"), "again")
        shop.publish(order("k-1", line("server")), "other")
        shop.publish(order("k-2", line("no-such-plan")), "unsellable")
        shop.publish(b"not json", "unreadable")
        shop.publish(stop, "command")

        assert shop.answer("command")["verdict"] == "refused"
        answers = shop.answers
    key = f"{prefix}-k-1"
    order_id = str(fleet.scalar("SELECT id FROM orders WHERE key = :key", key=key))
    accepted = {"verdict": "accepted", "key": key, "order_id": order_id, "problems": []}
    assert answers["new"] == accepted | {"repeated": False}
    assert answers["again"] == accepted | {"repeated": True}
    assert answers["other"]["verdict"] == "rejected"
    assert [p["code"] for p in answers["other"]["problems"]] == ["key_reused"]
    assert answers["unsellable"]["verdict"] == "refused"
    assert [p["path"] for p in answers["unsellable"]["problems"]] == ["lines.0.plan"]
    assert [p["code"] for p in answers["unreadable"]["problems"]] == ["not_json"]
    assert [p["code"] for p in answers["command"]["problems"]] == ["service_unknown"]
    assert {p.type for p in shop.received} == {"reply.v1"}
    assert {p.content_type for p in shop.received} == {"application/json"}


def test_answer_is_published_after_the_commit(
    fleet: PrivateFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(name: str) -> None:
        if name == "intake.before_commit":
            time.sleep(0.3)
            shop._connection.process_data_events(0)
            seen.append(len(shop.answers))

    monkeypatch.setattr("producers.intake.intake.failpoint", look)
    with upstream(fleet) as shop:
        shop.listen()
        shop.publish(order(), "one")
        wait_until(lambda: seen, "the transaction is about to commit")
        shop.answer("one")
    assert seen == [0]
    assert orders(fleet) == 1


def test_queue_of_ones_own_gets_the_answers(fleet: PrivateFleet) -> None:
    with upstream(fleet) as shop:
        shop.listen("reply.upstream-shop.web-1")
        shop.publish(order(), "one", "reply.upstream-shop.web-1")

        assert shop.answer("one")["verdict"] == "accepted"


@pytest.mark.parametrize(
    "queue",
    [
        "reply.upstream-partner.web",
        "reply.upstream-shop.",
        "reply.upstream-shop.a\nb",
        "reply.upstream-shopX.a",
        "intake",
        "intake.dead",
        "orders",
        "amq.gen-abc",
    ],
)
def test_queue_of_somebody_else_gets_nothing(fleet: PrivateFleet, queue: str) -> None:
    before = refused()
    admin = pika.BlockingConnection(pika.URLParameters(fleet.rabbitmq.url(vhost=fleet.vhost)))
    channel = admin.channel()
    if is_declarable := queue.startswith("reply") and queue.isprintable():
        channel.queue_declare(queue)
    with upstream(fleet) as shop:
        shop.publish(order("k-1"), "one", queue)
        shop.listen()
        shop.publish(order("k-2"), "two")
        shop.answer("two")

    assert orders(fleet) == 2
    assert refused() == before + 1
    if is_declarable:
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
    admin.close()


def test_correlation_with_line_breaks_is_not_echoed(
    fleet: PrivateFleet, caplog: pytest.LogCaptureFixture
) -> None:
    before = refused()
    with upstream(fleet) as shop:
        shop.listen()
        for number, bad in enumerate(("a\r\nX: y", "a\x1b[31m", "a\x00", "ligne\u2028deux", "")):
            shop.publish(order(f"bad-{number}"), bad)
        shop.publish(order("good"), "good", type="order.v9\r\nX: y")
        shop.publish(order("unknown"), "unknown", type="order.v9")
        shop.answer("unknown")
        assert set(shop.answers) == {"good", "unknown"}

    assert orders(fleet) == 6
    assert refused() == before + 5
    assert "X: y" not in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_unknown_version_is_kept_and_its_key_stays_free(fleet: PrivateFleet) -> None:
    with upstream(fleet) as shop:
        shop.listen()
        shop.publish(order("k-1") | {"version": 2}, "two")
        shop.publish(order("k-1"), "typed", type="order.v2")
        shop.publish(order("k-1"), "another", type="customer.v1")
        assert [p["code"] for p in shop.answer("two")["problems"]] == ["version_unknown"]
        assert shop.answers["two"]["verdict"] == "rejected"
        assert [p["code"] for p in shop.answer("typed")["problems"]] == ["version_unknown"]
        assert [p["code"] for p in shop.answer("another")["problems"]] == ["type_mismatch"]

        shop.publish(order("k-1") | {"version": 1}, "one", type="order.v1")
        assert shop.answer("one")["verdict"] == "accepted"

    assert orders(fleet) == 1
    # The last two have the same body, which is kept once.
    assert set(rejected(fleet)) >= {"version_unknown"}


def test_document_without_a_user_is_answered_by_direct_reply_only(fleet: PrivateFleet) -> None:
    with upstream(fleet) as shop:
        shop.listen()
        shop.publish(order(), "direct", user_id=None)
        assert [p["code"] for p in shop.answer("direct")["problems"]] == ["user_id_missing"]


def test_upstream_may_touch_its_own_queues_for_answers_only(fleet: PrivateFleet) -> None:
    with upstream(fleet, "upstream-partner") as partner:
        partner.listen("reply.upstream-partner.a")
    with upstream(fleet) as shop:
        for attempt in (
            lambda: shop.channel.queue_declare("reply.upstream-partner.b"),
            lambda: shop.channel.basic_consume("reply.upstream-partner.a", lambda *_: None),
            lambda: shop.channel.queue_declare("reply.upstream-shop"),
            lambda: shop.channel.queue_declare(
                "reply.upstream-shop.a", arguments={"x-dead-letter-exchange": "tasks"}
            ),
            lambda: shop.channel.queue_bind("reply.upstream-shop.a", "intake"),
        ):
            shop.channel = shop._connection.channel()
            with pytest.raises(ChannelClosedByBroker, match=r"ACCESS_REFUSED|NOT_FOUND"):
                attempt()


def test_broker_that_refuses_answers_holds_up_no_document(
    fleet: PrivateFleet, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that was not set up again after an update."""
    management = Management(fleet.rabbitmq.management_url, fleet.vhost)
    reads = topology.PERMISSIONS["intake"][2]
    management.put_user("intake", "pw-intake", {"configure": "^$", "write": "^$", "read": reads})
    cut(fleet.rabbitmq, fleet.vhost)  # a channel remembers what it may do
    lost = metrics.replies.labels("lost")._value
    before = lost.get()
    try:
        with upstream(fleet) as shop:
            shop.listen()
            for number in range(5):
                shop.publish(order(f"k-{number}"), str(number))
                wait_until(lambda n=number: orders(fleet) == n + 1, "the document is taken")
            wait_until(lambda: lost.get() == before + 5, "their answers are lost")
            advice = "refused for user 'intake'; run `autorenew broker setup`"
            wait_until(lambda: advice in caplog.text, "the log says what to do")

            fleet.setup_broker()
            wait_until(lambda: _is_answered(shop, fleet), "answers go out again", 30.0)
    finally:
        fleet.setup_broker()  # for the tests after this one


def _is_answered(shop: Upstream, fleet: PrivateFleet) -> bool:
    shop.publish(order("k-0"), "again")
    shop._connection.process_data_events(0.3)
    return "again" in shop.answers


def test_asker_that_has_left_harms_nobody(fleet: PrivateFleet) -> None:
    with upstream(fleet) as gone:
        gone.listen()
        gone.publish(order("k-1"), "gone")
        gone.publish(order("k-2"), "deleted", "reply.upstream-shop.never-declared")
    with upstream(fleet) as shop:
        shop.listen()
        shop.publish(order("k-3"), "three")
        assert shop.answer("three")["verdict"] == "accepted"
    assert orders(fleet) == 3
    send(fleet, body(order("k-4")))
    wait_until(lambda: orders(fleet) == 4, "documents without reply_to go on")


def test_node_publishes_documents_and_reads_their_outcomes(
    fleet: PrivateFleet, tmp_path: Path
) -> None:
    """With amqplib of npm and the example of the documentation, and nothing of ours."""
    packages = node_packages()
    ndjson = tmp_path / "orders.ndjson"
    documents = [order("k-1"), order("k-2", line("no-such-plan")), EXAMPLES["customer"]["customer"]]
    ndjson.write_bytes(b"\n".join(map(body, documents)))

    def publish() -> list[str]:
        done = subprocess.run(
            ["node", str(PUBLISH_JS), fleet.broker_url("upstream-shop"), str(ndjson)],
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(packages / "node_modules")},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.splitlines())

    first, again = publish(), publish()

    order_id = fleet.scalar("SELECT id FROM orders WHERE key = :key", key=f"{prefix}-k-1")
    assert first[0].split() == ["line-1", "accepted", f"{prefix}-k-1", str(order_id)]
    assert first[1].endswith("plan_unknown at lines.0.plan")
    assert first[2].split() == ["line-3", "refused", "-", "-", "customer_unknown", "at", "customer"]
    assert again[0].split() == [*first[0].split(), "again"]
