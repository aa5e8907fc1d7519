"""What a provider's error means for the operation."""

import json
import re
from collections.abc import Iterable
from xml.sax.saxutils import unescape

from schemas.errors import first_line
from workers.outside.http import InDoubt, NotSent
from workers.outside.texts import MOST_CODE, cleaned, printable
from workers.provisioning.drivers.libcloud.call import Call
from workers.provisioning.drivers.libcloud.settings import OptionRefused
from workers.provisioning.drivers.port import DriverAnswer, DriverState

# Codes of EC2: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html;
# those with a small letter first are of OpenStack: https://docs.openstack.org/api-guide/compute/faults.html
_BUSY = {
    "RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException",
    "TooManyRequestsException", "SlowDown", "ServiceUnavailable", "Unavailable",
    "RequestExpired", "overLimit", "serviceUnavailable",
}  # fmt: skip
_NO_ENTRY = {
    "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "OptInRequired",
    "UnauthorizedOperation", "Blocked", "PendingVerification", "MissingAuthenticationToken",
    "IncompleteSignature", "InvalidCredsError", "AccessDenied",
}  # fmt: skip
# Between two states, or not seen yet by the part of the provider that was asked.
_NOT_YET = {"IncorrectInstanceState", "InvalidInstanceID.NotFound", "conflictingRequest"}
# Said with a status of 500 and more, although nothing was done.
_SOLD_OUT = {
    "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity",
    "InsufficientAddressCapacity", "InsufficientReservedInstanceCapacity",
}  # fmt: skip
_CODE_FIRST = re.compile(r"([A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z0-9]+)*): ?(.*)", re.DOTALL)
_IN_XML = re.compile(rb"<Code>([^<]{1,100})</Code>\s*(?:<Message>([^<]*)</Message>)?")
BUSY_SECONDS = 5.0


class NotUnderstood(Exception):
    """The provider answered something that says nothing about machines."""


class Scrubber:
    """Takes what nobody else may see out of texts of the provider."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # As they are, and as they read once what cannot be printed is gone.
        known = {form for secret in secrets for form in (secret, printable(secret)) if form}
        self._secrets = sorted(known, key=len, reverse=True)

    def clean(self, text: str) -> str:
        return cleaned(self._masked(printable(self._masked(text))))

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def answer_of(error: Exception, call: Call, scrubber: Scrubber) -> DriverAnswer:
    """What an error during a call means."""
    # Whether it is about the change that was asked for, and not about what came after it.
    is_of_change = call.acted and not call.made
    perhaps_done = DriverState.UNKNOWN if call.touched else DriverState.UNAVAILABLE
    match error:
        case OptionRefused():
            state = DriverState.UNKNOWN if call.touched else DriverState.REFUSED
            return DriverAnswer(state, reason=scrubber.clean(str(error))[:MOST_CODE])
        case NotSent() | InDoubt():
            return DriverAnswer(
                perhaps_done, reason=error.code, words=scrubber.clean(error.words or "") or None
            )
        case NotUnderstood():
            words = scrubber.clean(str(error))
            return DriverAnswer(perhaps_done, reason="not_understood", words=words)
    code, words = _code_and_words(error, call)
    said = scrubber.clean(words) or None
    code = scrubber.clean(code)[:MOST_CODE]
    bare = code.removeprefix("Client.").removeprefix("Server.")
    if bare in _BUSY or call.status in (429, 503):
        wait = call.retry_after or BUSY_SECONDS
        # Turned away: it was not done. A look turned away says nothing of what came before it.
        state = DriverState.UNAVAILABLE if is_of_change else perhaps_done
        return DriverAnswer(state, reason=code, words=said, retry_after=wait)
    if bare in _NOT_YET:
        return DriverAnswer(DriverState.IN_PROGRESS, reason=code, words=said)
    if call.touched and not is_of_change:
        is_told = call.status is not None and call.status >= 400
        code = code if is_told else "not_understood"
        return DriverAnswer(DriverState.UNKNOWN, reason=code, words=said)
    if bare in _NO_ENTRY or call.status == 401:
        return DriverAnswer(DriverState.PERMANENT, reason=code, words=said)
    if bare in _SOLD_OUT:
        return DriverAnswer(DriverState.REFUSED, reason=code, words=said)
    if call.status is None:
        if call.touched:
            return DriverAnswer(DriverState.UNKNOWN, reason="not_understood", words=said)
        # Nothing was sent: Libcloud does not take what the settings say.
        return DriverAnswer(DriverState.REFUSED, reason="configuration", words=said)
    if 400 <= call.status < 500 and call.status not in (404, 405, 408):
        return DriverAnswer(DriverState.REFUSED, reason=code, words=said)
    if call.status < 400:
        code = "not_understood"
    return DriverAnswer(perhaps_done, reason=code, words=said)


def _code_and_words(error: Exception, call: Call) -> tuple[str, str]:
    """``InstanceLimitExceeded: You have …``, or JSON with a message, or just words."""
    status = call.status
    if status is not None and status >= 400 and (found := _IN_XML.search(call.body)):
        said = found[2] or b""
        return found[1].decode(errors="replace"), _first(unescape(said.decode(errors="replace")))
    if status is not None and status >= 400 and (named := _in_json(call.body)):
        return named
    text = str(getattr(error, "value", None) or getattr(error, "message", None) or error)
    if plain := _CODE_FIRST.match(text):
        return plain[1], _first(plain[2])
    kind = type(error).__name__
    return kind if status is None or kind == "InvalidCredsError" else f"HTTP {status}", _first(text)


def _in_json(body: bytes) -> tuple[str, str] | None:
    """``{"forbidden": {"message": "Quota exceeded …"}}``."""
    try:
        said = json.loads(body[:10_000])
    except ValueError:
        return None
    if isinstance(said, dict) and len(said) == 1:
        ((code, more),) = said.items()
        if isinstance(more, dict) and isinstance(more.get("message"), str):
            return code, _first(more["message"])
    return None


def _first(text: str) -> str:
    return first_line(Exception(text)) if text else ""
