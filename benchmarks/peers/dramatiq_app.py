"""The peer on plain Dramatiq, as its workers import it: three actors, each queueing the next.

Settings come from the environment, like those of every process of the project.
"""

import uuid

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from sqlalchemy.orm import sessionmaker

from benchmarks.peers.steps import charge_order, price_order, provision_service
from schemas.database import connect
from schemas.settings import load_settings

_settings = load_settings()
broker = RabbitmqBroker(url=_settings.need("broker_url"), confirm_delivery=True)
dramatiq.set_broker(broker)

# A pool of five and up to ten more: enough for the threads of one process.
transaction = sessionmaker(
    connect(_settings.need("database_url"), application="peer dramatiq")
).begin


@dramatiq.actor
def price(order_id: str) -> None:
    with transaction() as session:
        request_id = price_order(session, uuid.UUID(order_id))
    charge.send(str(request_id))


@dramatiq.actor
def charge(request_id: str) -> None:
    with transaction() as session:
        paid = charge_order(session, uuid.UUID(request_id))
    for service_id in paid:
        provision.send(str(service_id))


@dramatiq.actor
def provision(service_id: str) -> None:
    with transaction() as session:
        provision_service(session, uuid.UUID(service_id))
