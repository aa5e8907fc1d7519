"""What the fleet is measured against does the same work: the same rows, and clean books."""

from sqlalchemy.orm import Session

from benchmarks import orders
from benchmarks.peers import steps
from monitoring.audit import audit
from schemas.catalogue.store import save
from tests.conftest import Database


def test_the_steps_of_the_peers_deliver_an_order_and_leave_clean_books(database: Database) -> None:
    with database.owner.begin() as tx:
        save(tx, orders.catalogue(1))
    (order_id,) = orders.place(database.owner, 1)
    database.run("DELETE FROM batches")
    database.run("DELETE FROM tasks")

    with Session(database.owner) as session, session.begin():
        request_id = steps.price_order(session, order_id)
    with Session(database.owner) as session, session.begin():
        (service_id,) = steps.charge_order(session, request_id)
    with Session(database.owner) as session, session.begin():
        steps.provision_service(session, service_id)

    assert orders.delivered(database.owner) == 1
    with database.owner.connect() as tx:
        assert [(f.invariant, f.ids) for f in audit(tx) if f.broken] == []
