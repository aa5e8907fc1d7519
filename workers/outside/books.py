"""The far sides' own books, read whole: for the audit and for reconciliation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from schemas.books import BookEntry, BookUnavailable, MoneyBook, ResourceBook, ResourceEntry
from schemas.errors import first_line

# A book whose cursor does not move would be read for ever.
MOST_PAGES = 1_000_000


class _Entry(Protocol):
    @property
    def cursor(self) -> str: ...


class _Closing(Protocol):
    async def close(self) -> None: ...


E = TypeVar("E", bound=_Entry)


class _Gateway(MoneyBook, _Closing, Protocol):
    pass


class _Driver(ResourceBook, _Closing, Protocol):
    pass


class Books:
    """See :class:`schemas.books.FarSides`.

    Args:
        gateways, drivers: those that are configured, by name.
    """

    def __init__(self, gateways: Mapping[str, _Gateway], drivers: Mapping[str, _Driver]) -> None:
        self._gateways = gateways
        self._drivers = drivers

    @property
    def is_empty(self) -> bool:
        return not self._gateways and not self._drivers

    def money(self) -> dict[str, list[BookEntry]]:
        return {
            name: asyncio.run(_whole(f"gateway {name}", gateway.book, gateway))
            for name, gateway in self._gateways.items()
        }

    def resources(self) -> dict[str, list[ResourceEntry]]:
        return {
            name: asyncio.run(_whole(f"driver {name}", driver.resources, driver))
            for name, driver in self._drivers.items()
        }


async def pages(
    read: Callable[[str | None], Awaitable[Sequence[E]]],
) -> AsyncIterator[Sequence[E]]:
    """A book page by page, until one is empty.

    Raises:
        BookUnavailable: it cannot be read, or does not end.
    """
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = await read(after)
        if not page:
            return
        yield page
        if page[-1].cursor == after:
            break
        after = page[-1].cursor
    raise BookUnavailable("its pages do not end")


async def _whole(
    whose: str, read: Callable[[str | None], Awaitable[Sequence[E]]], port: _Closing
) -> list[E]:
    """All pages of a book."""
    entries: list[E] = []
    try:
        async for page in pages(read):
            entries += page
        return entries
    except BookUnavailable as error:
        raise BookUnavailable(f"{whose}: {first_line(error)}") from None
    finally:
        await port.close()
