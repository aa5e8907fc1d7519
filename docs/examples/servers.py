"""Start a private RabbitMQ and PostgreSQL for the quickstart, and say how to reach them.

    .venv/bin/python docs/examples/servers.py var/servers

Both listen on the loopback interface only and end with Ctrl-C. The folder gets a file ``env``
with the exports that the quickstart's terminals need.
"""

import secrets
import signal
import sys
import threading
from pathlib import Path

from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ


def kept_password(env: Path) -> str | None:
    """That of the last start: the database and the broker know it."""
    lines = env.read_text().splitlines() if env.exists() else []
    return next((line.partition("=")[2] for line in lines if "PASSWORD=" in line), None)


def main(folder: Path) -> None:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with PrivatePostgres(folder / "postgresql") as postgres:
        postgres.ensure_database("autorenew")
        rabbitmq = PrivateRabbitMQ(folder / "rabbitmq")
        rabbitmq.start()
        postgresql = postgres.url("autorenew").rsplit("@", 1)[1]
        amqp = rabbitmq.url().rsplit("@", 1)[1]
        exports = {
            "OWNER_URL": postgres.url("autorenew"),
            "ADMIN_URL": rabbitmq.url(),
            "MANAGEMENT_URL": rabbitmq.management_url,
            "POSTGRESQL": postgresql,
            "RABBITMQ": amqp,
            "PASSWORD": kept_password(folder / "env") or secrets.token_hex(16),
            # Orders from a file and over AMQP share their customers.
            "AUTORENEW_REALMS": """'{"file": "shop", "upstream": "shop"}'""",
        }
        env = folder / "env"
        env.touch(mode=0o600)
        env.write_text("".join(f"export {name}={value}\n" for name, value in exports.items()))
        print(f"up; in every other terminal: . {env}", flush=True)
        stopping.wait()
        rabbitmq.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/servers"))
