"""What the simulator remembers, in SQLite: charges, refunds and resources."""

import json
import sqlite3
import time
from typing import Any, NamedTuple

from simulator.refusals import Refused

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    target TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, subject TEXT NOT NULL,
    body TEXT NOT NULL, status INTEGER NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (target, key));
CREATE TABLE IF NOT EXISTS book (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, charge_key TEXT NOT NULL,
    customer TEXT, amount INTEGER NOT NULL, currency TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS book_charge ON book (charge_key);
CREATE TABLE IF NOT EXISTS resources (
    number INTEGER PRIMARY KEY, driver TEXT NOT NULL, service_id TEXT NOT NULL,
    resource_id TEXT NOT NULL, state TEXT NOT NULL, paid_until TEXT);
CREATE INDEX IF NOT EXISTS resources_service ON resources (service_id);
CREATE TABLE IF NOT EXISTS generations (service_id TEXT PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS under_way (service_id TEXT PRIMARY KEY, until REAL NOT NULL);
"""


class Request(NamedTuple):
    """A request under an idempotency key.

    Attributes:
        target: ``gateway`` or ``infrastructure``; each has its own keys.
        subject: ``DRIVER/SERVICE``; empty at the gateway.
    """

    target: str
    operation: str
    subject: str
    key: str
    body: dict[str, Any]

    @property
    def content(self) -> tuple[str, str, str]:
        return self.operation, self.subject, json.dumps(self.body, sort_keys=True)


class Store:
    """Every method is one transaction; call from one thread."""

    def __init__(self, path: str = ":memory:") -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)

    def answer(self, request: Request) -> tuple[int, dict[str, Any]] | None:
        """The answer that was given under this key; None if the key is new.

        Raises:
            Refused: the key belongs to another request.
        """
        row = self._db.execute(
            "SELECT operation, subject, body, status, answer FROM requests"
            " WHERE target = ? AND key = ?",
            (request.target, request.key),
        ).fetchone()
        if row is None:
            return None
        if row[:3] != request.content:
            raise Refused(422, "key_reused")
        return row[3], json.loads(row[4])

    def find(self, operation: str, key: str) -> dict[str, Any] | None:
        """The gateway's answer to a charge or a refund; None if there was none."""
        row = self._db.execute(
            "SELECT answer FROM requests WHERE target = 'gateway' AND key = ? AND operation = ?",
            (key, operation),
        ).fetchone()
        return json.loads(row[0]) if row else None

    def remember(self, request: Request, status: int, answer: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO requests (target, key, operation, subject, body, status, answer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (request.target, request.key, *request.content, status, json.dumps(answer)),
        )

    def take(self, body: dict[str, Any]) -> None:
        self._enter("charge", body["key"], body["key"], body)

    def give_back(self, body: dict[str, Any]) -> str | None:
        """Refund a part of a charge; returns why it is declined, None if it is done."""
        rows = self._db.execute(
            "SELECT kind, amount, currency FROM book WHERE charge_key = ?", (body["charge_key"],)
        ).fetchall()
        left = sum(amount if kind == "charge" else -amount for kind, amount, _ in rows)
        if not rows or rows[0][2] != body["currency"]:
            return "no_such_charge"
        if body["amount"] > left:
            return "exceeds_charge"
        self._enter("refund", body["key"], body["charge_key"], body)
        return None

    def _enter(self, kind: str, key: str, charge_key: str, body: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO book (kind, key, charge_key, customer, amount, currency)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (kind, key, charge_key, body.get("customer"), body["amount"], body["currency"]),
        )

    def book(self, after: int, limit: int) -> list[dict[str, Any]]:
        names = ("number", "kind", "key", "charge_key", "customer", "amount", "currency")
        rows = self._db.execute(
            "SELECT * FROM book WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def resource(self, service_id: str) -> dict[str, Any] | None:
        """The live resource of a service."""
        row = self._db.execute(
            "SELECT r.resource_id, r.state, r.paid_until, g.generation"
            " FROM resources AS r JOIN generations AS g USING (service_id)"
            " WHERE r.service_id = ? AND r.state != 'gone'",
            (service_id,),
        ).fetchone()
        names = ("resource_id", "state", "paid_until", "generation")
        return dict(zip(names, row, strict=True)) if row else None

    def generation(self, service_id: str) -> int | None:
        """The newest one seen, also of a service that ended; None: nothing was ever asked for."""
        seen = self._db.execute(
            "SELECT generation FROM generations WHERE service_id = ?", (service_id,)
        ).fetchone()
        return seen[0] if seen else None

    def check_generation(self, service_id: str, generation: int) -> None:
        """Refuse a generation older than the newest one seen, also for a repeated request."""
        seen = self.generation(service_id)
        if seen is not None and generation < seen:
            raise Refused(409, "stale_generation")

    def operate(
        self, driver: str, service_id: str, kind: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Carry out one operation.

        Raises:
            Refused: ``stale_generation``, or ``no_such_resource``.
        """
        generation = body["generation"]
        self.check_generation(service_id, generation)
        live = self.resource(service_id)
        if live is None and kind != "create" and body.get("resource_id"):
            self._adopt(driver, service_id, body)
            live = self.resource(service_id)
        if live is None and kind not in ("create", "terminate"):
            raise Refused(409, "no_such_resource")
        self._db.execute(
            "INSERT INTO generations VALUES (?, ?) ON CONFLICT DO UPDATE SET generation = ?",
            (service_id, generation, generation),
        )
        if live is None and kind == "create":
            number = self._db.execute(
                "INSERT INTO resources (driver, service_id, resource_id, state, paid_until)"
                " VALUES (?, ?, '', 'active', ?)",
                (driver, service_id, body.get("paid_until")),
            ).lastrowid
            self._db.execute(
                "UPDATE resources SET resource_id = ? WHERE number = ?",
                (f"{driver}-{number}", number),
            )
        elif live is not None:
            state = {"create": "active", "resume": "active", "suspend": "suspended"}
            state |= {"extend": live["state"], "terminate": "gone"}
            self._db.execute(
                "UPDATE resources SET state = ?, paid_until = coalesce(?, paid_until)"
                " WHERE service_id = ? AND state != 'gone'",
                (state[kind], body.get("paid_until"), service_id),
            )
        absent = {"resource_id": None, "state": "absent", "paid_until": None}
        return self.resource(service_id) or absent | {"generation": generation}

    def go_on(self, service_id: str, seconds: float) -> None:
        """Let what was begun for a service take so long."""
        until = time.time() + seconds
        self._db.execute("INSERT OR REPLACE INTO under_way VALUES (?, ?)", (service_id, until))

    def call_off(self, service_id: str) -> None:
        self._db.execute("DELETE FROM under_way WHERE service_id = ?", (service_id,))

    def seconds_left(self, service_id: str) -> float:
        """Until what is under way for a service has ended; 0 if nothing is."""
        row = self._db.execute(
            "SELECT until FROM under_way WHERE service_id = ?", (service_id,)
        ).fetchone()
        return max(row[0] - time.time(), 0.0) if row else 0.0

    def _adopt(self, driver: str, service_id: str, body: dict[str, Any]) -> None:
        """Bind a resource that existed before, under its own name, to a service; once."""
        known = self._db.execute(
            "SELECT 1 FROM resources WHERE service_id = ? OR (driver = ? AND resource_id = ?)",
            (service_id, driver, body["resource_id"]),
        ).fetchone()
        if known is None:
            self._db.execute(
                "INSERT INTO resources (driver, service_id, resource_id, state, paid_until)"
                " VALUES (?, ?, ?, 'active', ?)",
                (driver, service_id, body["resource_id"], body.get("paid_until")),
            )
            self._db.execute("INSERT OR IGNORE INTO generations VALUES (?, 0)", (service_id,))

    def resources(self, after: int, limit: int, driver: str | None = None) -> list[dict[str, Any]]:
        """What exists, of one driver or of all, page by page."""
        names = ("number", "driver", "service_id", "resource_id", "state", "paid_until")
        rows = self._db.execute(
            "SELECT * FROM resources WHERE number > ? AND state != 'gone'"
            " AND driver = coalesce(?, driver) ORDER BY number LIMIT ?",
            (after, driver, limit),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        self._db.close()
