"""Commands about webhooks: endpoints over HTTPS that an upstream's events are sent to."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy import Engine

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, database, realms, said_of, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.selecting import Age, Since, Text
from producers.control import webhooks as registered
from producers.events.composing import Composer
from schemas.settings import load_settings
from schemas.values import EndpointState
from workers.events.signing import new_secret

_name = click.argument("name", type=Text())
_COLUMNS = (
    "name", "realm", "url", "kinds", "state", "reason", "waiting", "failing_since", "delivered_at",
)  # fmt: skip
_DELIVERY_COLUMNS = (
    "created_at", "kind", "subject", "sequence", "attempts", "answer", "outcome", "event",
)  # fmt: skip
_TEST_SECONDS = 30.0
LATE_SECONDS = 60.0


@click.group(cls=Commands)
def webhooks() -> None:
    """Endpoints over HTTPS that the events of a realm are sent to, signed.

    Each has a lane `webhook:NAME`, so it can be paused, limited and retried as everything else.
    """


@webhooks.command("add")
@_name
@click.argument("url", type=Text())
@click.option("--realm", type=Text(), required=True, help="Whose events; an upstream's, as a rule.")
@click.option(
    "--kind", "kinds", multiple=True, type=Text(),
    help="Only these, such as `order.*` or `service.delivered`. May be repeated.",
)  # fmt: skip
@as_json
@acts()
def add_webhook(name: str, url: str, realm: str, kinds: Sequence[str], as_json: bool) -> None:
    """Register an endpoint: what happens from now on is sent there.

    Prints the secret that signs it, once. REALM may be an upstream's name: its realm is meant.
    """
    secret = new_secret()
    with database().begin() as tx:
        its = realms().of(realm, "webhooks") or realm
        registered.add(tx, name, url, its, kinds, secret)
    if as_json:
        click.echo(said_of({"name": name, "url": url, "realm": its, "secret": secret}))
        return
    say(f"{name} is sent the events of {its}")
    say(f"secret {secret}")
    say("it is not shown again: `autorenew webhooks rotate` gives another one", err=True)


@webhooks.command("list")
@as_json
def list_webhooks(as_json: bool) -> None:
    """List the endpoints."""
    with database().connect() as tx:
        found = registered.webhooks(tx)
    if as_json:
        for one in found:
            click.echo(said_of(asdict(one)))
        return
    show("webhooks", _COLUMNS, [_row(one) for one in found], json_lines=False)


@webhooks.command("show")
@_name
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many at most."
)
@as_json
def show_webhook(name: str, limit: int, as_json: bool) -> None:
    """Show an endpoint, its newest deliveries and its replays."""
    with database().connect() as tx:
        found = registered.find(tx, name)
        deliveries = registered.deliveries(tx, found.id, limit)
        replays = registered.replays(tx, found.id)
    if as_json:
        document = asdict(found) | {
            "deliveries": [asdict(one) for one in deliveries],
            "replays": [dict(one._mapping) for one in replays],
        }
        click.echo(said_of(document))
        return
    show("webhook", _COLUMNS, [_row(found)], json_lines=False)
    rows = [[getattr(one, column) for column in _DELIVERY_COLUMNS] for one in deliveries]
    show("deliveries", _DELIVERY_COLUMNS, rows, json_lines=False)
    if replays:
        columns = ("since", "until", "events", "asked_at", "ended_at")
        rows = [[getattr(one, column) for column in columns] for one in replays]
        show("replays", columns, rows, json_lines=False)


def _row(one: registered.Webhook) -> list[Any]:
    values = asdict(one) | {"kinds": ", ".join(one.kinds) or "all"}
    return [values[column] for column in _COLUMNS]


@webhooks.command("enable")
@_name
@acts()
def enable_webhook(name: str) -> None:
    """Send to an endpoint again. What happened meanwhile is sent by `replay`."""
    _set_state(name, EndpointState.ENABLED, None)


@webhooks.command("disable")
@_name
@acts(tells=True)
def disable_webhook(name: str, because: str | None) -> None:
    """Send nothing to an endpoint, until `enable`. What waits is dropped."""
    _set_state(name, EndpointState.DISABLED, because or "operator")


@webhooks.command("remove")
@_name
@acts()
def remove_webhook(name: str) -> None:
    """Forget an endpoint. What waits is dropped; the name may be used again."""
    _set_state(name, EndpointState.REMOVED, None)


def _set_state(name: str, state: EndpointState, reason: str | None) -> None:
    with database().begin() as tx:
        found = registered.find(tx, name)
        is_new = registered.set_state(tx, found, state, reason)
    say(f"{name} is {state}" if is_new else f"{name}: no change")
    if is_new and state is EndpointState.ENABLED and found.failing_since is not None:
        since = f"{found.failing_since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        say(f"to send what it missed: autorenew webhooks replay {name} --since {since}", err=True)


@webhooks.command("rotate")
@_name
@click.option(
    "--overlap", type=Age(), default="24h", show_default=True,
    help="How long the secret before signs as well: 90s, 15m, 2h, 3d, 1w.",
)  # fmt: skip
@as_json
@acts()
def rotate_webhook(name: str, overlap: timedelta, as_json: bool) -> None:
    """Give an endpoint another secret, and print it. Both sign for a while."""
    secret = new_secret()
    with database().begin() as tx:
        found = registered.find(tx, name)
        until = registered.rotate(tx, found, secret, overlap.total_seconds())
    if as_json:
        click.echo(said_of({"name": name, "secret": secret, "both_sign_until": until}))
        return
    say(f"{name}: both secrets sign until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    say(f"secret {secret}")


@webhooks.command("test")
@_name
@click.option(
    "--wait",
    type=click.FloatRange(0, 600),
    default=_TEST_SECONDS,
    show_default=True,
    help="Seconds to wait for its answer.",
)
@as_json
@acts()
def test_webhook(name: str, wait: float, as_json: bool) -> None:
    """Send a test event (`webhook.test`), and say what became of it. Needs a `worker events`.

    Exit code 1 if it was not delivered within --wait seconds.
    """
    engine, settings = database(), load_settings()
    composer = Composer(settings.event_source, lambda upstream: upstream)
    with engine.begin() as tx:
        found = registered.find(tx, name)
        id_ = registered.send_test(tx, found, composer, datetime.now(UTC))
    delivery = _tried(engine, id_, wait)
    is_delivered = delivery.outcome == "delivered"
    if as_json:
        said = {"event": id_, "delivered": is_delivered, "attempts": delivery.attempts}
        click.echo(said_of({"name": name, **said, "answer": delivery.answer}))
    elif is_delivered:
        say(f"{name}: delivered, {delivery.answer}")
    elif delivery.attempts:
        say(f"{name}: not delivered: {delivery.answer or 'no answer yet'}")
    else:
        say(f"{name}: not tried in {wait:g} s: is a `worker events` running?")
    sys.exit(0 if is_delivered else 1)


def _tried(engine: Engine, id_: Any, seconds: float) -> registered.Delivery:
    """A delivery once its first attempt has been answered, or time is up."""
    end = time.monotonic() + seconds
    while True:
        with engine.connect() as tx:
            found = registered.delivery(tx, id_)
        if found.answer is not None or found.ended_at is not None or time.monotonic() >= end:
            return found
        time.sleep(0.1)


@webhooks.command("replay")
@_name
@click.option("--since", type=Since(), required=True, help="A time, or an age such as 2h.")
@click.option("--until", type=Since(), help="Before this time.  [default: now]")
@acts()
def replay_webhook(
    name: str, since: datetime | timedelta, until: datetime | timedelta | None
) -> None:
    """Send what happened since a time once more, with the same ids. `show` says how far it is."""
    now = datetime.now(UTC)
    with database().begin() as tx:
        found = registered.find(tx, name)
        registered.replay(tx, found, _moment(since, now), _moment(until or now, now))
    say(f"{name}: what happened since {_moment(since, now):%F %H:%M:%S} UTC is sent once more")


@click.group(cls=Commands)
def events() -> None:
    """What goes out to upstream, to the exchange `events` and to webhooks."""


@events.command("status")
@as_json
def events_status(as_json: bool) -> None:
    """Show what has not gone out yet, what was left out, and the last replays to the exchange.

    Exit code 1 if something has waited for more than a minute, or was left out.
    """
    with database().connect() as tx:
        left = registered.left(tx)
        untold = registered.untold(tx)
        replays = registered.replays(tx, None)
    age = (datetime.now(UTC) - left.oldest).total_seconds() if left.oldest else 0.0
    if as_json:
        document = {
            "waiting": left.waiting,
            "oldest": left.oldest,
            "seconds": round(age, 3),
            "untold": [dict(one._mapping) for one in untold],
            "replays": [dict(one._mapping) for one in replays],
        }
        click.echo(said_of(document))
    else:
        say(f"{left.waiting} events wait" + (f", the oldest for {age:.1f} s" if age else ""))
        if untold:
            left_out = [[one.event_id, one.at, one.kind, one.subject, one.error] for one in untold]
            columns = ("event", "at", "kind", "subject", "error")
            show("left out, cannot be composed", columns, left_out, json_lines=False)
        if replays:
            columns = ("since", "until", "events", "asked_at", "ended_at")
            rows = [[getattr(one, column) for column in columns] for one in replays]
            show("replays", columns, rows, json_lines=False)
    sys.exit(1 if age > LATE_SECONDS or untold else 0)


@events.command("replay")
@click.option("--since", type=Since(), required=True, help="A time, or an age such as 2h.")
@click.option("--until", type=Since(), help="Before this time.  [default: now]")
@acts()
def replay_events(since: datetime | timedelta, until: datetime | timedelta | None) -> None:
    """Publish what happened since a time to the exchange once more, with the same ids.

    For a broker that lost its queues. Whoever has an event already knows it by its id. What was
    left out because it could not be composed goes to endpoints as well.
    """
    now = datetime.now(UTC)
    with database().begin() as tx:
        registered.replay_to_exchange(tx, _moment(since, now), _moment(until or now, now))
    say(f"what happened since {_moment(since, now):%F %H:%M:%S} UTC is published once more")


def _moment(said: datetime | timedelta, now: datetime) -> datetime:
    return (now - said if isinstance(said, timedelta) else said).astimezone(UTC)
