"""The peer on Celery, as its workers import it: three tasks, each queueing the next.

Settings come from the environment, like those of every process of the project.
"""

import uuid
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

from benchmarks.peers.steps import charge_order, price_order, provision_service
from schemas.database import connect
from schemas.settings import load_settings

SETTINGS = {
    # Acknowledged after the work: a worker that dies loses nothing.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # A publish returns when RabbitMQ has the message.
    "broker_transport_options": {"confirm_publish": True},
    "broker_connection_retry_on_startup": True,
    # Nobody asks for results; the books are in the database.
    "task_ignore_result": True,
    # No task has a rate limit, and nothing is steered remotely: less work for each message.
    "worker_disable_rate_limits": True,
    "worker_enable_remote_control": False,
}

warnings.filterwarnings("ignore", category=SecurityWarning)  # containers run as root

_settings = load_settings()
app = Celery("peer", broker=_settings.need("broker_url"))
app.conf.update(SETTINGS)

# Opens nothing here: every pool process connects for itself, after it was forked.
transaction = sessionmaker(
    connect(_settings.need("database_url"), pool_size=1, application="peer celery")
).begin

# A lost connection or a deadlock is nobody's fault: again in a moment.
AGAIN = {"autoretry_for": (OperationalError,), "retry_backoff": True, "max_retries": 20}


@app.task(name="price", **AGAIN)  # type: ignore[untyped-decorator]
def price(order_id: str) -> None:
    with transaction() as session:
        request_id = price_order(session, uuid.UUID(order_id))
    charge.delay(str(request_id))


@app.task(name="charge", **AGAIN)  # type: ignore[untyped-decorator]
def charge(request_id: str) -> None:
    with transaction() as session:
        paid = charge_order(session, uuid.UUID(request_id))
    for service_id in paid:
        provision.delay(str(service_id))


@app.task(name="provision", **AGAIN)  # type: ignore[untyped-decorator]
def provision(service_id: str) -> None:
    with transaction() as session:
        provision_service(session, uuid.UUID(service_id))
