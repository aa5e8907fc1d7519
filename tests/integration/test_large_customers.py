"""Customers with very many services: bounds of requests, invoices and e-mails."""

from datetime import timedelta
from typing import Any

from tests.integration.test_catching_up import arrives, said
from tests.integration.test_importing import row

SERVICES = 1100


def test_services_that_fall_due_together_are_on_requests_of_at_most_500_lines(life: Any) -> None:
    world = life()
    expires_on = (world.fleet.clock.now() + timedelta(days=20)).date().isoformat()
    arrives(
        world,
        *(
            row(anchor=None, expires_on=expires_on, resource_id=f"r-{number}")
            for number in range(SERVICES)
        ),
    )
    first = world.services()[0]

    world.pass_until(first, -14)
    assert said(world) == ["1100 services seront renouvelés à partir du " + said(world)[0][-16:]]
    world.pass_until(first, -2.9)

    lines = world.database.all(
        "SELECT r.state, i.total, count(*) FROM payment_requests AS r"
        " JOIN request_lines AS l ON l.request_id = r.id JOIN invoices AS i ON i.request_id = r.id"
        " GROUP BY r.id, r.state, i.total ORDER BY count(*) DESC"
    )
    assert lines == [
        ("paid", 500 * 3787 * 12 // 10, 500), ("paid", 500 * 3787 * 12 // 10, 500),
        ("paid", 100 * 3787 * 12 // 10, 100),
    ]  # fmt: skip
    assert {service.paid_periods for service in world.services()} == {first.paid_periods + 1}
    world.clean()
