"""The HTTP API of PowerDNS, as far as the driver uses it (authoritative server 4.7 and later).

Faults are raised as :class:`Fault` with the driver's answer in it.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.outside.http import Answer, HttpCalls, InDoubt, NotSent, Text
from workers.provisioning.drivers.port import DriverAnswer, DriverState
from workers.provisioning.drivers.powerdns.settings import PowerDnsSettings
from workers.provisioning.drivers.powerdns.zone import RRset, ZoneDocument

# Lists of everything have no pages: a million zones are about 250 MB.
MOST_BYTES = 500_000_000
# A server may be set to take less than the usual 2 MB, but hardly less than this.
LARGE_BYTES = 500_000
# What is longer is read beside the event loop, which other calls need meanwhile.
READ_AT_ONCE_BYTES = 100_000

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Fault(Exception):
    """An operation ends with this answer."""

    def __init__(
        self,
        state: DriverState,
        reason: str,
        words: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(": ".join(filter(None, (reason, words))))
        self.answer = DriverAnswer(state, reason=reason, words=words, retry_after=retry_after)


class Unprocessable(Exception):
    """The server understood a request and refuses what is in it (HTTP 422)."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class _Listed(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    account: str = ""


class _Found(BaseModel):
    """A record that a search has found."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    type: str
    content: str
    zone: str


class _Error(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error: Text


_BEGINS = re.compile(r"\s*\[\s*")
_GOES_ON = re.compile(r"\s*(?:,\s*|(\])\s*\Z)")
_IS_EMPTY = re.compile(r"\s*\[\s*\]\s*\Z")


def calls_of(name: str, settings: PowerDnsSettings) -> HttpCalls:
    return HttpCalls(
        f"driver:{name}",
        settings,
        headers={"X-API-Key": settings.token.get_secret_value()},
        json_only=False,  # what is not found is a text, what was changed has no body
        most_bytes=MOST_BYTES,
    )


class Conversation:
    """The calls of one operation, under one deadline.

    Args:
        operation: its name in the metrics.
        seconds: the deadline, if it is not that of the settings.
    """

    def __init__(
        self,
        calls: HttpCalls,
        settings: PowerDnsSettings,
        operation: str,
        *,
        seconds: float | None = None,
    ) -> None:
        self._calls = calls
        self._operation = operation
        self._base = f"/servers/{settings.server}"
        self._end = time.monotonic() + (settings.seconds if seconds is None else seconds)
        self._has_changed = False

    async def zone(self, name: str, *, only: str | None = None) -> ZoneDocument | None:
        """A zone with its records; None: there is none.

        Args:
            only: the name of the records that are wanted; those that are disabled are left out.
        """
        part = "" if only is None else f"?rrset_name={only}."
        answer = await self._call("GET", f"/zones/{_id(name)}{part}")
        if answer.status == 404:
            if await self.is_there(name):
                raise Fault(DriverState.UNKNOWN, "HTTP 404")
            return None
        return self._read(answer, ZoneDocument.model_validate_json)

    async def is_there(self, name: str) -> bool:
        return bool(await self.listed(name))

    async def listed(self, name: str | None = None) -> dict[str, str]:
        """Zone -> its account: of one zone, or of all.

        An API that is not that of this server has no such list: what is missing on it is missing.
        """
        which = "" if name is None else f"&zone={quote(name)}."
        answer = await self._call("GET", f"/zones?dnssec=false{which}")
        if answer.status == 404:
            raise Fault(DriverState.PERMANENT, "no_such_server", "the URL has no zones (HTTP 404)")
        return await self._read_list(answer, _accounts)

    async def texts(self, label: str, most: int) -> dict[str, str | None]:
        """Zone -> what its TXT record of this name says; None: there are several.

        Args:
            most: so many records of all zones may begin with this label, whatever their type.
        """
        # `?` is any character; a `_` would be, too.
        path = f"/search-data?object_type=record&max={most}&q={quote(f'?{label[1:]}.*')}"
        answer = await self._call("GET", path)
        return await self._read_list(answer, partial(_texts, label, most))

    async def create(
        self, name: str, *, kind: str, account: str, rrsets: list[RRset], **facts: Any
    ) -> bool:
        """Whether it was created; otherwise there is a zone of this name."""
        body = {
            "name": f"{name}.",
            "kind": kind,
            "account": account,
            "nameservers": [],
            "rrsets": [rrset.model_dump() for rrset in rrsets],
        }
        answer = await self._call("POST", "/zones", body | facts)
        if answer.status == 404:
            raise Fault(DriverState.PERMANENT, "no_such_server", "the URL has no zones (HTTP 404)")
        return answer.status != 409

    async def change(self, name: str, changes: list[dict[str, Any]]) -> bool:
        """Change records, all or none; False: there is no such zone.

        Raises:
            Unprocessable: the server refuses a change.
        """
        answer = await self._call("PATCH", f"/zones/{_id(name)}", {"rrsets": changes})
        return answer.status != 404

    async def set_account(self, name: str, account: str) -> None:
        await self._call("PUT", f"/zones/{_id(name)}", {"account": account})

    async def delete(self, name: str) -> None:
        await self._call("DELETE", f"/zones/{_id(name)}")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        is_change = method != "GET"
        left = self._end - time.monotonic()
        try:
            if left <= 0:
                raise NotSent("no_time", "no time is left")
            answer = await self._calls.call(
                self._operation, method, self._base + path, body, seconds=left
            )
        except NotSent as error:
            raise Fault(self._undone, error.code, error.words) from None
        except InDoubt as error:
            later = error.retry_after
            raise Fault(DriverState.UNKNOWN, error.code, error.words, retry_after=later) from None
        status = answer.status
        if status in (401, 403):
            raise Fault(DriverState.PERMANENT, "unauthorized", "the API key is not accepted")
        if status in (425, 429):
            raise Fault(self._undone, f"HTTP {status}", retry_after=answer.retry_after)
        words = _words(answer) if status in (400, 422) else None
        if status == 413 or (status == 400 and words is None and _is_large(body)):
            raise Fault(DriverState.REFUSED, "zone_too_large", "larger than a request may be")
        if status in (400, 422):
            raise Unprocessable(words or f"HTTP {status}")
        if status not in (200, 201, 204, 404, 409):
            raise Fault(DriverState.UNKNOWN, f"HTTP {status}")
        self._has_changed |= is_change
        return answer

    @property
    def _undone(self) -> DriverState:
        """What a call that was not made leaves: nothing done, or a part of it."""
        return DriverState.UNKNOWN if self._has_changed else DriverState.UNAVAILABLE

    async def _read_list(self, answer: Answer, read: Callable[[bytes], T]) -> T:
        if len(answer.body) < READ_AT_ONCE_BYTES:
            return self._read(answer, read)
        return await asyncio.to_thread(self._read, answer, read)

    @staticmethod
    def _read(answer: Answer, read: Callable[[bytes], T]) -> T:
        try:
            return read(answer.body)
        except ValidationError as error:
            wrong = sorted({str(part["loc"][-1]) for part in error.errors() if part["loc"]})
            words = f"not understood: {', '.join(wrong) or 'no JSON'}"
            raise Fault(DriverState.UNKNOWN, "not_understood", words) from None
        except (ValueError, RecursionError):
            words = "not understood: no JSON list"
            raise Fault(DriverState.UNKNOWN, "not_understood", words) from None


def _accounts(body: bytes) -> dict[str, str]:
    return {zone.name.removesuffix("."): zone.account for zone in _elements(body, _Listed)}


def _texts(label: str, most: int, body: bytes) -> dict[str, str | None]:
    # Of a million records no objects are kept: the collector of garbage would stop everything.
    count, texts = 0, dict[str, str | None]()
    for record in _elements(body, _Found):
        count += 1
        if record.type == "TXT" and record.name == f"{label}.{record.zone}":
            zone = record.zone.removesuffix(".")
            texts[zone] = None if zone in texts else record.content.strip('"')
    if count >= most:
        raise Fault(DriverState.UNKNOWN, "list_cut_off")
    return texts


def _elements(body: bytes, model: type[M]) -> Iterator[M]:
    """The elements of a JSON list, one by one. A parser that takes the whole list in one call holds
    the interpreter's lock until its end, and a thread of its own would not help.

    Raises:
        ValueError: it is none, or an element is not of the model.
    """
    text = body.decode()
    if _IS_EMPTY.match(text):
        return
    if (part := _BEGINS.match(text)) is None:
        raise ValueError("no list")
    decode, has_ended = json.JSONDecoder().raw_decode, False
    while not has_ended:
        element, at = decode(text, part.end())
        yield model.model_validate(element)
        if (part := _GOES_ON.match(text, at)) is None:
            raise ValueError("the list does not go on")
        has_ended = part[1] is not None


def _words(answer: Answer) -> str | None:
    try:
        return _Error.model_validate_json(answer.body).error
    except ValidationError:
        return None


def _is_large(body: dict[str, Any] | None) -> bool:
    """The server ends a request that is longer than ``webserver-max-bodysize`` with a bare 400."""
    return body is not None and len(json.dumps(body)) > LARGE_BYTES


def _id(name: str) -> str:
    """A zone's id: its name, with what an address cannot hold as ``=2F``."""
    allowed = "-._"
    return (
        "".join(
            c if (c.isascii() and c.isalnum()) or c in allowed else f"={ord(c):02X}" for c in name
        )
        + "."
    )
