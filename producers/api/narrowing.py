"""The catalogue as a narrowed key sees it: what it may not order does not exist."""

from collections.abc import Collection

from sqlalchemy import Connection

from schemas.catalogue import Catalogue, Subsidiary
from schemas.catalogue.store import CatalogueCache


class Narrowed(Catalogue):
    """On sale are the plans of some brands, in some subsidiaries; all that exists is known.

    Args:
        brands, subsidiaries: None: all.
    """

    def __init__(
        self,
        whole: Catalogue,
        brands: Collection[str] | None,
        subsidiaries: Collection[str] | None,
    ) -> None:
        super().__init__(
            whole.subsidiaries.values(),
            whole.contracts.values(),
            whole.known_plans(),
            whole.rollouts,
        )
        self.whole = whole
        self.plans = {
            code: plan
            for code, plan in whole.plans.items()
            if brands is None or plan.brand in brands
        }
        self.subsidiaries = {
            code: subsidiary
            for code, subsidiary in whole.subsidiaries.items()
            if subsidiaries is None or code in subsidiaries
        }

    def subsidiary(self, code: str) -> Subsidiary:
        return self.whole.subsidiary(code)


class NarrowedCache(CatalogueCache):
    """Reads the catalogue in force, narrowed."""

    def __init__(
        self,
        cache: CatalogueCache,
        brands: Collection[str] | None,
        subsidiaries: Collection[str] | None,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._brands = brands
        self._subsidiaries = subsidiaries
        self._narrowed: Narrowed | None = None

    def current(self, tx: Connection) -> Catalogue:
        whole = self._cache.current(tx)
        held = self._narrowed
        if held is None or held.whole is not whole:
            self._narrowed = held = Narrowed(whole, self._brands, self._subsidiaries)
        return held
