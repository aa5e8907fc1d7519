"""What operators and the guard had paused, and what had failed, before pauses had owners."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from monitoring.audit import check
from producers.control import guard, lanes
from producers.control.witness import Witness
from schemas.clock import SystemClock
from schemas.database import MIGRATIONS, connect, migrate
from schemas.settings import load_settings
from schemas.values import PauseSource

BEFORE = """
INSERT INTO lane_pauses (lane, reason, paused_at) VALUES
    ('driver:web', 'an upgrade', '2027-01-01'),
    ('gateway', 'maintenance; guard: nothing was seen', '2027-01-02'),
    ('renewals', 'guard: time went back; nothing was seen', '2027-01-03');
INSERT INTO tasks (name, subject, queue, lane, state, run_at, attempts, reason) VALUES
    ('charge', '00000000-0000-0000-0000-000000000001', 'billing', 'gateway', 'failed',
        '2027-01-01', 8, 'gateway_unknown'),
    ('charge', '00000000-0000-0000-0000-000000000002', 'billing', 'gateway', 'ready',
        '2027-01-01', 2, 'gateway_unknown'),
    ('charge', '00000000-0000-0000-0000-000000000003', 'billing', 'gateway', 'ready',
        '2027-01-01', 0, NULL);
"""


@pytest.fixture
def upgraded(postgres: Any) -> Iterator[Engine]:
    name = f"operators_{uuid.uuid4().hex[:8]}"
    postgres.ensure_database(name)
    engine = connect(postgres.url(name))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0012")
        connection.exec_driver_sql(BEFORE)
    migrate(engine, {})
    yield engine
    engine.dispose()
    postgres.drop_database(name)


def test_pauses_of_before_have_owners(upgraded: Engine) -> None:
    with upgraded.connect() as tx:
        found = [(p.lane, p.source, p.reason) for p in lanes.paused(tx)]

    assert sorted(found) == [
        ("driver:web", PauseSource.OPERATOR, "an upgrade"),
        ("gateway", PauseSource.GUARD, "guard: nothing was seen"),
        ("gateway", PauseSource.OPERATOR, "maintenance"),
        ("renewals", PauseSource.GUARD, "guard: time went back; nothing was seen"),
    ]


def test_pauses_of_before_are_told_in_the_history_of_their_lanes(upgraded: Engine) -> None:
    with upgraded.begin() as tx:
        query = """SELECT detail->>'lane', detail->>'because' FROM events
            WHERE name = 'lane.paused' ORDER BY 1, 2"""
        told = [tuple(row) for row in tx.execute(text(query))]
        assert told == [
            ("driver:web", "an upgrade"),
            ("gateway", "guard: nothing was seen"),
            ("gateway", "maintenance"),
            ("renewals", "guard: time went back; nothing was seen"),
        ]
        assert check(tx, {"ledger.pauses"})["ledger.pauses"].named == []
        lanes.resume(tx, "gateway", everybody=True)
        assert check(tx, {"ledger.pauses"})["ledger.pauses"].broken == 0


def test_guard_pauses_beside_what_it_paused_before(upgraded: Engine) -> None:
    with upgraded.begin() as tx:
        guard.beat(tx, SystemClock(), load_settings(clock="virtual"), Witness())
        tx.execute(text("UPDATE heartbeat SET beat_at = beat_at - interval '7 h'"))
        assert guard.beat(tx, SystemClock(), load_settings(clock="virtual"), Witness())
        assert len(lanes.paused(tx, "renewals")) == 2
        assert len(lanes.resume(tx, "renewals", guard=True)) == 2
        assert lanes.paused(tx, "renewals") == []


def test_what_had_failed_keeps_how_often_and_since_when(upgraded: Engine) -> None:
    with upgraded.connect() as tx:
        query = "SELECT total_attempts, first_failed_at IS NULL FROM tasks ORDER BY subject"
        assert [tuple(row) for row in tx.execute(text(query))] == [
            (8, False), (2, False), (0, True),
        ]  # fmt: skip
