"""Plans are data: what can be ordered, where, for how long, at what price."""

from schemas.catalogue.files import BUNDLED, load
from schemas.catalogue.models import Catalogue, Contract, Option, Plan, Price, Subsidiary

__all__ = [
    "BUNDLED", "Catalogue", "Contract", "Option", "Plan", "Price", "Subsidiary", "load",
]  # fmt: skip
