"""Where a clean run ended: what a later one continues from.

It is kept in a file, and not in the database: there nobody who can write the books can move it, and
the hashes in it show if somebody has computed those of the books anew. A replica can be audited
likewise.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from monitoring.seals import EVENTS, Head, heads
from schemas.errors import ConfigurationError

_FORMAT = 1
# All events up to that one were there: whoever could still add one of them had ended.
_SEALED = text("SELECT last_id, clock_timestamp() AS at FROM sealing")


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Attributes:
        at: when it was taken, by the database's clock.
        last_id: the history up to that event was complete, and was looked at.
        heads: of all chains, at that time.
    """

    at: datetime
    last_id: int
    heads: tuple[Head, ...]

    @property
    def documents(self) -> list[Head]:
        """The heads of the series of documents."""
        return [head for head in self.heads if head.chain != EVENTS]

    @property
    def history(self) -> Head | None:
        """The last block of the history; None: nothing was sealed yet."""
        return next((head for head in self.heads if head.chain == EVENTS), None)


def take(tx: Connection) -> Mark:
    """Where the books are now; to be taken before they are looked at."""
    tx.rollback()
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    last_id, at = tx.execute(_SEALED).one()
    mark = Mark(at, last_id, tuple(heads(tx)))
    tx.rollback()
    return mark


def read(file: Path) -> Mark | None:
    """The mark in a file; None: there is no such file.

    Raises:
        ConfigurationError: it cannot be read, or is no mark.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return _parsed(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            f"{file} is no mark of an audit: remove it, and the next run looks at everything"
        ) from None


def _parsed(content: Mapping[str, Any]) -> Mark:
    if content["format"] != _FORMAT:
        raise ValueError("another format")
    at, last_id = datetime.fromisoformat(content["at"]), content["last_event"]
    found = tuple(Head(**head) for head in content["heads"])
    is_typed = all(
        (type(head.chain), type(head.number), type(head.hash)) == (str, int, str)
        and len(bytes.fromhex(head.hash)) == 32
        for head in found
    )
    if at.tzinfo is None or type(last_id) is not int or last_id < 0 or not is_typed:
        raise ValueError("wrong types")
    return Mark(at, last_id, found)


def prepare(file: Path) -> None:
    """See that a mark can be written there, before a run of an hour ends without.

    Raises:
        ConfigurationError: it cannot.
    """
    unfinished = _unfinished(file)
    try:
        unfinished.touch()
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
    unfinished.unlink(missing_ok=True)


def _unfinished(file: Path) -> Path:
    return file.with_name(f"{file.name}.{os.getpid()}")


def write(file: Path, mark: Mark) -> None:
    """Put a mark in the place of the one before, in one step.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    content = {
        "format": _FORMAT,
        "at": mark.at.isoformat(),
        "last_event": mark.last_id,
        "heads": [
            {"chain": head.chain, "number": head.number, "hash": head.hash} for head in mark.heads
        ],
    }
    unfinished = _unfinished(file)
    try:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
