"""Where the links of e-mails lead: what a page shows, what its button does, what does nothing."""

import html
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from producers.control import ending, lanes
from producers.intake import commands
from producers.intake.documents import Refused
from producers.intake.links import Links, Purpose
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache, save
from schemas.messages import parse
from schemas.wording import LOCALES
from tests.integration.test_reminders import plain
from tests.integration.test_renewals import DECLINE
from tests.support import given
from tests.support.given import line
from tests.support.pages import Shop, shop

V2 = {"contracts": [{"contract": "cloud", "version": 2}]}


@pytest.fixture(scope="module")
def world(postgres: Any, template: str, tmp_path_factory: Any) -> Iterator[Shop]:
    """A shop for all of these tests; each has a customer of its own."""
    with shop(postgres, template, tmp_path_factory.mktemp("shop")) as built:
        yield built


def text_of(answer: httpx.Response) -> str:
    """What is read on a page, in one line."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    body = re.sub(r"<[^>]+>", " ", answer.text.partition("<body>")[2])
    return " ".join(html.unescape(body).replace("\xa0", " ").replace("\u202f", " ").split())


def history(world: Shop) -> int:
    return int(world.database.value("SELECT count(*) FROM events"))


def mode(world: Shop, service: Any) -> str:
    return str(world.database.value("SELECT mode FROM services WHERE id = :id", id=service.id))


class TestLink:
    @pytest.mark.parametrize("purpose", ["stop", "renew"])
    def test_opening_a_link_shows_what_it_does_and_changes_nothing(
        self, world: Shop, purpose: str
    ) -> None:
        (service,) = world.buy(f"opener-{purpose}", line(domain="a.example"))
        url, before = world.link(purpose, service), history(world)
        for method in ("GET", "HEAD", "OPTIONS", "GET"):
            answer = world.http.request(method, url, headers={"Sec-Purpose": "prefetch"})
            assert answer.status_code == (405 if method == "OPTIONS" else 200)
        world.fleet.settle(30)
        page = text_of(world.http.get(url))
        assert "a.example" in page
        assert "Opening this page has changed nothing." in page
        assert (history(world), mode(world, service)) == (before, "automatic")

    def test_button_does_what_the_page_says_once_however_often_it_is_pressed(
        self, world: Shop
    ) -> None:
        (service,) = world.buy("presser", line(domain="a.example"))
        url = world.link("stop", service)
        day = re.search(r"Last day: ([\w ]+)\.", text_of(world.http.get(url)))
        assert day is not None

        ended = world.click(url)
        assert "Done: the renewal is stopped" in text_of(ended)
        assert f"ends at the end of {day[1]}" in text_of(ended)
        assert mode(world, service) == "stop"
        before = history(world)
        assert text_of(world.http.get(ended.url)) == text_of(ended)
        assert "Nothing to do" in text_of(world.click(url))
        assert "stopped already" in text_of(world.http.get(url))  # as after going back
        assert history(world) == before

    def test_history_says_that_a_link_did_it_and_of_when(self, world: Shop) -> None:
        (service,) = world.buy("historian", line())
        world.click(world.link("stop", service))
        (event,) = world.database.all(
            "SELECT detail FROM events WHERE subject = :id AND name = 'mode.changed'", id=service.id
        )
        assert event.detail["by"] == "link"
        assert event.detail["because"].startswith("stop, made 20")

    def test_renewal_costs_what_the_page_says_and_is_charged_once(self, world: Shop) -> None:
        services = world.buy("payer", *[line(domain=f"{n}.example") for n in "abc"])
        url = world.link("renew", *services)
        page = text_of(world.http.get(url))
        total = re.search(r"To be paid now, with tax: €([\d.]+)", page)
        assert total is not None
        assert page.count("Paid now: €45.44, with tax.") == 3

        world.click(url)
        world.click(url)
        world.fleet.settle(30)
        (paid,) = world.database.all(
            "SELECT net + tax AS gross FROM payment_requests"
            " WHERE customer_id = 'payer' AND order_id IS NULL"
        )
        assert paid.gross == round(float(total[1]) * 100) == 13633  # rounded once: not 3 x 45.44
        assert "renewed already" in text_of(world.http.get(url))
        assert {s.paid_periods for s in world.of("payer")} == {2}

    def test_what_is_refused_for_one_service_promises_nothing_for_the_others(
        self, world: Shop
    ) -> None:
        one, two = world.buy("halver", line(domain="a.example"), line(domain="b.example"))
        url = world.link("renew", one, two, at=world.now() - timedelta(minutes=5))
        world.does("stop", two)
        page = text_of(world.http.get(url))
        assert "You have decided otherwise since" in page
        assert "Paid now" not in page
        world.click(url)
        world.fleet.settle(30)
        assert {s.paid_periods for s in world.of("halver")} == {1}

    def test_stop_can_be_undone_and_says_what_it_costs_then(self, world: Shop) -> None:
        (service,) = world.buy("undoer", line(domain="a.example"))
        world.does("stop", service)
        url = world.link("resume", service)
        assert re.search(
            r"From then on: renewed by itself on [\w ]+, for €45.44, with tax",
            text_of(world.http.get(url)),
        )
        assert "Done: the stop is undone" in text_of(world.click(url))
        assert mode(world, service) == "automatic"

    def test_what_the_customer_decided_since_wins_and_can_be_asked_again(self, world: Shop) -> None:
        (service,) = world.buy("decider", line(domain="a.example"))
        url = world.link("stop", service, at=world.now() - timedelta(minutes=5))
        world.does("mode", service, mode="manual")
        page = world.http.get(url)
        assert "You have decided otherwise since" in text_of(page)
        assert "<form" not in page.text
        before = history(world)
        refused = world.click(url)
        assert "This could not be done" in text_of(refused)
        assert (history(world), mode(world, service)) == (before, "manual")

        again = re.search(r'class="button" href="([^"]+)">Stop renewing all the same', refused.text)
        assert again is not None
        assert "Stop renewing this service?" in text_of(world.http.get(again[1]))
        world.click(again[1])
        assert mode(world, service) == "stop"

    @pytest.mark.parametrize("language", LOCALES)
    def test_pages_speak_the_customers_language_whatever_the_browser_asks_for(
        self, world: Shop, language: str
    ) -> None:
        (service,) = world.buy(f"speaker-{language}", line(), language=language)
        answer = world.http.get(world.link("stop", service), headers={"Accept-Language": "de"})
        assert f'<html lang="{language}"' in answer.text
        assert answer.headers["content-language"] == language

    def test_contract_is_accepted_and_the_service_renewed_by_one_button(self, world: Shop) -> None:
        (machine,) = world.buy("accepter", line("vm", domain="m.example"))
        world.catalogue(2)
        try:
            renew = world.http.get(world.link("renew", machine))
            assert "Its contract has to be accepted first." in text_of(renew)
            assert "Accept the contract and renew…" in text_of(renew)
            url = world.link("accept", machine, **V2)
            page = world.http.get(url)
            assert 'href="https://example.com/cloud/1"' in page.text
            assert "Paid now: €45.44, with tax." in text_of(page)
            assert "the contract is accepted" in text_of(world.click(url))
            world.fleet.settle(30)
            (renewed,) = world.of("accepter")
            assert (renewed.agreed_version, renewed.paid_periods) == (2, 2)
        finally:
            world.catalogue(1)

    def test_more_than_was_announced_is_said_before_and_not_charged_today(
        self, world: Shop
    ) -> None:
        (service,) = world.buy("riser", line())
        world.database.run(
            """INSERT INTO renewals (service_id, period_number, expires_on, net, currency,
                announced, announced_currency, announced_at)
            SELECT id, 2, CAST(:day AS date), 3787, 'EUR', 4000, 'EUR', :now FROM services
            WHERE id = :id""",
            id=service.id, day=world.expiry(service), now=world.now(),
        )  # fmt: skip
        page = text_of(world.http.get(world.link("renew", service)))
        assert "We have told you €40.00 before." in page
        assert "saved payment method" not in page
        world.click(world.link("renew", service))
        world.fleet.settle(30)
        assert world.of("riser")[0].paid_periods == 1


@pytest.fixture(scope="module")
def situations(world: Shop) -> Iterator[dict[str, Any]]:
    """Situation -> a service in it."""
    found: dict[str, Any] = {}
    for situation in ("active", "stopped", "manual", "asked", "ending", "methodless"):
        (found[situation],) = world.buy(f"agree-{situation}", line(domain=f"{situation}.example"))
    (found["contract"],) = world.buy("agree-contract", line("vm", domain="contract.example"))
    world.does("stop", found["stopped"])
    world.does("mode", found["manual"], mode="manual")
    with world.fleet.engine("api").begin() as tx:
        catalogue = CatalogueCache().current(tx)
        ending.end(tx, [found["ending"].id], "abuse", catalogue, world.now())
    world.database.run(
        "UPDATE services SET payment_method_id = NULL WHERE id = :id", id=found["methodless"].id
    )
    with world.fleet.engine("api").begin() as tx:
        lanes.pause(tx, "renewals", "so that it stays asked for")
    renewals = [{"id": str(found["asked"].id),
                 "expires_on": world.expiry(found["asked"]).isoformat()}]  # fmt: skip
    world.fleet.intake.place(
        "shop", "python",
        [given.body({"command": "renew", "customer": "agree-asked", "services": renewals})],
    )  # fmt: skip
    world.catalogue(2)
    yield found
    world.catalogue(1)
    with world.fleet.engine("api").begin() as tx:
        lanes.resume(tx, "renewals")
    world.fleet.settle(30)


class TestAgreement:
    """The page says that something can be done if and only if the intake then does it."""

    @pytest.mark.parametrize("purpose", ["stop", "resume", "renew", "accept"])
    @pytest.mark.parametrize(
        "situation",
        ["active", "stopped", "manual", "asked", "ending", "methodless", "contract"],
    )
    def test_page_and_intake_agree(
        self, world: Shop, situations: dict[str, Any], situation: str, purpose: str
    ) -> None:
        for at in (world.now(), world.now() - timedelta(days=1)):
            more = V2 if purpose == "accept" else {}
            url = world.link(purpose, situations[situation], at=at, **more)
            page = world.http.get(url)
            assert page.status_code == 200
            with world.fleet.engine("api").connect() as tx:
                document = given.body(world.links().open(url, world.now()))
                command = parse(document)[1]
                catalogue = CatalogueCache().current(tx)
                try:
                    changed = commands.apply(tx, command, catalogue, world.now())
                except Refused:
                    changed = False
                tx.rollback()
            assert ("<form" in page.text) is changed, text_of(page)


@pytest.fixture(scope="module")
def service(world: Shop) -> Any:
    (service,) = world.buy("victim", line(domain="secret.example"))
    return service


class TestForged:
    """Nothing but a link that we signed, in time and unchanged, does anything."""

    def refused(self, world: Shop, service: Any, url: str, status: int) -> None:
        before = history(world)
        for method in ("GET", "POST"):
            answer = world.http.request(method, url)
            assert answer.status_code == status
            assert "Nothing was changed" in text_of(answer)
            assert "secret.example" not in answer.text
        assert (history(world), mode(world, service)) == (before, "automatic")

    def test_link_that_was_changed_or_cut_short_does_nothing(
        self, world: Shop, service: Any
    ) -> None:
        url = world.link("stop", service)
        token = url.rpartition("/")[2]
        for place in range(0, len(token) - 2, 9):
            other = "A" if token[place] != "A" else "B"
            self.refused(world, service, f"/do/{token[:place]}{other}{token[place + 1 :]}", 404)
        for end in (10, len(token) // 2, len(token) - 5):
            self.refused(world, service, f"/do/{token[:end]}", 404)

    def test_link_signed_with_another_secret_does_nothing(self, world: Shop, service: Any) -> None:
        forged = Links("https://example.com", "a secret of somebody else")
        command = {"command": "stop", "customer": "victim", "services": [str(service.id)]}
        for url in (
            forged.url(Purpose.STOP, command, world.now()),
            forged.account_url("victim", world.now()),
        ):
            self.refused(world, service, f"/do/{url.rpartition('/')[2]}", 404)

    def test_link_that_is_too_old_does_nothing_and_offers_a_new_one(
        self, world: Shop, service: Any
    ) -> None:
        url = world.link("stop", service, at=world.now() - timedelta(days=90))
        self.refused(world, service, url, 410)
        page = text_of(world.http.get(url))
        assert "Links in our e-mails can be used for 90 days." in page
        assert "Send a new link" in page

    def test_address_of_one_page_opens_no_other(self, world: Shop, service: Any) -> None:
        account = world.account("victim").rpartition("/")[2]
        ended = world.http.post(world.link("resume", service)).headers["location"]
        ended = ended.rpartition("/")[2]
        link = world.link("stop", service).rpartition("/")[2]
        for path in (f"/do/{account}", f"/do/{ended}", f"/my/{link}", f"/my/{ended}",
                     f"/done/{link}", f"/done/{account}"):  # fmt: skip
            assert world.http.get(path).status_code == 404

    def test_link_reaches_no_service_of_another_customer(self, world: Shop, service: Any) -> None:
        world.buy("thief", line())
        command = {"command": "stop", "customer": "thief", "services": [str(service.id)]}
        url = world.links().url(Purpose.STOP, command, world.now())
        page = world.http.get(url)
        assert "secret.example" not in page.text
        assert "You do not have this service" in text_of(page)
        assert "<form" not in page.text
        assert "secret.example" not in world.click(url).text
        assert mode(world, service) == "automatic"

    def test_form_that_another_site_sends_is_refused(self, world: Shop, service: Any) -> None:
        url = world.link("stop", service)
        for site in ("cross-site", "same-site"):
            answer = world.http.post(url, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 403
        assert mode(world, service) == "automatic"
        # As a browser sends our own form: the origin is null, since nothing is referred to.
        own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        assert world.http.post(url, headers=own).status_code == 303
        world.does("resume", service)

    def test_link_from_before_a_change_of_the_address_is_refused(self, world: Shop) -> None:
        (service,) = world.buy("mover", line(domain="secret.example"))
        url = world.link("stop", service, at=datetime.now(UTC) - timedelta(minutes=1))
        account = world.links().account_url("mover", datetime.now(UTC) - timedelta(minutes=1))
        assert world.http.get(url).status_code == 200
        world.send({"command": "customer", "customer": "mover", "name": "Somebody"})
        assert world.http.get(url).status_code == 200
        world.send({"command": "customer", "customer": "mover", "email": "new@example.com"})
        for old in (url, account):
            self.refused(world, service, old, 410)
        assert "Your e-mail address has changed" in text_of(world.http.get(url))
        assert world.http.get(world.link("stop", service)).status_code == 200


class TestAccount:
    def test_all_services_with_what_is_next_and_what_it_costs(self, world: Shop) -> None:
        one, two = world.buy("lister", line(domain="a.example"), line(domain="b.example"))
        world.does("stop", two)
        page = world.http.get(world.account("lister"))
        said = text_of(page)
        assert re.search(r"Next: renewed by itself on [\w ]+, for €45.44, with tax", said)
        assert re.search(r"Next: ends at the end of [\w ]+, as you asked", said)
        assert "2 services" in said
        for service in (one, two):
            assert f'value="{service.id}"' in page.text

    def test_nothing_is_shown_that_a_stranger_could_use(self, world: Shop) -> None:
        (service,) = world.buy("discreet", line(), payment_method="tok-secret-card")
        world.send({"command": "customer", "customer": "discreet", "name": "Jane Roe",
                    "address": {"lines": ["1 Main Street"], "postal_code": "75001",
                                "city": "Paris", "country": "FR"}})  # fmt: skip
        for url in (world.account("discreet"), world.link("renew", service)):
            page = world.http.get(url).text
            for secret in ("discreet@example.com", "tok-", "Main Street", "75001", "Roe"):
                assert secret not in page
            assert "d…@example.com" in page

    def test_several_services_are_stopped_at_once_after_one_page_that_sums_up(
        self, world: Shop
    ) -> None:
        one, two, three = world.buy("chooser", *[line(domain=f"{n}.example") for n in "abc"])
        world.does("stop", three)
        before = history(world)
        chosen = {"action": "stop", "service": [str(s.id) for s in (one, two, three)]}
        answer = world.http.get(f"{world.account('chooser')}/choose", params=chosen)
        assert answer.status_code == 303
        page = world.http.get(answer.headers["location"])
        assert "Stop renewing these 2 services?" in text_of(page)
        assert "1 service that you have chosen is left out" in text_of(page)
        assert history(world) == before
        url = page.text.partition('action="')[2].partition('"')[0]
        assert "Done" in text_of(world.click(url))
        assert {mode(world, s) for s in (one, two, three)} == {"stop"}

    @pytest.mark.parametrize(
        ("action", "said"),
        [
            ("resume", "cannot be done with the services that you have chosen"),
            ("accept", "cannot be done with the services that you have chosen"),
            ("terminate", "Choose at least one service first."),
            ("", "Choose at least one service first."),
        ],
    )
    def test_what_cannot_be_done_is_said_and_does_nothing(
        self, world: Shop, action: str, said: str
    ) -> None:
        (service,) = world.of("unable") or world.buy("unable", line())
        chosen = {"action": action, "service": [str(service.id)]}
        answer = world.http.get(f"{world.account('unable')}/choose", params=chosen)
        assert said in text_of(world.http.get(answer.headers["location"]))

    def test_services_of_others_cannot_be_chosen(self, world: Shop) -> None:
        world.buy("envious", line())
        (theirs,) = world.buy("envied", line(domain="theirs.example"))
        here = world.account("envious")
        for service in (str(theirs.id), "x", "", "0" * 40):
            chosen = {"action": "stop", "service": service}
            answer = world.http.get(f"{here}/choose", params=chosen)
            assert answer.headers["location"] == f"{here}?say=nothing"

    def test_more_services_are_on_further_pages(self, world: Shop) -> None:
        world.buy("collector", *[line(quantity=10) for _ in range(6)])
        here = world.account("collector")
        first, second = world.http.get(here), world.http.get(f"{here}?page=2")
        assert [p.text.count('type="checkbox"') for p in (first, second)] == [50, 10]
        assert "Page 1 of 2" in text_of(first)
        assert f'href="{here}?page=2"' in first.text
        for odd in ("0", "-1", "99", "x", "9" * 50, "²"):
            assert world.http.get(here, params={"page": odd}).status_code == 200
        everything = {"action": "renew", "service": [str(s.id) for s in world.of("collector")]}
        answer = world.http.get(f"{here}/choose", params=everything)
        assert len(answer.headers["location"]) < 4000
        assert "Renew these 50 services now?" in text_of(world.http.get(answer.headers["location"]))

    def test_what_a_link_led_to_ends_with_a_change_of_the_address(self, world: Shop) -> None:
        (service,) = world.buy("remover", line(domain="secret.example"))
        here = world.account("remover")
        choose = f"{here}/choose?action=stop&service={service.id}"
        link = world.http.get(choose).headers["location"]
        ended = world.http.post(world.link("resume", service)).headers["location"]
        world.send({"command": "customer", "customer": "remover", "email": "now@example.com"})
        for url in (here, choose, link, ended):
            answer = world.http.get(url)
            assert answer.status_code == 410, url
            assert "secret.example" not in answer.text
            assert "Your e-mail address has changed" in text_of(answer)
        assert world.http.post(link).status_code == 410
        assert mode(world, service) == "automatic"

    def test_pages_lead_on_for_no_longer_than_the_link_they_came_from(self, world: Shop) -> None:
        (service,) = world.buy("lingerer", line())
        link = world.link("stop", service, at=world.now() - timedelta(days=90, minutes=-30))
        page = world.http.get(link).text
        here = re.search(r'href="(/my/[^"]+)"', page)
        assert here is not None
        choose = f"{here[1]}/choose?action=stop&service={service.id}"
        made = world.http.get(choose).headers["location"]
        world.fleet.leap(timedelta(minutes=31))
        world.fleet.settle(30)
        for url in (here[1], choose, made):
            assert world.http.get(url).status_code == 410

    def test_page_can_be_used_for_an_hour(self, world: Shop) -> None:
        (service,) = world.buy("dawdler", line())
        here = world.account("dawdler")
        chosen = {"action": "stop", "service": str(service.id)}
        link = world.http.get(f"{here}/choose", params=chosen).headers["location"]
        ended = world.http.post(world.link("resume", service)).headers["location"]
        world.fleet.leap(timedelta(minutes=61))
        world.fleet.settle(30)
        for url in (here, f"{here}/choose?action=stop&service={service.id}", link, ended):
            answer = world.http.get(url)
            assert answer.status_code == 410
            assert "Send a new link" in text_of(answer)
        assert world.http.post(link).status_code == 410
        assert mode(world, service) == "automatic"

    def test_customer_without_services_is_told_so(self, world: Shop) -> None:
        world.fleet.simulator.simulator.faults.add(DECLINE | {"customer": "nobody"})
        world.send(given.order("order-nobody", customer="nobody"))
        assert "aucun service actuellement" in text_of(world.http.get(world.account("nobody")))


class TestNewLink:
    def ask(self, world: Shop, **form: str) -> None:
        answer = world.http.post("/link", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sent")
        assert "If we know this customer account" in text_of(world.http.get("/sent"))
        world.fleet.settle(30)

    def mails(self, world: Shop, to: str) -> list[Any]:
        return [mail for mail in world.mails() if mail["To"] == to]

    def test_who_has_an_old_link_gets_a_new_one_once_an_hour(self, world: Shop) -> None:
        (service,) = world.buy("late", line(domain="a.example"), language="cs")
        old = world.link("stop", service, at=world.now() - timedelta(days=100))
        page = world.http.get(old)
        token = page.text.partition('name="link" value="')[2].partition('"')[0]
        assert token == old.rpartition("/")[2]
        for _ in range(3):
            self.ask(world, link=token)
        (mail,) = self.mails(world, "late@example.com")
        assert mail["Subject"] == "Nový odkaz na vaše služby"
        assert mail["List-Unsubscribe"] is None
        (url,) = re.findall(r"http://\S+/do/\S+", plain(mail))
        answer = world.http.get(url)
        assert "a.example" in world.http.get(answer.headers["location"]).text

        world.fleet.leap(timedelta(hours=1))
        self.ask(world, link=token)
        first, second = self.mails(world, "late@example.com")
        assert first["Message-ID"] != second["Message-ID"]
        names = [e.name for e in world.happened("link.%")]
        assert names == ["link.sent", "link.sent"]

    def test_answer_is_the_same_whether_or_not_there_is_such_a_customer(self, world: Shop) -> None:
        world.buy("known", line())
        before = len(world.mails())
        for customer in ("unknown", "", "a\r\nBcc: b@example.com", "x" * 1000, "';--", "é\u202e"):
            self.ask(world, customer=customer)
        self.ask(world, link="forged")
        self.ask(world)
        assert len(world.mails()) == before
        self.ask(world, customer=" known ")
        assert len(self.mails(world, "known@example.com")) == 1

    def test_who_knows_their_address_alone_gets_a_link_for_each_account(self, world: Shop) -> None:
        for customer in ("first", "second"):
            world.buy(customer, line(), email="Both@example.com")
        for typed in ("both@EXAMPLE.com", "someone-else@example.com", "both@", "%@example.com"):
            self.ask(world, customer=typed)
        mails = self.mails(world, "Both@example.com")
        assert len(mails) == 2
        links = {re.findall(r"http://\S+/do/\S+", plain(mail))[0] for mail in mails}
        pages = {world.http.get(link).headers["location"] for link in links}
        assert len(pages) == 2
        assert self.mails(world, "both@example.com") == []

    def test_address_that_is_refused_ends_it_without_a_failed_task(self, world: Shop) -> None:
        world.buy("unreachable", line())
        world.fleet.mailbox.refuse("unreachable@*")
        self.ask(world, customer="unreachable")
        assert self.mails(world, "unreachable@example.com") == []
        assert [e.detail["reason"] for e in world.happened("link.refused")] == ["recipient_refused"]
        tasks = world.database.value("SELECT count(*) FROM tasks WHERE name = 'send_link'")
        assert tasks == 0


class TestSafety:
    def test_every_answer_forbids_scripts_frames_caches_and_referrers(self, world: Shop) -> None:
        (service,) = world.buy("careful", line())
        link, here = world.link("resume", service), world.account("careful")
        answers = [
            world.http.get(link), world.http.post(link), world.http.get(here),
            world.http.get("/do/forged"), world.http.get("/nothing"), world.http.put(link),
            world.http.get(world.links().account_url("careful", world.now())),
            world.http.post("/link", data={}), world.http.get("/"),
            world.http.post("/link", content=b"x" * 40_000), world.http.get("/healthz"),
        ]  # fmt: skip
        statuses = [answer.status_code for answer in answers]
        assert statuses == [200, 303, 200, 404, 404, 405, 303, 303, 200, 413, 200]
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "script-src" not in policy
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            assert "<script" not in answer.text
            assert "style=" not in answer.text

    def test_style_sheet_is_ours_and_may_be_kept(self, world: Shop) -> None:
        name = re.search(r'href="(/style-[0-9a-f]{12}\.css)"', world.http.get("/").text)
        assert name is not None
        answer = world.http.get(name[1])
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert "immutable" in answer.headers["cache-control"]
        assert "url(" not in answer.text
        assert "@import" not in answer.text

    def test_names_cannot_break_a_page_a_header_or_a_log_line(
        self, world: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        evil = "<b>x</b>\"'&{{7*7}}‮txt.exe\r\nSet-Cookie: a=b<script>alert(1)</script>"
        domain = '<img src=x onerror="alert(1)">{{7*7}}'
        (service,) = world.buy("evil<i>&", line(domain=domain))
        caplog.set_level(logging.DEBUG)
        plans = [
            replace(p, name=evil, options={"domain": given.Option(required=False)})
            for p in given.CATALOGUE.plans.values()
        ]
        subsidiaries = [replace(given.FR, entity=evil), given.IE]
        with world.fleet.owner.begin() as tx:
            save(tx, Catalogue(subsidiaries, [given.TERMS], plans))
        try:
            pages = [world.http.get(world.link("stop", service)),
                     world.http.get(world.account("evil<i>&")),
                     world.click(world.link("stop", service))]  # fmt: skip
        finally:
            world.catalogue(1)
        for page in pages:
            assert page.status_code == 200
            assert "<script" not in page.text
            assert "<img" not in page.text
            assert "<b>x" not in page.text
            assert "<i>" not in page.text
            assert "‮" not in page.text
            assert "{{7*7}}" in page.text
            assert "set-cookie" not in page.headers
            assert html.escape(domain) in page.text.replace("&#34;", "&quot;")
        for record in caplog.records:
            assert "\n" not in record.getMessage()

    def test_log_lines_never_hold_what_a_link_is_worth(
        self, world: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (service,) = world.buy("logged", line())
        caplog.set_level(logging.DEBUG)
        link, here = world.link("stop", service), world.account("logged")
        forged = "/do/eyJmb3JnZWQ.signature-of-nobody"
        ended = world.http.post(link).headers["location"]
        for url in (link, here, ended, forged, f"{here}/choose?action=stop&service=x"):
            for method in ("GET", "HEAD", "POST", "DELETE"):
                world.http.request(method, url)
        with monkeypatch.context() as patch:
            patch.setattr("producers.pages.account.customer", lambda *_: 1 / 0)
            answer = world.http.get(link)
        assert answer.status_code == 500
        assert "Something went wrong on our side" in text_of(answer)
        ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
        logged = "\n".join(logging.Formatter().format(record) for record in ours)
        assert "GET link: 200" in logged
        assert "ZeroDivisionError" in logged
        for url in (link, here, ended, forged):
            assert url.rpartition("/")[2] not in logged
            assert url.rpartition(".")[2] not in logged

    def test_health_needs_no_link(self, world: Shop) -> None:
        assert world.http.get("/healthz").json() == {"status": "ok"}
        assert world.http.get("/readyz").json() == {"status": "ok", "missing": []}
