"""What each page shows and does, apart from HTTP: a token in, an answer out.

A GET reads, as the role ``readonly``. Only a POST of a link changes anything: it hands the link's
own command to the intake, so that what the customer has decided since then wins.
"""

import json
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from starlette.responses import RedirectResponse, Response

from producers import history
from producers.history import Operator
from producers.intake import Intake
from producers.intake.links import LinkInvalid, Links, Opened, Origin, Purpose
from producers.intake.realms import CUSTOMERS
from producers.pages import account, new_links
from producers.pages.account import Customer
from producers.pages.outcome import command_of, problems_of, said_of, services_of, uuids
from producers.pages.rendering import Renderer
from producers.pages.rows import Action, Row
from producers.pages.said import (
    effect_said,
    problem_said,
    row_said,
    wording,
)
from producers.pages.tokens import LIFETIME, Ended, Session, Tokens
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.fields import MAX_EMAIL_CHARACTERS, MAX_IDENTIFIER, is_clean
from schemas.wording import Wording

log = logging.getLogger(__name__)

LONGEST_NAME = max(MAX_IDENTIFIER, MAX_EMAIL_CHARACTERS)
"""Characters of what a customer names themselves by: their account, or their e-mail address."""
# After these a customer who sees what is so now may still want it.
_ASK_AGAIN = frozenset({"link_outdated", "contract_outdated", "expiry_unknown"})


_P = ParamSpec("_P")
_Given = TypeVar("_Given", Opened, Session, Ended)


class _Owned(Protocol):
    @property
    def customer(self) -> str: ...


class _Instead(Exception):
    """What is answered instead."""

    def __init__(self, response: Response) -> None:
        self.response = response


def _answered(shown: Callable[_P, Response]) -> Callable[_P, Response]:
    """A page, or what is answered instead of it."""

    @wraps(shown)
    def answer(*args: _P.args, **kwargs: _P.kwargs) -> Response:
        try:
            return shown(*args, **kwargs)
        except _Instead as instead:
            return instead.response

    return answer


class Site:
    """
    Args:
        write: as the role ``api``; read: as ``readonly``, perhaps on a standby.
        prefix: the path below which the pages are; nothing or ``/…``.
        days: how long links of e-mails can be opened.
    """

    def __init__(
        self,
        *,
        write: Engine,
        read: Engine,
        intake: Intake,
        links: Links,
        tokens: Tokens,
        clock: Clock,
        prefix: str = "",
        days: int,
    ) -> None:
        self._write = write
        self._read = read
        self._intake = intake
        self._links = links
        self._tokens = tokens
        self._clock = clock
        self._prefix = prefix
        self._days = days
        self._catalogue = CatalogueCache()
        self.render = Renderer(prefix)

    # Links of e-mails.

    @_answered
    def show_link(self, token: str, language: str, left_out: int = 0) -> Response:
        """What a link does, or all services of its customer; nothing changes."""
        now = self._clock.now()
        link = self._said(token, self._links.read, language)
        with self._read.begin() as tx:
            whose, catalogue = self._whose(tx, link, token, language, now)
            if link.command is None:
                return self._to_account(whose, link.origin, now)
            preview = account.preview(tx, link, whose, catalogue, now)
        action, words = Action(link.purpose), wording(whose.language)
        possible = preview.is_possible
        count = len(preview.changes) if possible else len(preview.effects)
        codes = set(preview.problems.values())
        if possible:
            title = words.say("title", action, count=count)
        elif codes == {"link_outdated"}:
            title = words.say("headline", "outdated")
        else:
            title = words.say("headline", "impossible" if codes else "already")
        rows = [effect.row for effect in preview.effects]
        again = self._again(action, codes, rows, whose, link.origin, words, now)
        shown = {str(effect.row.id) for effect in preview.effects}
        whole = next((c for whose_, c in preview.problems.items() if whose_ not in shown), "")
        return self.render.page(
            "link",
            whose.language,
            title,
            customer=whose,
            left_out=words.say("left_out", count=left_out) if left_out else "",
            problem=problem_said(whole, words) if whole else "",
            explanation=words.say("explanation", action) if possible else "",
            services=[
                effect_said(effect, action, words)
                if possible or effect.now is None
                else row_said(effect.now, words)  # what is refused is refused whole
                for effect in preview.effects
            ],
            accepts=possible and bool(preview.contracts),
            totals=[words.say("total", amount=words.money(total)) for total in preview.totals]
            if possible and len(preview.effects) > 1
            else [],
            is_charged=possible and bool(preview.totals),
            action=f"{self._prefix}/do/{token}",
            button=words.say("button", action) if possible else "",
            again=again,
            all_services=self._account_path(whose, link.origin, now),
        )

    @_answered
    def do_link(self, token: str, language: str) -> Response:
        """Do what a link says, and lead to what became of it."""
        now = self._clock.now()
        link = self._said(token, self._links.read, language)
        with self._write.begin() as tx:  # a standby may not know of another address yet
            whose, _ = self._whose(tx, link, token, language, now)
        if link.command is None:
            return self._to_account(whose, link.origin, now)
        because = f"{link.purpose}, made {link.made_at:%Y-%m-%d %H:%M} UTC"
        with history.acting(Operator("link", because)):
            (answer,) = self._intake.place(
                CUSTOMERS, CUSTOMERS, [json.dumps(link.command).encode()]
            )
        services = services_of(link.command)
        problems = problems_of(answer, services)
        log.info("link to %s: %s", link.purpose, ", ".join(problems.values()) or said_of(answer))
        ended = self._tokens.ended(
            whose.id, link.purpose, said_of(answer), services[: account.ON_A_PAGE], problems,
            link.origin, now,
        )  # fmt: skip
        return RedirectResponse(f"{self._prefix}/done/{ended}", 303)

    @_answered
    def show_ended(self, token: str, language: str) -> Response:
        """How a click ended, and what is so now. Read where it was written: a standby lags."""
        now = self._clock.now()
        ended = self._said(token, self._tokens.read_ended, language)
        with self._write.begin() as tx:
            whose, catalogue = self._whose(tx, ended, token, language, now)
            rows = account.some(tx, ended.services, whose, catalogue, now)
        words, action = wording(whose.language), Action(ended.purpose)
        problems = set(ended.problems.values())
        again = self._again(action, problems, rows, whose, ended.origin, words, now)
        is_done = ended.verdict == "done"
        codes = list(dict.fromkeys(ended.problems.values()))
        return self.render.page(
            "ended",
            whose.language,
            words.say("done", action) if is_done else words.say("headline", ended.verdict),
            customer=whose,
            ends_soon=True,
            explanation=words.say("after", action if is_done else ended.verdict),
            tone="bad" if ended.verdict == "refused" else "good",
            problems=[problem_said(code, words) for code in codes],
            services=[row_said(row, words) for row in rows],
            again=again,
            all_services=self._account_path(whose, ended.origin, now),
            technical=words.say("technical", code=", ".join(codes)) if codes else "",
        )

    # All services.

    @_answered
    def show_account(
        self, token: str, language: str, *, page: int = 1, say: str = "", chosen: Sequence[str] = ()
    ) -> Response:
        """
        Args:
            say: a warning to show, ``nothing`` or ``impossible``.
            chosen: services that are checked already.
        """
        now = self._clock.now()
        session = self._said(token, self._tokens.read_session, language)
        with self._read.begin() as tx:
            whose, catalogue = self._whose(tx, session, token, language, now)
            listing = account.listing(tx, whose, catalogue, now, page=page)
        words, here = wording(whose.language), f"{self._prefix}/my/{token}"
        offered = {action for row in listing.rows for action in row.actions}
        return self.render.page(
            "account",
            whose.language,
            words.say("list", "title"),
            customer=whose,
            ends_soon=True,
            warning=words.say("choose", say) if say in ("nothing", "impossible") else "",
            services=[row_said(row, words) for row in listing.rows],
            counted=words.say("services", count=listing.count),
            actions=[(a.value, words.say("choose", a)) for a in Action if a in offered],
            chosen=frozenset(chosen),
            choose=f"{here}/choose",
            pages={
                "here": words.say("list", "page", page=str(listing.page), pages=str(listing.pages)),
                "previous": f"{here}?page={listing.page - 1}" if listing.page > 1 else "",
                "next": f"{here}?page={listing.page + 1}" if listing.page < listing.pages else "",
            }
            if listing.pages > 1
            else None,
        )

    @_answered
    def choose(self, token: str, language: str, action: str, chosen: Sequence[str]) -> Response:
        """Lead to a link that does something about the services that were chosen: the page that
        asks about it is that of any link. Nothing changes."""
        now = self._clock.now()
        session = self._said(token, self._tokens.read_session, language)
        ids = uuids(chosen)[: account.ON_A_PAGE]
        with self._read.begin() as tx:
            whose, catalogue = self._whose(tx, session, token, language, now)
            rows = account.some(tx, ids, whose, catalogue, now)
        here = f"{self._prefix}/my/{token}"
        if not rows or action not in list(Action):
            return RedirectResponse(f"{here}?say=nothing", 303)
        able = [row for row in rows if action in row.actions]
        if not able:
            return RedirectResponse(f"{here}?say=impossible", 303)
        left = len(rows) - len(able)
        url = self._link(Action(action), able, whose, session.origin, now)
        return RedirectResponse(f"{url}?left={left}" if left else url, 303)

    # A new link.

    def send_link(self, link: str, customer: str, language: str) -> Response:
        """Have a new link sent; the answer is the same whether or not there is such a customer.

        Args:
            link: one that is too old, if the customer has one.
            customer: their account, or their e-mail address, as they name it, otherwise.
        """
        whom = self._named_by(link) if link else customer.strip()
        if whom and len(whom) <= LONGEST_NAME and is_clean(whom):
            asked = new_links.ask(self._write, whom, self._clock.now())
            log.info("new links: %d asked for", asked)
        return RedirectResponse(f"{self._prefix}/sent", 303)

    def show_sent(self, language: str) -> Response:
        words = wording(language)
        explanation = words.say("sent", "explanation")
        title = words.say("sent", "title")
        return self.render.page("message", language, title, explanation=explanation, send=None)

    def _named_by(self, token: str) -> str | None:
        """Whose a token is, however old it is; None: we have not made it."""
        readers: list[Callable[[str], _Owned]] = [
            self._links.read, self._tokens.read_session, self._tokens.read_ended,
        ]  # fmt: skip
        for read in readers:
            try:
                return read(token).customer
            except LinkInvalid:
                continue
        return None

    # What they share.

    def _said(self, token: str, read: Callable[[str], _Given], language: str) -> _Given:
        """What a token says.

        Raises:
            _Instead: we have not made it.
        """
        try:
            return read(token)
        except LinkInvalid:
            raise _Instead(self._invalid(language)) from None

    def _whose(
        self,
        tx: Connection,
        given: Opened | Session | Ended,
        token: str,
        language: str,
        now: datetime,
    ) -> tuple[Customer, Catalogue]:
        """Whose a token is, and the catalogue in force.

        Raises:
            _Instead: there is no such customer, or what we made must not be followed any more:
                it is too old, or their address is another one since the e-mail that led there,
                however many pages ago.
        """
        catalogue = self._catalogue.current(tx)
        whose = account.customer(tx, given.customer, catalogue)
        if whose is None:
            raise _Instead(self._invalid(language))
        if given.is_old(now):
            why = "explanation" if isinstance(given, Opened) else "session"
            raise _Instead(self._old(whose, why, token))
        if account.address_changed_since(tx, whose.id, given.origin.made_at):
            raise _Instead(self._old(whose, "moved", token))
        return whose, catalogue

    def _old(self, whose: Customer, why: str, token: str) -> Response:
        words = wording(whose.language)
        return self.render.page(
            "message",
            whose.language,
            words.say("old", "title"),
            status=410,
            brand=whose.brand,
            explanation=words.say("old", why, days=str(self._days)),
            send={
                "action": f"{self._prefix}/link",
                "explanation": words.say("old", "send"),
                "token": token,
            },
        )

    def _invalid(self, language: str) -> Response:
        words = wording(language)
        return self.render.page(
            "message",
            language,
            words.say("invalid", "title"),
            status=404,
            explanation=words.say("invalid", "explanation"),
            send={
                "action": f"{self._prefix}/link",
                "explanation": words.say("invalid", "send"),
                "token": "",
                "longest": LONGEST_NAME,
            },
        )

    def _to_account(self, whose: Customer, origin: Origin, now: datetime) -> Response:
        return RedirectResponse(self._account_path(whose, origin, now), 303)

    def _account_path(self, whose: Customer, origin: Origin, now: datetime) -> str:
        return f"{self._prefix}/my/{self._tokens.session(whose.id, origin, now)}"

    def _again(
        self,
        action: Action,
        problems: AbstractSet[str],
        rows: Sequence[Row],
        whose: Customer,
        origin: Origin,
        words: Wording,
        now: datetime,
    ) -> tuple[str, str] | None:
        """A button that asks once more, by what is so now; None: that would not help.

        Args:
            problems: why it is refused.
        """
        if "contract_missing" in problems:
            action = Action.ACCEPT
        elif not problems & _ASK_AGAIN:
            return None
        able = [row for row in rows if action in row.actions]
        if not able:
            return None
        url = self._link(action, able, whose, origin, now)
        return words.say("button", f"{action}_again"), url

    def _link(
        self, action: Action, rows: Sequence[Row], whose: Customer, origin: Origin, now: datetime
    ) -> str:
        """The path of a link of an hour, made from what is so now."""
        command = command_of(whose.id, action, rows)
        url = self._links.url(Purpose(action.value), command, now, lifetime=LIFETIME, origin=origin)
        return f"{self._prefix}/do/{url.rpartition('/')[2]}"
