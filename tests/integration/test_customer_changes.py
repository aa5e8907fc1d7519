"""A renewal is asked for and charged by what is true of its customer on the day of the charge."""

from typing import Any

import pytest

from monitoring.audit import audit
from tests.integration.test_dearer import charged
from tests.integration.test_reminders import letters, plain
from tests.integration.test_renewals import accepts, declines
from tests.support import given


def move(world: Any, country: str, **changes: Any) -> None:
    answer = world.command("customer", country=country, **changes)
    assert answer.verdict == "accepted", answer


def asked_for(world: Any) -> list[Any]:
    """(country, total) of the open requests of renewals."""
    return world.database.all(  # type: ignore[no-any-return]
        "SELECT country, total FROM payment_requests WHERE order_id IS NULL AND state = 'open'"
    )


def declined(world: Any) -> Any:
    """A service whose first charge, of 45.44 EUR, was declined; the next ones are accepted."""
    first = world.order()
    declines(world)
    world.pass_until(first, -2.5)
    assert asked_for(world) == [("FR", 4544)]
    accepts(world)
    return first


@pytest.mark.parametrize(
    ("customer", "total"),
    [
        ({"country": "DE"}, 4507),  # 19 percent
        ({"country": "IE", "vat_number": "IE6388047V"}, 3787),  # reverse charge
    ],
)
def test_a_customer_who_moved_to_where_it_is_cheaper_is_charged_that(
    life: Any, customer: dict[str, str], total: int
) -> None:
    world = life()
    first = declined(world)

    move(world, **customer)
    assert asked_for(world) == []
    assert [name for name, _ in world.happened("renewal.withdrawn")] == ["renewal.withdrawn"]

    world.pass_until(first, -0.9)
    assert charged(world) == [total]
    world.clean()


def test_a_customer_who_moved_to_where_it_is_dearer_is_told_before_the_charge(life: Any) -> None:
    world = life()
    first = declined(world)

    move(world, "IE")  # 23 percent
    world.pass_until(first, -0.9)
    assert charged(world) == []
    assert asked_for(world) == []

    world.pass_until(first, -0.5)
    assert "46,58 €" in plain(letters(world)[-1])
    world.pass_until(first, 6.2)
    assert charged(world) == []
    world.pass_until(first, 6.5)
    assert charged(world) == [4658]
    world.clean()


def test_everything_on_a_request_is_asked_for_anew_together(life: Any) -> None:
    world = life()
    first = world.order(given.line(quantity=3))
    declines(world)
    world.pass_until(first, -2.5)
    accepts(world)

    move(world, "DE")
    world.pass_until(first, -0.9)

    assert charged(world) == [13520]  # 19 % of 3 x 37.87
    world.clean()


def test_a_change_that_nobody_told_of_is_seen_before_the_charge(life: Any) -> None:
    world = life()
    first = declined(world)

    world.database.run("UPDATE customers SET country = 'DE'")
    world.pass_until(first, -0.9)

    assert charged(world) == [4507]
    # Nor does the history tell of it, which is all that is wrong.
    with world.database.owner.connect() as tx:
        assert [f.code for f in audit(tx, world.fleet.books()) if f.broken] == ["customers.home"]


def test_another_address_alone_withdraws_nothing(life: Any) -> None:
    world = life()
    declined(world)

    move(world, "FR", email="alice@example.org")

    assert asked_for(world) == [("FR", 4544)]
    assert world.happened("renewal.withdrawn") == []
