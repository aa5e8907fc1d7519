"""The pages in Chromium: without scripts, on a phone, by keyboard, in every language."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from schemas.wording import LOCALES
from tests.support.browser import DESKTOP, PHONE, chromium, wrong_for_axe
from tests.support.given import line
from tests.support.pages import Shop, lines, shop

V2 = {"contracts": [{"contract": "cloud", "version": 2}]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def world(postgres: Any, template: str, tmp_path_factory: Any) -> Iterator[Shop]:
    """Customers who have everything, one for each language."""
    with shop(postgres, template, tmp_path_factory.mktemp("browsed")) as built:
        for language in LOCALES:
            by = {s.plan: s for s in built.buy(f"anna-{language}", *lines(), language=language)}
            built.does("stop", by["site"])
            built.does("mode", by["phone"], mode="manual")
        built.catalogue(2)
        yield built


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without JavaScript."""
    context = browser.new_context(java_script_enabled=False, viewport=PHONE)
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def addresses(world: Shop, customer: str) -> dict[str, str]:
    """Each kind of page -> its address."""
    by = {s.plan: s for s in world.of(customer)}
    site, phone, machine = by["site"], by["phone"], by["vm"]
    others = [s for s in world.of(customer) if s.plan == "site" and s.id != site.id]
    paths = {
        "account": world.account(customer),
        "nothing": f"{world.account(customer)}?say=nothing",
        "stop": world.link("stop", *others),
        "resume": world.link("resume", site),
        "renew": world.link("renew", phone, *others),
        "accept": world.link("accept", machine, **V2),
        "impossible": world.link("renew", machine),
        "outdated": world.link("resume", site, at=world.now() - timedelta(days=1)),
        "old": world.link("stop", site, at=world.now() - timedelta(days=100)),
        "invalid": "/do/forged",
        "sent": "/sent",
        "nowhere": "/nowhere",
        "done": world.http.post(world.link("stop", site)).headers["location"],
    }
    return {
        name: path if path.startswith("http") else f"{world.fleet.pages_url}{path}"
        for name, path in paths.items()
    }


@pytest.mark.parametrize("language", LOCALES)
def test_every_page_is_accessible_and_fits_a_phone(
    browser: Browser, world: Shop, language: str
) -> None:
    # One scheme for each size: contrast does not depend on the size, nor the layout on colours.
    schemes: Any = ((PHONE, "light"), (DESKTOP, "dark")) if language == "en" else ((PHONE, "dark"),)
    pages = addresses(world, f"anna-{language}")
    for size, scheme in schemes:
        context = browser.new_context(
            viewport=size, color_scheme=scheme, bypass_csp=True, locale=language,
            extra_http_headers={"Accept-Language": language},
        )  # fmt: skip
        page = context.new_page()
        for name, url in pages.items():
            page.goto(url)
            assert page.evaluate("document.documentElement.lang") == language, name
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
            assert page.locator("h1").count() == 1, name
            assert wrong_for_axe(page) == [], (name, scheme)
        context.close()


def test_a_service_is_stopped_and_resumed_by_hand_without_scripts(page: Page, world: Shop) -> None:
    (service,) = world.buy("clicker", line(domain="a.example"))
    page.goto(world.link("stop", service))
    page.get_by_role("button", name="Stop renewing").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Done: the renewal is stopped"
    page.reload()
    assert world.of("clicker")[0].mode == "stop"

    page.go_back()
    page.get_by_role("link", name="All your services").click()
    page.get_by_label("a.example").check()
    page.get_by_role("button", name="Resume renewing").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Resume this service?"
    page.get_by_role("button", name="Resume renewing").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Done: the stop is undone"
    assert world.of("clicker")[0].mode == "automatic"


def test_several_services_are_renewed_after_one_page_with_their_sum(
    page: Page, world: Shop
) -> None:
    world.buy("buyer", line(domain="a.example"), line(domain="b.example"))
    page.goto(f"{world.fleet.pages_url}{world.account('buyer')}")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Renew now").click()
    assert page.get_by_text("To be paid now, with tax: €90.89").is_visible()
    page.get_by_role("button", name="Renew and pay now").click()
    assert "the renewal is on its way" in page.get_by_role("heading", level=1).inner_text()
    world.fleet.settle(30)
    page.reload()
    assert {s.paid_periods for s in world.of("buyer")} == {2}
    assert page.get_by_text("Next: renewed by itself on").count() == 2


def test_keyboard_alone_reaches_the_content_the_services_and_the_buttons(
    page: Page, world: Shop
) -> None:
    world.buy("typist", line(domain="a.example"))
    page.goto(f"{world.fleet.pages_url}{world.account('typist')}")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    box = skip.bounding_box()
    assert box is not None
    assert box["x"] >= 0  # it is seen once it has the focus
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/do/**")
    assert page.get_by_role("heading", level=1).inner_text() == "Stop renewing this service?"


def test_who_has_an_old_link_has_a_new_one_sent_without_scripts(page: Page, world: Shop) -> None:
    (service,) = world.buy("forgetful", line())
    page.goto(world.link("stop", service, at=world.now() - timedelta(days=100)))
    page.get_by_role("button", name="Send a new link").click()
    world.fleet.settle(30)
    assert [m["Subject"] for m in world.mails() if m["To"] == "forgetful@example.com"] == [
        "A new link to your services"
    ]
    page.goto(f"{world.fleet.pages_url}/do/cut")
    page.get_by_label("E-mail address or customer account").fill("nobody")
    page.get_by_role("button", name="Send a new link").click()
    assert page.get_by_role("heading", level=1).inner_text() == "A new link is on its way"


def test_page_cannot_be_framed_and_runs_no_script(browser: Browser, world: Shop) -> None:
    (service,) = world.buy("framed", line())
    url = world.link("stop", service)
    context = browser.new_context()
    page = context.new_page()
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    page.set_content(f'<iframe src="{url}"></iframe>')
    page.wait_for_timeout(500)
    assert any("frame-ancestors" in text for text in blocked), blocked

    page.goto(url)
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "taken over"';
        document.body.append(script);
    }""")
    assert page.title() != "taken over"
    context.close()
    assert world.of("framed")[0].mode == "automatic"
