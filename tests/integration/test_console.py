"""The console over a real database: signing in, roles, forms, and what may not be done."""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, ProgrammingError

from autorenew.console import accounts, serving
from autorenew.console.routing import safe_next
from autorenew.console.sessions import FREE_FAILURES
from autorenew.console.today import Kept
from autorenew.local.postgres import PrivatePostgres
from benchmarks.console import groups_on
from producers.web.serving import WebServer
from schemas.clock import SystemClock
from schemas.settings import Settings
from schemas.tables import ROLES
from schemas.values import OperatorRole
from tests.conftest import Database
from tests.support.given import order

PASSWORD = "correct horse battery"


@dataclass
class Site:
    """A console with an operator of each role, named like it."""

    database: Database
    server: WebServer

    def browser(self, role: str | None = None) -> httpx.Client:
        """Somebody who has signed in, or not."""
        client = httpx.Client(base_url=self.server.url, follow_redirects=False, timeout=30)
        if role is not None:
            assert sign_in(client, role).status_code == 303
        return client


def token_in(page: httpx.Response, field: str = "csrf") -> str:
    found = re.search(rf'name="{field}" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


def sign_in(
    client: httpx.Client, name: str, password: str = PASSWORD, after: str = "/"
) -> httpx.Response:
    form = token_in(client.get("/sign-in"))
    given = {"csrf": form, "name": name, "password": password, "next": after}
    return client.post("/sign-in", data=given)


@pytest.fixture(scope="module")
def running(postgres: PrivatePostgres, template: str) -> Iterator[Site]:
    """One console for all tests: passwords are slow to hash on purpose."""
    postgres.create_database("console", template)
    database = Database(postgres, "console")
    with serve(database) as server:
        yield Site(database, server)
    database.close()
    postgres.drop_database("console")


def _kept(make: Any, clients: list[httpx.Client]) -> Any:
    def client(*args: Any, **kwargs: Any) -> httpx.Client:
        clients.append(make(*args, **kwargs))
        return clients[-1]

    return client


@pytest.fixture
def site(running: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clients: list[httpx.Client] = []
    with monkeypatch.context() as patched:
        patched.setattr(httpx, "Client", _kept(httpx.Client, clients))
        yield running
    for client in clients:
        client.close()
    for table in ("lane_pauses", "console_sessions", "one_time_logins", "sign_in_failures",
                  "batches", "tasks"):  # fmt: skip
        running.database.run(f"DELETE FROM {table}")


def serve(database: Database, **settings: Any) -> WebServer:
    with database.engine("console").begin() as tx:
        for role in OperatorRole:
            accounts.add(tx, role.value, role, PASSWORD)
    return serving.serve(
        database.engine("console"),
        database.engine("readonly"),
        SystemClock(),
        Settings(**settings),
        host="127.0.0.1",
        port=0,
    )


PAGES = ["/", "/failed", "/failed/tasks", "/bulk", "/lanes", "/lanes/orders", "/rejected",
         "/history", "/find?q=x", "/password"]  # fmt: skip


def test_a_customer_whose_id_has_a_slash_is_shown(site: Site) -> None:
    document = order("slashed")
    document["customer"] |= {"id": "de/4711"}
    site.database.place(document)
    client = site.browser("reader")
    found = client.get("/find?q=de/4711")
    assert found.headers["location"] == "/customers/de%2F4711"
    assert "de/4711" in client.get(found.headers["location"]).text


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in(site: Site, path: str) -> None:
    answer = site.browser().get(path)
    assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in")


@pytest.mark.parametrize("role", [role.value for role in OperatorRole])
def test_every_role_sees_every_page_but_the_operators(site: Site, role: str) -> None:
    client = site.browser(role)
    assert {path: client.get(path).status_code for path in PAGES} == dict.fromkeys(PAGES, 200)
    expected = 200 if role == "administrator" else 403
    assert client.get("/operators").status_code == expected


CHANGES = ["/failed/act", "/lanes/orders/pause", "/lanes/orders/resume", "/lanes/orders/limit",
           "/lanes/orders/probe", "/bulk/00000000-0000-0000-0000-000000000001/stop",
           "/failed/edit", "/failed/done", "/failed/settle",
           "/failed/edit/00000000-0000-0000-0000-000000000001", "/operators/add",
           "/operators/role", "/operators/remove", "/rejected/put-back"]  # fmt: skip


@pytest.mark.parametrize("path", CHANGES)
def test_a_reader_changes_nothing(site: Site, path: str) -> None:
    client = site.browser("reader")
    form = {"csrf": token_in(client.get("/")), "note": "x", "action": "retry", "task": "x:y"}
    answer = client.post(path, data=form)
    assert answer.status_code == 403
    assert "Your role is reader" in answer.text


def test_an_operator_administers_nobody(site: Site) -> None:
    client = site.browser("operator")
    form = {"csrf": token_in(client.get("/")), "name": "reader", "role": "administrator"}
    assert client.post("/operators/role", data=form).status_code == 403


@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        (None, {}),
        ("0" * 64, {}),
        ("own", {"origin": "https://evil.example"}),
        ("own", {"sec-fetch-site": "cross-site"}),
        ("own", {"sec-fetch-site": "same-site"}),
    ],
)
def test_a_form_of_another_page_does_nothing(
    site: Site, csrf: str | None, headers: dict[str, str]
) -> None:
    client = site.browser("administrator")
    own = token_in(client.get("/"))
    form = {"note": "why"} | ({} if csrf is None else {"csrf": own if csrf == "own" else csrf})
    answer = client.post("/lanes/orders/pause", data=form, headers=headers)
    assert answer.status_code == 403
    assert site.database.all("SELECT * FROM lane_pauses") == []


def test_the_token_of_another_session_is_refused(site: Site) -> None:
    one, other = site.browser("administrator"), site.browser("administrator")
    form = {"note": "why", "csrf": token_in(other.get("/"))}
    assert one.post("/lanes/orders/pause", data=form).status_code == 403


def test_what_is_done_is_in_the_history_with_who_and_why(site: Site) -> None:
    client = site.browser("operator")
    form = {"csrf": token_in(client.get("/")), "note": "the register is down"}
    assert client.post("/lanes/orders/pause", data=form).status_code == 303
    *_, event = site.database.all(
        "SELECT detail FROM events WHERE name = 'lane.paused' ORDER BY id"
    )
    assert event.detail["by"] == "operator"
    assert event.detail["because"] == "the register is down"
    page = client.get("/history?name=lane.paused").text
    assert "the register is down" in page
    assert "lane.paused" in page


def test_a_pause_without_a_reason_is_refused(site: Site) -> None:
    client = site.browser("operator")
    answer = client.post("/lanes/orders/pause", data={"csrf": token_in(client.get("/"))})
    assert answer.status_code == 422
    assert site.database.all("SELECT * FROM lane_pauses") == []


def test_signing_in_takes_a_new_token(site: Site) -> None:
    """Session fixation: whoever set a cookie before has nothing in hand afterwards."""
    chosen = {"cookie": "autorenew=chosen-by-somebody-else"}
    client = site.browser()
    page = client.get("/sign-in", headers=chosen)
    form = {"csrf": token_in(page), "name": "operator", "password": PASSWORD, "next": "/"}
    before = "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)
    answer = client.post("/sign-in", data=form, headers={"cookie": f"{before}; {chosen['cookie']}"})
    assert answer.status_code == 303
    assert "chosen-by-somebody-else" not in answer.cookies["autorenew"]
    assert site.browser().get("/", headers=chosen).status_code == 303


def test_the_database_holds_no_token_that_opens_anything(site: Site) -> None:
    client = site.browser("operator")
    token = client.cookies["autorenew"]
    stored = site.database.all("SELECT * FROM console_sessions")
    assert token.encode() not in b"".join(bytes(row.token_hash) for row in stored)
    assert PASSWORD not in site.database.value(
        "SELECT string_agg(password_hash, ' ') FROM operators"
    )


def test_cookies_are_kept_from_scripts_and_other_sites(site: Site) -> None:
    client = site.browser()
    cookie = sign_in(client, "operator").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # on loopback, without TLS


def test_cookies_go_over_https_alone_where_browsers_use_it(database: Database) -> None:
    with serve(database, console_url="https://console.example.com") as server:
        client = httpx.Client(base_url=server.url)
        page = client.get("/sign-in")
        cookie = page.headers["set-cookie"]
        assert cookie.startswith("__Host-autorenew")
        assert "Secure" in cookie
        assert "max-age" in page.headers["strict-transport-security"]


@pytest.mark.parametrize("path", ["/", "/sign-in", "/failed", "/nothing", "/static/console.css"])
def test_no_page_is_framed_sniffed_or_scripted(site: Site, path: str) -> None:
    headers = site.browser("reader").get(path).headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    if not path.startswith("/static"):
        assert headers["cache-control"] == "no-store"


def test_no_page_has_a_script_or_a_style_of_its_own(site: Site) -> None:
    client = site.browser("administrator")
    for path in [*PAGES, "/operators", "/sign-in"]:
        page = client.get(path).text
        assert not re.search(r"<style|<script(?! src=)|\son\w+=|\sstyle=|javascript:", page), path


@pytest.mark.parametrize(
    ("said", "goes"),
    [
        ("/failed?reason=x", "/failed?reason=x"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("failed", "/"),
        (None, "/"),
    ],
)
def test_after_signing_in_one_stays_here(said: str | None, goes: str) -> None:
    assert safe_next(said) == goes


def test_signing_in_leads_to_where_one_wanted_to_go(site: Site) -> None:
    client = site.browser()
    sent = client.get("/failed?step=charge").headers["location"]
    assert sent == "/sign-in?next=%2Ffailed%3Fstep%3Dcharge"
    form = client.get(sent)
    assert token_in(form, "next") == "/failed?step=charge"
    assert sign_in(client, "reader", after="//evil.example").headers["location"] == "/"


def test_wrong_passwords_are_limited_and_the_right_one_waits_too(site: Site) -> None:
    client = site.browser()
    answers = [sign_in(client, "reader", "wrong" * 4).status_code for _ in range(FREE_FAILURES)]
    assert answers == [401] * FREE_FAILURES
    assert sign_in(client, "reader", "wrong" * 4).status_code == 429
    assert sign_in(client, "reader").status_code == 429
    assert sign_in(client, "operator").status_code == 303
    site.database.run("UPDATE sign_in_failures SET last_at = now() - interval '1 h'")
    assert sign_in(site.browser(), "reader").status_code == 303


def test_right_passwords_count_against_nobody(site: Site) -> None:
    """Given an office whose operators all come from one address, on every day."""
    client = site.browser()
    assert sign_in(client, "reader", "wrong" * 4).status_code == 401
    for _ in range(2):
        assert sign_in(site.browser(), "operator").status_code == 303
    counted = site.database.all("SELECT who, failures FROM sign_in_failures ORDER BY who")
    assert counted == [
        ("127.0.0.1 as reader", 1), ("address 127.0.0.1", 1), ("name operator", 0),
        ("name reader", 1),
    ]  # fmt: skip


def test_who_tries_passwords_leaves_threads_for_pages(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as many who wait for their password to be looked at as may."""
    monkeypatch.setattr(accounts, "_WAITING", threading.BoundedSemaphore(1))
    with accounts._WAITING:
        answer = sign_in(site.browser(), "reader")
    assert answer.status_code == 422
    assert "try again in a moment" in answer.text


def test_behind_a_proxy_wrong_passwords_are_those_of_the_browser(database: Database) -> None:
    with serve(database, trusted_proxies=["127.0.0.0/8"]) as server:
        for address, answers in (("203.0.113.7", 429), ("203.0.113.8", 401)):
            headers = {"X-Forwarded-For": f"198.51.100.1, {address}"}
            with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
                if answers == 429:
                    for _ in range(FREE_FAILURES):
                        sign_in(client, "reader", "wrong" * 4)
                assert sign_in(client, "reader", "wrong" * 4).status_code == answers


def test_an_unknown_name_is_answered_like_a_wrong_password(site: Site) -> None:
    client = site.browser()
    unknown = sign_in(client, "nobody", "wrong" * 4)
    wrong = sign_in(client, "reader", "wrong" * 4)
    assert unknown.status_code == wrong.status_code == 401
    assert "do not belong together" in unknown.text
    assert "do not belong together" in wrong.text


def test_a_session_ends_with_its_password_its_role_and_its_operator(site: Site) -> None:
    engine = site.database.engine("console")
    with engine.begin() as tx:
        accounts.add(tx, "fred", OperatorRole.READER, PASSWORD)
    for change in (
        lambda tx: accounts.set_password(tx, "fred", "another long password"),
        lambda tx: accounts.set_role(tx, "fred", OperatorRole.OPERATOR),
        lambda tx: accounts.remove(tx, "fred"),
    ):
        client = httpx.Client(base_url=site.server.url)
        with engine.begin() as tx:
            token = accounts.make_link(tx, "fred")
        form = token_in(client.get(f"/sign-in/once?token={token}"))
        client.post("/sign-in/once", data={"csrf": form, "token": token})
        assert client.get("/").status_code == 200
        with engine.begin() as tx:
            change(tx)
        assert client.get("/").status_code == 303


def test_a_session_ends_when_it_is_not_used_or_old(site: Site) -> None:
    client = site.browser("reader")
    site.database.run("UPDATE console_sessions SET seen_at = now() - interval '2 h'")
    assert client.get("/").status_code == 303
    client = site.browser("reader")
    site.database.run("UPDATE console_sessions SET begun_at = now() - interval '13 h'")
    assert client.get("/").status_code == 303


def test_a_page_that_refreshes_itself_keeps_no_session_alive(site: Site) -> None:
    client = site.browser("reader")
    site.database.run("UPDATE console_sessions SET seen_at = now() - interval '10 min'")
    client.get("/", headers={"hx-request": "true"})
    age = "SELECT extract(epoch FROM now() - seen_at) > 300 FROM console_sessions"
    assert site.database.value(age)
    client.get("/")
    assert not site.database.value(age)


def test_a_page_that_refreshes_itself_goes_to_signing_in_once_the_session_has_ended(
    site: Site,
) -> None:
    answer = site.browser().get("/", headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/sign-in")


def test_signing_out_ends_the_session(site: Site) -> None:
    client = site.browser("reader")
    token = client.cookies["autorenew"]
    form = {"csrf": token_in(client.get("/"))}
    assert client.post("/sign-out", data=form).status_code == 303
    again = httpx.Client(base_url=site.server.url, cookies={"autorenew": token})
    assert again.get("/").status_code == 303


def test_a_link_signs_in_once(site: Site) -> None:
    with site.database.engine("console").begin() as tx:
        token = accounts.make_link(tx, "operator")
    client = site.browser()
    for _ in range(2):  # looking at it uses nothing up
        page = client.get(f"/sign-in/once?token={token}")
    form = {"csrf": token_in(page), "token": token}
    assert client.post("/sign-in/once", data=form).status_code == 303
    assert client.get("/").status_code == 200
    other = site.browser()
    form = {"csrf": token_in(other.get(f"/sign-in/once?token={token}")), "token": token}
    assert other.post("/sign-in/once", data=form).status_code == 401


def test_a_link_is_too_old_after_a_while(site: Site) -> None:
    with site.database.engine("console").begin() as tx:
        token = accounts.make_link(tx, "operator", seconds=0.01)
    time.sleep(0.05)
    client = site.browser()
    form = {"csrf": token_in(client.get("/sign-in/once")), "token": token}
    assert client.post("/sign-in/once", data=form).status_code == 401


HOSTILE = "<script>alert(1)</script>\u202e\x07'\"&"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\u0007&#39;&#34;&amp;"


def test_what_a_far_side_says_is_text(site: Site) -> None:
    site.database.place(order("k-1"))
    site.database.run(
        "UPDATE tasks SET state = 'failed', batched = false, reason = 'driver_refused', code = 'x',"
        " error = :said, run_at = now()",
        said=HOSTILE,
    )
    site.database.run("DELETE FROM batches")
    subject = site.database.value("SELECT subject FROM tasks WHERE state = 'failed'")
    site.database.run(
        "INSERT INTO events (subject, name, detail) VALUES (:id, 'operation.refused',"
        " jsonb_build_object('words', CAST(:said AS text)))",
        id=subject,
        said=HOSTILE,
    )
    client = site.browser("operator")
    for path in (
        "/failed/tasks",
        f"/failed/task/{subject}",
        f"/failed/confirm?action=retry&task=price:{subject}",
        "/failed/confirm?action=cancel&scope=all",
    ):
        page = client.get(path)
        assert page.status_code == 200, path
        assert SHOWN in page.text, path
        assert "<script>alert" not in page.text


def test_groups_are_counted_by_the_benchmark_as_they_are_shown(site: Site) -> None:
    for key, reason in (("k-1", "driver_refused"), ("k-2", "driver_refused"), ("k-3", "crashed")):
        site.database.place(order(key))
        site.database.run(
            "UPDATE tasks SET state = 'failed', batched = false, reason = :reason, run_at = now()"
            " WHERE state = 'ready'",
            reason=reason,
        )
    site.database.run("DELETE FROM batches")
    assert groups_on(site.browser("operator").get("/failed").text) == 2


def test_what_customers_call_themselves_is_text(site: Site) -> None:
    site.database.place(order("k-<b>2", customer="zoe"))
    site.database.run("UPDATE customers SET name = :said WHERE id = 'zoe'", said=HOSTILE)
    client = site.browser("reader")
    page = client.get("/customers/zoe")
    assert page.status_code == 200
    assert SHOWN in page.text
    assert "<b>" not in page.text
    found = client.get("/find", params={"q": "k-<b>2"})
    assert found.status_code == 303
    assert "<b>" not in client.get(found.headers["location"]).text


@pytest.mark.parametrize("said", ["\x00", "a\x00b", "\x1b[2J"])
def test_characters_that_cannot_be_kept_are_refused(site: Site, said: str) -> None:
    client = site.browser("operator")
    form = {"csrf": token_in(client.get("/")), "note": said + "x"}
    assert client.post("/lanes/orders/pause", data=form).status_code == 422
    assert client.get("/find", params={"q": said + "x"}).status_code == 422


def test_what_cannot_be_read_is_asked_for_once_for_all_who_wait(site: Site) -> None:
    times = 0

    def read(tx: Connection) -> int:
        nonlocal times
        times += 1
        return int(tx.execute(text("SELECT 1 / 0")).scalar_one())

    kept, engine = Kept(read, 60.0), site.database.engine("readonly")
    for _ in range(3):
        with pytest.raises(DataError):
            kept.get(engine)
    assert times == 1


def test_bad_addresses_get_a_page_and_no_traceback(site: Site) -> None:
    client = site.browser("operator")
    for path in (
        "/orders/x", "/services/x", "/customers/nobody", "/invoices/x", "/emails/x", "/bulk/x",
        "/rejected/x", "/failed/task/x", "/failed/edit/x", "/lanes/nothing", "/history?before=x",
        "/failed/tasks?page=0", "/failed/tasks?since=yesterday", "/failed/confirm",
        "/failed/confirm?action=retry", "/failed/confirm?action=retry&task=x",
        "/failed/new", "/history?before=99999999999999999999", "/customers/x%00",
        "/invoices/FR2026%00-1", "/credit-notes/%00-1", "/lanes/%00", "/lanes/%00/pause",
    ):  # fmt: skip
        assert client.get(path).status_code in (404, 422), path


def test_no_other_role_reads_who_may_sign_in(database: Database) -> None:
    for role in ROLES:
        if role == "console":
            continue
        for table in ("operators", "console_sessions", "one_time_logins", "sign_in_failures"):
            with pytest.raises(ProgrammingError), database.engine(role).connect() as tx:
                tx.execute(text(f"SELECT * FROM {table}"))


def test_nobody_shuts_themselves_out(site: Site) -> None:
    client = site.browser("administrator")
    form = {"csrf": token_in(client.get("/")), "name": "administrator", "role": "reader"}
    assert client.post("/operators/role", data=form).status_code == 422
    assert client.post("/operators/remove", data=form).status_code == 422


def test_an_administrator_adds_changes_and_removes_operators(site: Site) -> None:
    client = site.browser("administrator")
    csrf = token_in(client.get("/"))
    new = {"csrf": csrf, "name": "erin", "role": "reader", "password": "a long enough one"}
    assert client.post("/operators/add", data=new).status_code == 303
    assert client.post("/operators/add", data=new).status_code == 422
    erin = httpx.Client(base_url=site.server.url)
    assert sign_in(erin, "erin", "a long enough one").status_code == 303
    changed = {"csrf": csrf, "name": "erin", "role": "operator"}
    assert client.post("/operators/role", data=changed).status_code == 303
    assert erin.get("/").status_code == 303
    assert client.get("/operators/remove?name=erin").status_code == 200
    assert client.post("/operators/remove", data=changed).status_code == 303
    names = site.database.all("SELECT name FROM events WHERE name LIKE 'operator.%' ORDER BY id")
    told = [row.name for row in names if row.name not in ("operator.signed_in",)]
    assert told[-3:] == ["operator.added", "operator.changed", "operator.removed"]


def test_short_passwords_are_refused(site: Site) -> None:
    client = site.browser("administrator")
    form = {
        "csrf": token_in(client.get("/")),
        "name": "erin",
        "role": "reader",
        "password": "short",
    }
    answer = client.post("/operators/add", data=form)
    assert answer.status_code == 422
    assert "12 to 1000 characters" in answer.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/history?by=nobody-at-all", "there is no operator"),
        ("/history?name=no.such", "no operator ever did anything"),
        ("/rejected?upstream=nobody", "nothing ever came from an upstream"),
        ("/rejected?code=no_such", "no document was rejected"),
        ("/failed?customer=nobody", "there is no customer"),
        ("/failed?lane=nowhere", "there is no lane"),
        ("/failed/tasks?upstream=nobody", "there is no order of an upstream"),
        ("/failed/edit?scope=all&driver=nosuch", "nothing was ever asked of a driver"),
        ("/failed/done?scope=all&queue=nosuch", "there is no queue"),
    ],
)
def test_a_filter_that_names_nothing_known_says_so(site: Site, path: str, said: str) -> None:
    answer = site.browser("operator").get(path)
    assert (answer.status_code, said in answer.text) == (422, True)


def test_an_operator_who_did_nothing_is_known_all_the_same(site: Site) -> None:
    with site.database.engine("console").begin() as tx:
        tx.execute(text("INSERT INTO operators (name, role) VALUES ('new', 'reader')"))
    answer = site.browser("reader").get("/history?by=new")
    assert (answer.status_code, "Nobody has done anything that fits" in answer.text) == (200, True)
