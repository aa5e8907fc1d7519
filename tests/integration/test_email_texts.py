"""What e-mails said is kept when they are sent, and nothing that acts on behalf of a customer."""

import re
from typing import Any

import httpx
import pytest

from autorenew.console import accounts, serving
from producers.intake.links import LinkInvalid, Links
from producers.scheduler import forgetting
from producers.scheduler.forgetting import EmailTexts
from schemas.values import OperatorRole
from tests.integration.test_console import PASSWORD, sign_in
from tests.integration.test_deliveries import told  # noqa: F401
from tests.integration.test_reminders import plain
from tests.support.given import line


def test_an_operator_reads_e_mails_as_they_were_sent(told: Any, database: Any) -> None:  # noqa: F811
    world = told()
    service = world.order(line(domain="hers.example"))
    world.pass_until(service, -2)
    ready, *reminders = world.mails()
    assert ready["Subject"] == "1 service est prêt"
    assert reminders

    engine = world.fleet.engine("console")
    with engine.begin() as tx:
        accounts.add(tx, "olga", OperatorRole.READER, PASSWORD)
    server = serving.serve(
        engine, world.fleet.engine("readonly"), world.fleet.clock, world.fleet.settings,
        host="127.0.0.1", port=0,
    )  # fmt: skip
    with server, httpx.Client(base_url=server.url) as client:
        sign_in(client, "olga")
        pages = [
            client.get(f"/services/{service.id}").text,
            client.get(f"/orders/{service.order_id}").text,
        ]  # fmt: skip
        ids = {found for page in pages for found in re.findall(r"/emails/([0-9a-f-]{36})", page)}
        assert len(ids) == 1 + len(reminders)
        shown = "".join(client.get(f"/emails/{id_}").text for id_ in ids)
    for mail in (ready, *reminders):
        assert str(mail["Subject"]) in shown
        assert str(mail["To"]) in shown
    stored = "".join(row.body for row in database.all("SELECT body FROM email_texts"))
    assert "hers.example" in stored
    ours = Links(
        world.fleet.settings.need("link_base_url"), world.fleet.settings.need("link_secret")
    )
    sent = [
        url for m in world.mails() for url in re.findall(r"https://example\.com/do/\S+", plain(m))
    ]
    assert sent
    for url in sent:
        assert url not in stored
    for url in re.findall(r"https://\S+", stored):
        with pytest.raises(LinkInvalid):
            ours.open(url, world.fleet.clock.now())


def test_texts_are_forgotten_some_at_a_time_and_the_console_says_so(
    told: Any, database: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    world = told()
    service = world.order(line(domain="hers.example"))
    world.pass_until(service, -2)
    for table in ("email_texts", "emails", "order_emails"):
        database.run(f"UPDATE {table} SET sent_at = sent_at - interval '401 days'")
    kept = database.value("SELECT count(*) FROM email_texts")
    monkeypatch.setattr(forgetting, "BATCH", 1)
    texts, now = EmailTexts(400), world.fleet.clock.now()

    with world.fleet.engine("scheduler").begin() as tx:
        assert EmailTexts(0).forget(tx, now) == EmailTexts(500).forget(tx, now) == 0
        assert [texts.forget(tx, now) for _ in range(kept + 2)] == [1] * kept + [0, 0]

    engine = world.fleet.engine("console")
    with engine.begin() as tx:
        accounts.add(tx, "olga", OperatorRole.READER, PASSWORD)
    server = serving.serve(
        engine, world.fleet.engine("readonly"), world.fleet.clock, world.fleet.settings,
        host="127.0.0.1", port=0,
    )  # fmt: skip
    id_ = database.value("SELECT id FROM emails LIMIT 1")
    with server, httpx.Client(base_url=server.url) as client:
        sign_in(client, "olga")
        page = client.get(f"/emails/{id_}")
        assert (page.status_code, "no longer kept" in page.text) == (200, True)
        assert "texts are kept for 400 days" in page.text
        for listed in (f"/services/{service.id}", f"/orders/{service.order_id}",
                       f"/customers/{service.customer_id}"):  # fmt: skip
            assert "text not kept" in client.get(listed).text
        assert client.get(f"/emails/{service.id}").status_code == 404
