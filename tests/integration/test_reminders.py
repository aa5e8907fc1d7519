"""One e-mail per customer and day holds all due notices, once, and delays nothing else."""

import re
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from producers.intake.links import Links
from producers.scheduler.scheduler import Scheduler
from schemas.catalogue.store import CatalogueCache, set_rollout
from schemas.values import derived_id
from tests.integration.test_renewals import accepts, declines, publish
from tests.support import given
from tests.support.given import line, wait_until
from tests.support.operators import pause, resume_all
from workers.reminders.remind import RemindHandler

MONTHS = {
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "en": "January February March April May June July August September October November December",
    "cs": "ledna února března dubna května června července srpna září října listopadu prosince",
}


def plain(mail: EmailMessage) -> str:
    return content(mail, "plain")


def html(mail: EmailMessage) -> str:
    return content(mail, "html")


def content(mail: EmailMessage, kind: str) -> str:
    """The text of a mail, with no-break spaces as spaces."""
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\xa0", " ").replace("\u202f", " ")


def letters(world: Any, customer: str = "alice") -> list[EmailMessage]:
    return [mail for mail in world.mails() if mail["To"] == f"{customer}@example.com"]


def links(world: Any, mail: EmailMessage) -> dict[str, dict[str, Any]]:
    """The links of a mail, by command."""
    settings = world.fleet.settings
    ours = Links(settings.need("link_base_url"), settings.need("link_secret"))
    now = world.fleet.clock.now()
    found = [ours.open(url, now) for url in re.findall(r"https://example\.com/do/\S+", plain(mail))]
    return {command["command"]: command for command in found}


def written(day: date, language: str) -> str:
    month = MONTHS[language].split()[day.month - 1]
    number = {"cs": f"{day.day}.", "fr": "1er" if day.day == 1 else f"{day.day}"}
    return f"{number.get(language, day.day)} {month} {day.year}"


def told(world: Any) -> Counter[Any]:
    """How often each notice (service, expiry, kind) was sent."""
    rows = world.database.all(
        "SELECT e.subject, n.expires_at, n.kind FROM events AS e"
        " CROSS JOIN LATERAL jsonb_array_elements_text(e.detail->'kinds') AS told(kind)"
        " JOIN emails AS m ON e.detail->>'message_id' LIKE '<' || m.id || '@%'"
        " JOIN notices AS n ON n.email_id = m.id AND n.service_id = e.subject"
        "  AND n.kind = told.kind"
        " WHERE e.name = 'notice.sent'"
    )
    return Counter((row.subject, row.expires_at, row.kind) for row in rows)


def kinds(world: Any) -> list[str]:
    return sorted({kind for _, _, kind in told(world)})


def assert_nothing_twice(world: Any) -> None:
    assert set(world.fleet.mailbox.message_ids.values()) <= {1}
    assert set(told(world).values()) <= {1}
    days = world.database.all("SELECT customer_id, day FROM emails WHERE sent_at IS NOT NULL")
    assert len(days) == len(set(days)) == world.fleet.mailbox.received


def test_all_notices_of_a_customer_and_day_are_one_mail(life: Any) -> None:
    world = life()
    first = world.order(line("site"), line("server"), line("vm"))
    by_plan = {s.plan: s for s in world.services()}
    world.click("mode", by_plan["server"], mode="manual")
    world.click("stop", by_plan["vm"])

    world.pass_until(first, -7.9)
    before = len(letters(world))
    world.pass_until(first, -6.1)

    (mail,) = letters(world)[before:]
    for name in ("Site", "Server", "Vm"):
        assert plain(mail).count(f"* {name}") == 1
    assert (mail["Subject"] or "").startswith("1 service à renouveler")  # the most urgent first
    assert "(et 2 autres)" in mail["Subject"]
    assert_nothing_twice(world)


@pytest.mark.parametrize(("services", "shown", "amount"), [(50, 50, "45,44"), (60, 1, "2 726,40")])
def test_fifty_services_are_named_in_one_mail_and_more_are_summed_up(
    life: Any, services: int, shown: int, amount: str
) -> None:
    world = life(calls_at_once=16)
    first = world.order(*(line(quantity=10) for _ in range(services // 10)))
    assert len(world.services()) == services

    world.pass_until(first, -14.1)

    mail = letters(world)[-1]
    assert plain(mail).count("* Site") == html(mail).count("<strong") == shown
    assert " ".join(plain(mail).split()).count(f"{amount} €") == shown
    assert_nothing_twice(world)


def test_dates_and_amounts_are_those_of_the_customers_language(life: Any) -> None:
    world = life()
    amounts = {"fr": "45,44 €", "en": "€45.44", "cs": "45,44 €", "de": "€45.44"}
    for language in amounts:
        document = given.order(language, line(domain="example.com"), customer=language)
        document["customer"]["language"] = language
        world.send(document)
    first, *_ = world.services()
    expires_on = world.expiry(first)

    world.pass_until(first, -14.1)

    for language, amount in amounts.items():
        mail = letters(world, language)[-1]
        language = language if language in MONTHS else "en"
        assert mail["Content-Language"] == language
        assert f'lang="{language}"' in html(mail)
        for said in (plain(mail), html(mail)):
            assert written(expires_on - timedelta(days=1), language) in said  # the last full day
            assert written(expires_on - timedelta(days=3), language) in said  # when it is charged
            assert amount in said
            assert "example.com" in said
            assert "https://example.com/do/" in said


def test_no_notice_is_repeated_over_months_of_declines(life: Any) -> None:
    world = life()
    first = world.order(line("site"), line("vm"))
    world.send(given.order("k-2", customer="bob"))
    world.pass_days(35)  # into the second period
    declines(world)

    world.pass_until(first, 45)
    accepts(world)
    assert world.renew(*hers(world)).verdict == "accepted"
    world.pass_days(40)

    assert {"suspended", "declined-1", "declined-4", "before-15"} <= set(kinds(world))
    assert_nothing_twice(world)
    world.clean()


def hers(world: Any, customer: str = "alice") -> list[Any]:
    return [service for service in world.services() if service.customer_id == customer]


def test_two_schedulers_at_the_same_moment_send_each_mail_once(life: Any) -> None:
    world = life(calls_at_once=16)
    world.send(
        *(given.order(f"k-{n}", line(quantity=3), customer=f"c-{n}") for n in range(40)),
        given.order("k-alice"),
    )
    first = world.services()[0]
    world.pass_until(first, -14.8)
    before = told(world)
    world.fleet.leap(timedelta(days=0.4))

    at_once(scheduler.round for scheduler in schedulers(world, 4))
    world.fleet.settle(30)
    world.pass_until(first, -13.1)  # who was written to by then is told of the rest a day later

    new = told(world) - before
    assert {kind for _, _, kind in new} == {"before-15"}
    assert len(new) == 121
    assert_nothing_twice(world)


def schedulers(world: Any, number: int) -> list[Scheduler]:
    fleet = world.fleet
    return [
        Scheduler(fleet.engine("scheduler"), CatalogueCache(), fleet.clock, fleet.settings)
        for _ in range(number)
    ]


def at_once(calls: Iterable[Any]) -> None:
    calls = list(calls)
    barrier = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def run(call: Any) -> None:
        barrier.wait(10)
        try:
            call()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


@pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("a defect")])
def test_a_crash_after_the_mail_was_taken_sends_it_again_under_the_same_id(
    life: Any, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    world.pass_until(first, -14.8)
    before = world.fleet.mailbox.received
    crashes: list[Exception] = []
    record = RemindHandler.record

    def crash_once(*arguments: Any) -> Any:
        if not crashes:
            crashes.append(fault)
            raise fault
        return record(*arguments)

    monkeypatch.setattr(RemindHandler, "record", crash_once)
    world.pass_until(first, -14.1)

    first_try, second_try = letters(world)[before:]
    assert first_try["Message-ID"] == second_try["Message-ID"]
    assert plain(first_try) == plain(second_try)
    assert set(told(world).values()) == {1}
    assert world.database.value("SELECT count(*) FROM emails WHERE sent_at IS NULL") == 0


def test_notices_missed_in_an_outage_collapse_into_the_newest(life: Any) -> None:
    world = life()
    first = world.order(line(quantity=2))
    world.click("mode", mode="manual")
    world.pass_until(first, -16)
    before = len(letters(world))

    world.fleet.leap(timedelta(days=10))  # past those of 15 and 7 days
    world.fleet.settle(30)
    resume_lanes(world)
    world.pass_until(first, -5)

    (mail,) = letters(world)[before:]
    assert plain(mail).count("* Site") == 2
    assert "before-15" not in kinds(world)
    assert "before-7" in kinds(world)
    world.pass_until(first, -2.1)
    assert len(letters(world)) == before + 2
    assert "before-3" in kinds(world)
    assert_nothing_twice(world)


def resume_lanes(world: Any) -> None:
    resume_all(world.database.engine("api"))
    world.fleet.settle(30)


def test_what_is_switched_on_late_is_charged_a_week_after_its_first_e_mail(life: Any) -> None:
    world = life(brands=())
    first = world.order()
    world.pass_until(first, -5)
    # Given that no e-mail leaves for three days after renewal was switched on
    pause(world.database.engine("api"), "mail")
    with world.fleet.owner.begin() as tx:
        set_rollout(tx, "ovh", "FR", world.fleet.clock.now().date())
    world.pass_until(first, -1.6)
    resume_lanes(world)
    for mail in letters(world):
        assert written(world.expiry(first) + timedelta(days=5), "fr") in plain(mail)

    world.pass_until(first, 5.3)
    assert world.service().paid_periods == 1
    world.pass_until(first, 5.5)
    assert world.service().paid_periods == 2
    world.clean()


def test_a_refused_recipient_is_a_reason_on_the_task_and_harms_no_neighbour(life: Any) -> None:
    world = life()
    world.fleet.mailbox.refuse("bob@*")
    names = ("alice", "bob", "carol")
    world.send(*(given.order(f"k-{name}", customer=name) for name in names))
    first = world.services()[0]

    world.pass_until(first, -14.1)

    failed = world.database.all(
        "SELECT t.state, t.reason, t.error, e.customer_id FROM tasks AS t"
        " JOIN emails AS e ON e.id = t.subject WHERE t.name = 'remind'"
    )
    assert [(t.state, t.customer_id) for t in failed if t.customer_id == "bob"] == [
        ("failed", "bob")
    ] * len(failed)
    assert failed
    assert {t.reason for t in failed} == {"recipient_refused"}
    assert "no such mailbox" in failed[0].error
    assert len(letters(world)) == len(letters(world, "carol")) >= 1
    assert letters(world, "bob") == []

    world.pass_until(first, -2.9)
    assert [s.paid_periods for s in world.services()] == [2, 2, 2]
    world.clean()


def test_deferred_recipient_is_retried_and_the_others_do_not_wait(life: Any) -> None:
    world = life()
    world.fleet.mailbox.defer("bob@*")
    world.send(given.order("k-1"), given.order("k-2", customer="bob"))
    first = world.services()[0]
    world.pass_until(first, -14.8)
    before = len(letters(world))
    world.fleet.leap(timedelta(days=0.4))

    world.fleet.scheduler.round()
    wait_until(lambda: len(letters(world)) > before, "the neighbour is written to")
    world.fleet.mailbox._deferred.clear()
    world.database.run("UPDATE tasks SET attempts = 0, state = 'ready', run_at = now()"
                       " WHERE name = 'remind' AND state = 'failed'")  # fmt: skip
    world.fleet.settle(30)

    assert len(letters(world, "bob")) >= 1
    assert set(told(world).values()) == {1}


def test_unreachable_mail_server_delays_mails_and_nothing_else(
    life: Any,
) -> None:
    world = life(retry_attempts=1000, retry_cap_seconds=0.2)
    first = world.order(line("site"), line("vm"))
    world.pass_until(first, -14.8)
    before = len(letters(world))
    world.fleet.mailbox.stop()
    world.fleet.leap(timedelta(days=0.4))
    world.fleet.scheduler.round()
    wait_until(lambda: waiting_mail(world), "the mail server was found away")

    # A click, a charge and a delivery meanwhile.
    expires_on = world.expiry(first).isoformat()
    renew = {
        "command": "renew",
        "customer": "alice",
        "services": [{"id": str(first.id), "expires_on": expires_on}],
    }
    documents = given.order("k-2", line("server"), customer="bob"), renew
    world.fleet.intake.place("shop", "python", [given.body(d) for d in documents])
    world.fleet.scheduler.round()

    def done() -> bool:
        found = {s.plan: (s.state, s.paid_periods) for s in world.services()}
        return found == {"site": ("active", 2), "vm": ("active", 1), "server": ("active", 1)}

    wait_until(done, "one is renewed and another one delivered")
    assert waiting_mail(world)
    assert len(letters(world)) == before

    world.fleet.mailbox.start()
    world.fleet.settle(30)
    (mail,) = letters(world)[before:]
    assert "* Vm" in plain(mail)
    assert "* Site" not in plain(mail)
    assert_nothing_twice(world)


def waiting_mail(world: Any) -> int:
    return int(
        world.database.value("SELECT count(*) FROM tasks WHERE name = 'remind' AND attempts > 0")
    )


def test_a_click_on_renew_renews_and_a_second_click_does_nothing(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("mode", mode="manual")
    world.pass_until(first, -14.1)
    click = links(world, letters(world)[-1])["renew"]

    (answer,) = world.send(click)
    (again,) = world.send(click)

    assert (answer.verdict, answer.repeated) == ("accepted", False)
    assert (again.verdict, again.repeated) == ("accepted", True)
    assert world.service().paid_periods == 2
    world.clean()


def test_click_on_stop_ends_a_service_at_its_expiry_and_a_click_on_resume_undoes_it(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -14.1)

    world.send(links(world, letters(world)[-1])["stop"])
    assert world.service().mode == "stop"
    world.pass_until(first, -6.1)
    last = links(world, letters(world)[-1])
    assert set(last) == {"resume"}
    assert world.service().paid_periods == 1
    world.send(last["resume"])

    assert world.service().mode == "automatic"
    world.pass_until(first, 1)
    assert (world.service().state, world.service().paid_periods) == ("active", 2)
    world.clean()


def test_click_on_accept_records_the_agreement_and_renews(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -16)
    publish(world, 3)
    world.pass_until(first, -14.1)
    mail = letters(world)[-1]
    offered = links(world, mail)
    assert set(offered) == {"renew", "stop"}
    assert offered["renew"]["contracts"] == [{"contract": "terms", "version": 3}]
    assert "Accepter le contrat" in plain(mail)

    (answer,) = world.send(offered["renew"])

    assert answer.verdict == "accepted"
    assert world.service().paid_periods == 2
    agreed = world.database.value("SELECT max(version) FROM agreements")
    assert agreed == 3
    world.clean()


def test_a_second_mail_of_a_day_is_sent_the_next_morning(life: Any) -> None:
    world = life(brands=["soyoustart"])
    first = world.order(line("site"))
    world.pass_days(5)
    world.order(line("vm"), key="k-2")
    by_plan = {s.plan: s for s in world.services()}
    # Given that it was written about the one this morning
    world.pass_until(by_plan["vm"], -14.5)
    before = len(letters(world))
    # When something is to be said about the other at noon
    world.roll_out("ovh")
    world.fleet.settle(30)
    assert len(letters(world)) == before
    world.pass_until(by_plan["vm"], -13.8)
    assert len(letters(world)) == before
    # Then it is said on the next morning.
    world.pass_until(by_plan["vm"], -13.5)

    (mail,) = letters(world)[before:]
    assert "* Site" in plain(mail)
    assert "* Vm" not in plain(mail)
    assert first.plan == "site"
    assert_nothing_twice(world)


def second_mail_before_a_charge(world: Any) -> Any:
    """A service that is charged at midnight; today its customer was written to, and something is
    left to be said."""
    first = world.order()
    world.pass_until(first, -3.5)
    day = world.expiry(first) - timedelta(days=4)
    world.database.run(
        "INSERT INTO emails (id, customer_id, day, begun_at, sent_at)"
        " VALUES (:id, 'alice', :day, now(), now())",
        id=derived_id("email", "alice", day),
        day=day,
    )
    world.roll_out("ovh")
    world.fleet.settle(30)
    assert letters(world) == []
    return first


def test_a_second_mail_of_a_day_does_not_delay_the_charge_at_midnight(life: Any) -> None:
    world = life(brands=[])
    first = second_mail_before_a_charge(world)

    world.pass_until(first, -2.95)

    assert world.service().paid_periods == 2


def test_a_second_mail_of_a_day_still_waits_for_the_morning_after_a_decline_at_midnight(
    life: Any,
) -> None:
    world = life(brands=[])
    declined = second_mail_before_a_charge(world)
    declines(world)

    world.pass_until(declined, -2.8)
    assert world.database.value("SELECT count(*) FROM charges WHERE state = 'declined'") == 1
    assert letters(world) == []
    world.pass_until(declined, -2.5)

    assert len(letters(world)) == 1


def test_a_click_on_renew_does_not_wait_for_a_mail_that_was_put_off_to_the_morning(
    life: Any,
) -> None:
    world = life(brands=[])
    first = second_mail_before_a_charge(world)
    wanted = {"id": str(first.id), "expires_on": world.expiry(first).isoformat()}
    click = {"command": "renew", "customer": "alice", "services": [wanted]}

    world.fleet.intake.place("shop", "python", [given.body(click)])
    rounds = [do_what_is_due(world) for _ in range(5)]

    assert world.service().paid_periods == 2
    assert rounds[-1] == 0  # nothing is handed over again and again


def do_what_is_due(world: Any) -> int:
    found = int(world.fleet.scheduler.round())
    world.fleet.wait_until_idle(10)
    return found


def test_service_renewed_before_the_mail_is_sent_is_not_mentioned(life: Any) -> None:
    world = life()
    first = world.order(line("site"), line("vm"))
    world.pass_until(first, -14.8)
    before = len(letters(world))
    pause(world.database.engine("api"), "mail")
    world.pass_until(first, -14.1)
    site, _ = world.services()

    world.renew(site)
    resume_lanes(world)

    (mail,) = letters(world)[before:]
    assert "* Vm" in plain(mail)
    assert "* Site" not in plain(mail)
    assert_nothing_twice(world)


def test_mail_without_any_notice_left_is_not_sent(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -14.8)
    before = len(letters(world))
    pause(world.database.engine("api"), "mail")
    world.pass_until(first, -14.1)

    world.renew()
    resume_lanes(world)

    assert len(letters(world)) == before
    assert world.fleet.tasks() == {}
    world.clean()


def look(world: Any, hour: int, days: int) -> None:
    """Let days pass of which a scheduler sees one moment each, at that hour in UTC."""
    now = world.fleet.clock.now()
    first = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    first += timedelta(days=first <= now)
    world.fleet.leap(first - now)
    for _ in range(days):
        world.fleet.settle(30)
        world.fleet.leap(timedelta(days=1))


def test_looks_that_always_fall_into_the_night_starve_no_reminder(life: Any) -> None:
    world = life(silence_seconds=80 * 3600.0)
    world.order()  # for a month

    look(world, 3, 45)

    told = [detail["kinds"] for name, detail in world.happened("notice.sent")]
    assert told[0] == ["before-15"]
    names = [name for name, _ in world.happened()]
    assert names.index("notice.sent") < names.index("service.renewed")
    assert world.service().paid_periods == 2
    world.clean()


def test_what_nobody_saw_for_a_day_waits_for_the_morning(life: Any) -> None:
    world = life(silence_seconds=80 * 3600.0)
    first = world.order()
    world.pass_until(first, -15 + 6 / 24)  # the first reminder is due at 08:00
    assert letters(world) == []

    world.fleet.leap(timedelta(hours=22))  # 05:00 or so
    world.fleet.settle(30)
    assert letters(world) == []

    world.fleet.leap(timedelta(hours=5))
    world.fleet.settle(30)
    assert len(letters(world)) == 1
