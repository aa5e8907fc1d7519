"""Endpoints over HTTPS that events are sent to, as an operator registers and changes them."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.events.composing import Composer
from producers.events.deliveries import Endpoint, write
from producers.history import Event
from producers.steps import DELIVER, webhook_place
from schemas.errors import AutorenewError
from schemas.events import Kind
from schemas.values import EndpointState

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FAMILIES = sorted({f"{kind.partition('.')[0]}.*" for kind in Kind if kind != Kind.WEBHOOK_TEST})
_KINDS = [kind.value for kind in Kind if kind is not Kind.WEBHOOK_TEST]
_LONGEST_URL = 2000


class WebhookInvalid(AutorenewError):
    """An endpoint that cannot be registered."""

    code = "webhook_invalid"


class UnknownWebhook(AutorenewError):
    code = "webhook_unknown"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint, as people see it: without its secrets.

    Attributes:
        kinds: that it is sent; none: all.
        reason: why it is disabled.
        failing_since: since when nothing could be delivered.
        waiting: deliveries that have not ended.
        previous_until: how long the secret before still signs as well.
    """

    id: uuid.UUID
    name: str
    realm: str
    url: str
    kinds: Sequence[str]
    state: EndpointState
    reason: str | None
    created_at: datetime
    failing_since: datetime | None
    delivered_at: datetime | None
    previous_until: datetime | None
    waiting: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    Attributes:
        answer: of the last attempt.
        outcome: None: it has not ended.
    """

    id: uuid.UUID
    event: uuid.UUID
    kind: str
    subject: str
    sequence: int
    created_at: datetime
    attempts: int
    tried_at: datetime | None
    answer: str | None
    outcome: str | None
    ended_at: datetime | None


def check(name: str, url: str, kinds: Sequence[str]) -> None:
    """
    Raises:
        WebhookInvalid: it says what is wrong, and what is accepted.
    """
    if not _NAME.fullmatch(name):
        raise WebhookInvalid(f"{name!r} is no name: letters a-z, digits and -, at most 63")
    check_url(url)
    if unknown := sorted({*kinds} - {*_KINDS, *_FAMILIES}):
        raise WebhookInvalid(
            f"no kind {', '.join(unknown)}; there are {', '.join((*_FAMILIES, *_KINDS))}"
        )


def check_url(url: str) -> None:
    """The form alone: what its name leads to is looked at whenever it is connected to.

    Raises:
        WebhookInvalid: it cannot be used.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise WebhookInvalid(f"not a URL: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise WebhookInvalid("not a URL such as https://shop.example/events")
    if parts.username is not None or parts.password is not None:
        raise WebhookInvalid("a URL without user and password: events are signed instead")
    if parts.fragment or len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable():
        raise WebhookInvalid(
            f"a URL of ASCII characters, without blanks and #, of {_LONGEST_URL} at most"
        )
    if " " in url or port == 0:
        raise WebhookInvalid("a URL without blanks, with a port above 0")


_ADD = text("""
    INSERT INTO webhook_endpoints (id, name, realm, url, kinds, secret)
    VALUES (:id, :name, :realm, :url, :kinds, :secret)
    ON CONFLICT (name) WHERE state <> 'removed' DO NOTHING RETURNING id
""")


def add(
    tx: Connection, name: str, url: str, realm: str, kinds: Sequence[str], secret: str
) -> uuid.UUID:
    """Register an endpoint: what happens from now on is sent there.

    Raises:
        WebhookInvalid: it cannot be used, or there is one of that name.
    """
    check(name, url, kinds)
    id_ = uuid.uuid4()
    parameters = {
        "id": id_, "name": name, "realm": realm, "url": url, "kinds": list(kinds),
        "secret": secret,
    }  # fmt: skip
    if tx.execute(_ADD, parameters).first() is None:
        raise WebhookInvalid(f"there is a webhook {name} already")
    detail = {"name": name, "realm": realm, "url": url, "kinds": list(kinds)}
    history.record(tx, [Event(id_, "webhook.added", detail)])
    return id_


_LIST = text("""
    SELECT e.id, e.name, e.realm, e.url, e.kinds, e.state, e.reason, e.created_at,
        e.failing_since, e.delivered_at, e.previous_until,
        (SELECT count(*) FROM webhook_deliveries AS d
         WHERE d.endpoint_id = e.id AND d.ended_at IS NULL) AS waiting
    FROM webhook_endpoints AS e
    WHERE e.state <> 'removed' AND (CAST(:name AS text) IS NULL OR e.name = :name)
    ORDER BY e.name
""")


def webhooks(tx: Connection) -> list[Webhook]:
    """All endpoints but those that were removed."""
    return [_webhook(row) for row in tx.execute(_LIST, {"name": None})]


def find(tx: Connection, name: str) -> Webhook:
    """
    Raises:
        UnknownWebhook: there is none.
    """
    row = tx.execute(_LIST, {"name": name}).first()
    if row is None:
        names = [one.name for one in webhooks(tx)]
        raise UnknownWebhook(f"no webhook {name!r}; there are {', '.join(names) or 'none'}")
    return _webhook(row)


def _webhook(row: Any) -> Webhook:
    return Webhook(**{**row._mapping, "state": EndpointState(row.state)})


_DELIVERIES = text("""
    SELECT id, event, kind, subject, sequence, created_at, attempts, tried_at, answer, outcome,
        ended_at
    FROM webhook_deliveries WHERE endpoint_id = :id ORDER BY created_at DESC, id LIMIT :most
""")
_DELIVERY = text("""
    SELECT id, event, kind, subject, sequence, created_at, attempts, tried_at, answer, outcome,
        ended_at
    FROM webhook_deliveries WHERE id = :id
""")


def deliveries(tx: Connection, endpoint: uuid.UUID, most: int) -> list[Delivery]:
    """The newest deliveries of an endpoint."""
    return [Delivery(*r) for r in tx.execute(_DELIVERIES, {"id": endpoint, "most": most})]


def delivery(tx: Connection, id: uuid.UUID) -> Delivery:
    return Delivery(*tx.execute(_DELIVERY, {"id": id}).one())


_SET_STATE = text("""
    UPDATE webhook_endpoints SET state = :state, reason = :reason, changed_at = now(),
        failing_since = NULL
    WHERE id = :id AND (state, coalesce(reason, '')) <> (:state, coalesce(:reason, ''))
    RETURNING id
""")


# What waits for a person comes up once more, and is dropped as the rest is.
_FAILED = text("""
    SELECT d.id FROM webhook_deliveries AS d JOIN tasks AS t ON t.subject = d.id
    WHERE d.endpoint_id = :id AND d.ended_at IS NULL AND t.name = 'deliver' AND t.state = 'failed'
    ORDER BY d.id
""")


def set_state(tx: Connection, webhook: Webhook, state: EndpointState, reason: str | None) -> bool:
    """Enable, disable or remove an endpoint; returns whether that changed something."""
    parameters = {"id": webhook.id, "state": state, "reason": reason}
    if tx.execute(_SET_STATE, parameters).first() is None:
        return False
    if state is not EndpointState.ENABLED:
        failed: list[uuid.UUID] = list(tx.execute(_FAILED, {"id": webhook.id}).scalars())
        ledger.enqueue(tx, DELIVER, [(one, webhook_place(webhook.name)) for one in failed])
    detail = {"name": webhook.name, **({"reason": reason} if reason else {})}
    history.record(tx, [Event(webhook.id, f"webhook.{state}", detail)])
    return True


_ROTATE = text("""
    UPDATE webhook_endpoints SET secret = :secret,
        previous_until = now() + make_interval(secs => :seconds), changed_at = now()
    WHERE id = :id RETURNING previous_until
""")


def rotate(tx: Connection, webhook: Webhook, secret: str, seconds: float) -> datetime:
    """Sign with another secret; the one before signs as well for a while.

    Returns:
        Until when.
    """
    parameters = {"id": webhook.id, "secret": secret, "seconds": seconds}
    until: datetime = tx.execute(_ROTATE, parameters).scalar_one()
    detail = {"name": webhook.name, "secret": "rotated", "until": until.isoformat()}
    history.record(tx, [Event(webhook.id, "webhook.changed", detail)])
    return until


def send_test(tx: Connection, webhook: Webhook, composer: Composer, now: datetime) -> uuid.UUID:
    """Have a test event delivered, to an endpoint that is disabled, too; returns the delivery."""
    event = composer.test(webhook.id, webhook.realm, now)
    endpoint = Endpoint(webhook.id, webhook.name, webhook.realm, webhook.kinds)
    return write(tx, [(endpoint, event)], are_new=True)[0]


_REPLAY = text("""
    INSERT INTO event_replays (id, endpoint_id, since, until)
    VALUES (:id, :endpoint, :since, :until)
""")


def replay(tx: Connection, webhook: Webhook, since: datetime, until: datetime) -> uuid.UUID:
    """Have what happened from ``since`` to before ``until`` delivered once more.

    Raises:
        WebhookInvalid: the endpoint is disabled, or no time lies between.
    """
    if webhook.state is not EndpointState.ENABLED:
        raise WebhookInvalid(f"{webhook.name} is {webhook.state}: enable it first")
    if since >= until:
        raise WebhookInvalid("--since is not before --until")
    id_ = uuid.uuid4()
    parameters = {"id": id_, "endpoint": webhook.id, "since": since, "until": until}
    tx.execute(_REPLAY, parameters)
    detail = {"name": webhook.name, "since": since.isoformat(), "until": until.isoformat()}
    history.record(tx, [Event(webhook.id, "webhook.replayed", detail)])
    return id_


def replay_to_exchange(tx: Connection, since: datetime, until: datetime) -> uuid.UUID:
    """Have what happened from ``since`` to before ``until`` published once more.

    Raises:
        WebhookInvalid: no time lies between.
    """
    if since >= until:
        raise WebhookInvalid("--since is not before --until")
    id_ = uuid.uuid4()
    tx.execute(_REPLAY, {"id": id_, "endpoint": None, "since": since, "until": until})
    detail = {"since": since.isoformat(), "until": until.isoformat()}
    history.record(tx, [Event(id_, "events.replayed", detail)])
    return id_


_REPLAYS = text("""
    SELECT id, since, until, events, asked_at, ended_at FROM event_replays
    WHERE endpoint_id IS NOT DISTINCT FROM CAST(:id AS uuid) ORDER BY asked_at DESC LIMIT 10
""")


def replays(tx: Connection, endpoint: uuid.UUID | None) -> Sequence[Any]:
    """The last replays to an endpoint, or to the exchange: id, since, until, how many events so
    far, when asked for, when ended."""
    return tx.execute(_REPLAYS, {"id": endpoint}).all()


_UNTOLD = text("""
    SELECT u.event_id, e.at, u.kind, e.subject, u.error
    FROM untold_events AS u LEFT JOIN events AS e ON e.id = u.event_id
    ORDER BY u.event_id LIMIT 1000
""")


def untold(tx: Connection) -> Sequence[Any]:
    """Events that were left out because they cannot be composed, the oldest first: event_id, at,
    kind, subject, error."""
    return tx.execute(_UNTOLD).all()


_LEFT = text("""
    SELECT c.last_id, count(e.id) AS waiting, min(e.at) AS oldest
    FROM event_cursor AS c
    LEFT JOIN events AS e ON e.id > c.last_id AND event_kind(e.id, e.name, e.detail) IS NOT NULL
    GROUP BY c.last_id
""")


def left(tx: Connection) -> Any:
    """What has not gone out yet: the cursor, how many events wait, and since when the oldest."""
    return tx.execute(_LEFT).one()
