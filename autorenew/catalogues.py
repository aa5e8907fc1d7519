"""The sample catalogue: the bundled files, and OVH's servers imported beside them."""

from schemas.catalogue import BUNDLED, Catalogue, load
from schemas.catalogue.ovh import import_ovh

OVH_EXTRACT = BUNDLED / "ovh-eco-IE.json.gz"


def bundled() -> Catalogue:
    """The sample catalogue: more than 150 plans in four universes and three brands."""
    files = load([BUNDLED])
    servers = import_ovh(OVH_EXTRACT)
    return Catalogue(
        files.subsidiaries.values(),
        files.contracts.values(),
        [*files.plans.values(), *servers.plans],
    )
