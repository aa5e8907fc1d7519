"""The console in a browser: somebody breaks the infrastructure, sees what fails, and mends it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from autorenew.console import accounts, serving
from autorenew.local.embedded import Embedded
from schemas.values import OperatorRole
from tests.conftest import Database
from tests.support.browser import DESKTOP, PHONE, chromium, wrong_for_axe
from tests.support.given import line, order, wait_until

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def console(embedded: Any, database: Database) -> Iterator[tuple[Embedded, str]]:
    refuse = {"fault": "refuse", "operation": "create", "reason": "out_of_stock"}
    fleet = embedded([refuse])
    with fleet.engine("console").begin() as tx:
        accounts.add(tx, "olga", OperatorRole.ADMINISTRATOR, PASSWORD)
    server = serving.serve(
        fleet.engine("console"), fleet.engine("readonly"), fleet.clock, fleet.settings,
        host="127.0.0.1", port=0,
    )  # fmt: skip
    with server:
        yield fleet, server.url


def signed_in(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """A page of somebody who has signed in, and what its browser complains about."""
    page = browser.new_context(**options).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/sign-in")
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    return page, complaints


def broken(fleet: Embedded, database: Database, sites: int) -> None:
    """So many services that their infrastructure refuses."""
    documents = [
        order(f"k-{n}", line(domain=f"n{n}.example"), customer="carol") for n in range(sites)
    ]
    database.place(*documents)
    fleet.wait_until_idle(30)


def test_a_person_mends_what_has_failed(
    browser: Browser, console: tuple[Embedded, str], database: Database
) -> None:
    fleet, url = console
    broken(fleet, database, 13)
    page, complaints = signed_in(browser, url, viewport=DESKTOP)
    page.get_by_role("link", name="13 tasks wait for a person").first.click()
    page.get_by_role("cell", name="driver_refused").wait_for()
    page.get_by_role("link", name="converge").click()
    page.get_by_text("out_of_stock: Nothing of this plan is left.").first.wait_for()

    # While it is broken, a retry of all halts after the first one.
    page.get_by_role("link", name="Retry all 13").click()
    page.get_by_label("Why").fill("try it")
    page.get_by_role("button", name="Retry 13 tasks").click()
    page.get_by_text("halted").wait_for()
    wait_until(lambda: not fleet.is_busy(), "the one that was tried")

    # One is corrected, with a reason, once the infrastructure takes it.
    fleet.simulator.simulator.faults.rules.clear()
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Failed").click()
    page.get_by_role("link", name="converge").click()
    page.locator("tbody a").first.click()
    page.get_by_role("link", name="Correct its configuration").click()
    page.get_by_label(re.compile("^domain")).fill("corrected.example")
    page.get_by_label("Why").fill("the customer wrote")
    page.get_by_role("button", name="Correct and retry").click()
    page.get_by_text("It was corrected, and is tried again now.").wait_for()
    wait_until(lambda: not fleet.is_busy(), "the corrected one")

    # All others are retried, and the page empties by itself.
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Failed").click()
    page.get_by_text("12 tasks").first.wait_for()
    watching = page.context.new_page()
    watching.goto(f"{url}/failed")
    page.get_by_role("link", name="Retry all 12").click()
    page.get_by_role("button", name="Retry 12 tasks").click()
    page.get_by_text("done", exact=True).wait_for(timeout=30_000)
    watching.get_by_text("Nothing has failed. That is normal").wait_for(timeout=30_000)
    assert complaints == []

    states = database.all("SELECT state, configuration FROM services")
    assert {row.state for row in states} == {"active"}
    assert {"domain": "corrected.example"} in [row.configuration for row in states]
    (edited,) = database.all("SELECT detail FROM events WHERE name = 'service.edited'")
    assert (edited.detail["by"], edited.detail["because"]) == ("olga", "the customer wrote")


def test_a_warning_says_what_has_failed_since(
    browser: Browser, console: tuple[Embedded, str], database: Database
) -> None:
    fleet, url = console
    broken(fleet, database, 1)
    page, complaints = signed_in(browser, url, viewport=DESKTOP)
    page.goto(f"{url}/failed/confirm?action=cancel&scope=all")
    page.get_by_role("heading", name="Give up all 1 task").wait_for()
    database.place(order("later", customer="carol"))
    page.get_by_text("1 new failure").wait_for(timeout=30_000)
    page.get_by_role("button", name="Give up 1 task").click()
    page.get_by_text("done", exact=True).wait_for(timeout=30_000)
    fleet.wait_until_idle(30)
    left = database.all("SELECT s.state FROM services AS s ORDER BY s.state")
    assert [row.state for row in left] == ["cancelled", "delivering"]
    assert complaints == []

    # The whole page goes to where one signs in, and not a part of it.
    page.goto(f"{url}/failed")
    database.run("DELETE FROM console_sessions")
    page.wait_for_url(f"{url}/sign-in", timeout=30_000)


def test_it_works_without_javascript(
    browser: Browser, console: tuple[Embedded, str], database: Database
) -> None:
    fleet, url = console
    broken(fleet, database, 2)
    page, _ = signed_in(browser, url, viewport=DESKTOP, java_script_enabled=False)
    page.goto(f"{url}/failed/tasks")
    for box in page.get_by_role("checkbox").all():
        box.check()
    fleet.simulator.simulator.faults.rules.clear()
    page.get_by_role("button", name="Retry the selected").click()
    page.get_by_role("button", name="Retry 2 tasks").click()
    page.get_by_role("heading", name="2 tasks are ready again").wait_for()
    fleet.wait_until_idle(30)
    page.goto(f"{url}/failed")
    page.get_by_text("Nothing has failed. That is normal").wait_for()


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_pages_are_accessible_and_fit(
    browser: Browser,
    console: tuple[Embedded, str],
    database: Database,
    size: dict[str, int],
    scheme: str,
) -> None:
    fleet, url = console
    broken(fleet, database, 3)
    (service,) = database.all("SELECT id, order_id FROM services LIMIT 1")
    invoice = database.value(
        "SELECT series || '-' || lpad(number::text, 7, '0') FROM invoices LIMIT 1"
    )
    options: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "bypass_csp": True}
    page, _ = signed_in(browser, url, **options)
    for path in (
        "/", "/failed", "/failed/tasks", f"/failed/task/{service.id}", f"/failed/edit/{service.id}",
        "/failed/confirm?action=retry&scope=all", "/failed/confirm?action=cancel&scope=all",
        "/failed/edit?scope=all", "/failed/edit?scope=all&set.domain=right.example",
        "/failed/done?scope=all", f"/failed/settle?task=charge:{service.id}",
        "/bulk", "/lanes", "/lanes/driver:web", "/lanes/driver:web/pause",
        "/lanes/driver:web/close", "/rejected", "/history", "/operators", "/password",
        "/find?q=nothing", f"/orders/{service.order_id}", f"/services/{service.id}",
        "/customers/carol", f"/invoices/{invoice}", "/nothing-here",
    ):  # fmt: skip
        page.goto(url + path)
        assert wrong_for_axe(page) == [], path
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], f"{path} is {wide} px wide"
