import copy
import gzip
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue import BUNDLED
from schemas.catalogue.ovh import OvhImport, import_ovh, read_ovh
from schemas.errors import CatalogueError
from schemas.values import Money, Period, Universe

EXTRACT = BUNDLED / "ovh-eco-IE.json.gz"
DOCUMENT = read_ovh(EXTRACT)


@pytest.fixture(scope="module")
def imported() -> OvhImport:
    return import_ovh(EXTRACT)


def _one_plan() -> dict[str, Any]:
    document = copy.deepcopy({**DOCUMENT, "plans": DOCUMENT["plans"][:1]})
    assert document["plans"][0]["planCode"] == "21rise011-sgp"
    return document


def _pricing(document: dict[str, Any], mode: str, capacity: str) -> dict[str, Any]:
    (found,) = (
        pricing
        for pricing in document["plans"][0]["pricings"]
        if pricing["mode"] == mode and pricing["capacities"] == [capacity]
    )
    return found  # type: ignore[no-any-return]


def _import(folder: Path, document: Any) -> OvhImport:
    path = folder / "ovh.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return import_ovh(path)


def _problems(folder: Path, document: Any) -> list[str]:
    with pytest.raises(CatalogueError) as refused:
        _import(folder, document)
    return refused.value.problems


class TestTheCatalogueOfIreland:
    def test_all_plans_of_the_irish_catalogue_are_imported(self, imported: OvhImport) -> None:
        assert len(imported.plans) == 146
        assert {plan.code for plan in imported.plans} == {
            plan["planCode"] for plan in DOCUMENT["plans"]
        }
        assert {plan.universe for plan in imported.plans} == {Universe.DEDICATED}

    def test_imported_catalogue_names_its_subsidiary_and_its_tax(self, imported: OvhImport) -> None:
        assert (imported.subsidiary, imported.tax_rate) == ("IE", Decimal(23))

    def test_product_ranges_become_three_brands(self, imported: OvhImport) -> None:
        assert Counter(plan.brand for plan in imported.plans) == {
            "ovh": 95,
            "soyoustart": 30,
            "kimsufi": 21,
        }

    def test_default_and_upfront_become_periods(self, imported: OvhImport) -> None:
        sold = Counter(str(period) for plan in imported.plans for _, period in plan.prices)
        assert sold == {"P1M": 146, "P12M": 145, "P24M": 94, "P3M": 51, "P6M": 51}

    def test_period_is_as_long_as_the_billing_interval(self) -> None:
        # The mode's name and the interval beside it say the same thing twice.
        for plan in DOCUMENT["plans"]:
            for pricing in plan["pricings"]:
                mode = pricing["mode"]
                if pricing["capacities"] == ["renew"] and not mode.startswith("degressivity"):
                    months = 1 if mode == "default" else int(mode.removeprefix("upfront"))
                    assert (pricing["interval"], pricing["intervalUnit"]) == (months, "month")

    def test_every_price_equals_the_catalogues_to_the_cent(self, imported: OvhImport) -> None:
        plans = {plan.code: plan for plan in imported.plans}
        compared = 0
        for entry in DOCUMENT["plans"]:
            for pricing in entry["pricings"]:
                mode = pricing["mode"]
                if mode.startswith("degressivity"):
                    continue
                months = 1 if mode == "default" else int(mode.removeprefix("upfront"))
                price = plans[entry["planCode"]].price("IE", Period(months))
                assert price is not None
                amount = price.renewal if pricing["capacities"] == ["renew"] else price.setup
                assert amount.amount * 10**6 == pricing["price"]
                assert amount.currency == "EUR"
                compared += 1
        assert compared == 2 * (146 + 145 + 94 + 51 + 51)

    def test_commitments_are_skipped_and_counted(self, imported: OvhImport) -> None:
        in_the_file = Counter(
            pricing["mode"]
            for plan in DOCUMENT["plans"]
            for pricing in plan["pricings"]
            if pricing["mode"].startswith("degressivity") and pricing["capacities"] == ["renew"]
        )
        assert imported.skipped_commitments == in_the_file
        assert in_the_file.total() == 341

    def test_mandatory_addons_are_listed_as_not_priced(self, imported: OvhImport) -> None:
        mandatory = {
            plan["planCode"]: [f["name"] for f in plan["addonFamilies"] if f["mandatory"]]
            for plan in DOCUMENT["plans"]
        }
        assert imported.unpriced_addons == {
            code: names for code, names in mandatory.items() if names
        }
        assert sum(map(len, imported.unpriced_addons.values())) == 505

    def test_options_and_quantities_are_imported(self, imported: OvhImport) -> None:
        plan = next(plan for plan in imported.plans if plan.code == "21rise011-sgp")
        assert (plan.name, plan.quantity_min, plan.quantity_max) == ("RISE-APAC-1-1", 1, 10)
        assert plan.options["dedicated_datacenter"].required
        assert plan.options["dedicated_datacenter"].values == ("sgp",)
        assert not plan.options["region"].required

    def test_every_imported_plan_can_be_ordered(self, imported: OvhImport) -> None:
        for plan in imported.plans:
            assert 1 <= plan.quantity_min <= plan.quantity_max
            assert plan.periods("IE")
            assert plan.name


class TestOneFile:
    def test_caller_chooses_driver_and_contract(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        path.write_text(json.dumps(_one_plan()))
        (plan,) = import_ovh(path, driver="metal", contract=None).plans
        assert (plan.driver, plan.contract) == ("metal", None)

    def test_catalogue_file_may_be_compressed(self, tmp_path: Path) -> None:
        plain = _import(tmp_path, _one_plan())
        packed = _import(tmp_path, gzip.compress(json.dumps(_one_plan()).encode()))
        assert plain == packed

    def test_price_with_more_digits_than_the_currency_is_refused_not_rounded(
        self, tmp_path: Path
    ) -> None:
        document = _one_plan()
        _pricing(document, "default", "renew")["price"] = 5_999_000_001
        assert _problems(tmp_path, document) == [
            "ovh.json: plan 21rise011-sgp: pricing default renew:"
            " 59.99000001 EUR is not a whole minor unit"
        ]

    def test_price_of_one_minor_unit_is_kept(self, tmp_path: Path) -> None:
        document = _one_plan()
        _pricing(document, "default", "renew")["price"] = 1_000_000
        price = _import(tmp_path, document).plans[0].price("IE", Period(1))
        assert price is not None
        assert price.renewal == Money(1, "EUR")

    def test_price_is_read_in_the_minor_unit_of_its_currency(self, tmp_path: Path) -> None:
        document = _one_plan()
        document["locale"]["currencyCode"] = "XOF"  # has none
        assert any("not a whole minor unit" in line for line in _problems(tmp_path, document))
        document["locale"]["currencyCode"] = "TND"  # has three digits
        _pricing(document, "default", "renew")["price"] = 100_000
        price = _import(tmp_path, document).plans[0].price("IE", Period(1))
        assert price is not None
        assert price.renewal == Money(1, "TND")

    def test_all_problems_are_reported_at_once(self, tmp_path: Path) -> None:
        document = copy.deepcopy({**DOCUMENT, "plans": DOCUMENT["plans"][:3]})
        document["plans"][0]["invoiceName"] = None
        pricings = document["plans"][2]["pricings"]
        next(p for p in pricings if p["mode"] == "default")["price"] = -1
        found = _problems(tmp_path, document)
        assert len(found) == 2
        for plan, problem in zip((document["plans"][0], document["plans"][2]), found, strict=True):
            assert problem.startswith(f"ovh.json: plan {plan['planCode']}: ")

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda d: d.pop("locale"), id="no locale"),
            pytest.param(lambda d: d.pop("plans"), id="no plans"),
            pytest.param(lambda d: d.update(locale=[]), id="a locale that is a list"),
            pytest.param(lambda d: d.update(plans=5), id="plans that are a number"),
            pytest.param(lambda d: d["locale"].update(currencyCode="DEM"), id="old money"),
            pytest.param(lambda d: d["locale"].update(currencyCode=[]), id="money as a list"),
            pytest.param(lambda d: d["locale"].update(subsidiary=None), id="no subsidiary"),
            pytest.param(lambda d: d["locale"].update(taxRate="much"), id="a rate in words"),
            pytest.param(lambda d: d["locale"].update(taxRate="nan"), id="a rate that is none"),
            pytest.param(lambda d: d["locale"].update(taxRate=float("inf")), id="a rate of inf"),
            pytest.param(lambda d: d["locale"].update(taxRate=-1), id="a rate below zero"),
            pytest.param(lambda d: d["locale"].update(taxRate=101), id="a rate above the price"),
            pytest.param(lambda d: d["plans"].append(d["plans"][0]), id="the same plan twice"),
            pytest.param(lambda d: d["plans"][0].update(planCode="a\nb"), id="a code of two lines"),
            pytest.param(lambda d: d["plans"][0].update(invoiceName="a\0"), id="a name with a NUL"),
            pytest.param(lambda d: d["plans"][0].update(invoiceName="a" * 201), id="a long name"),
            pytest.param(lambda d: d["plans"].append(None), id="a plan that is null"),
            pytest.param(lambda d: d["plans"].append("x"), id="a plan that is a text"),
            pytest.param(lambda d: d["plans"][0].pop("planCode"), id="no code"),
            pytest.param(lambda d: d["plans"][0].update(planCode=5), id="a code that is a number"),
            pytest.param(lambda d: d["plans"][0].update(pricings=None), id="no pricings"),
            pytest.param(lambda d: d["plans"][0].update(pricings=[]), id="an empty price list"),
            pytest.param(lambda d: d["plans"][0].update(pricings=[5]), id="a price list of 5"),
            pytest.param(lambda d: d["plans"][0].update(blobs=[1]), id="blobs that are a list"),
            pytest.param(lambda d: d["plans"][0].update(addonFamilies=None), id="no families"),
            pytest.param(lambda d: d["plans"][0].update(configurations=[{}]), id="an empty option"),
            pytest.param(lambda d: d["plans"][0].update(invoiceName=""), id="an empty name"),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(price=59.99), id="price not whole"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(price="59"), id="price a text"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(price=None), id="price null"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(mode="hourly"), id="unknown mode"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(mode=["default"]), id="mode a list"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(capacities=[]), id="no capacity"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(capacities=["renew", "upgrade"]),
                id="two capacities",
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(quantity=None), id="no quantity"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(price=True), id="price true"
            ),
            pytest.param(
                lambda d: _pricing(d, "default", "renew").update(price=10**30), id="price huge"
            ),
            pytest.param(
                lambda d: d["plans"][0]["pricings"].append(
                    _pricing(d, "default", "installation") | {"price": 100_000_000}
                ),
                id="the same pricing twice",
            ),
            *(
                pytest.param(
                    lambda d, bounds=bounds: _pricing(d, "default", "renew").update(
                        quantity={"min": 1, "max": 10} | bounds
                    ),
                    id=f"quantity {bounds}",
                )
                for bounds in (
                    {"min": float("inf")},
                    {"max": float("inf")},
                    {"min": 20, "max": 3},
                    {"min": -5},
                    {"max": -1},
                    {"min": 1.5},
                    {"min": "1"},
                    {"max": True},
                    {"min": 11, "max": 20},
                )
            ),
            *(
                pytest.param(
                    lambda d, mode=mode: [
                        _pricing(d, "upfront12", capacity).update(mode=mode)
                        for capacity in ("installation", "renew")
                    ],
                    id=f"mode {mode}",
                )
                for mode in ("upfront0", "upfront1", "upfront121", "upfront999", "upfront٣")
            ),
        ],
    )
    def test_unusable_file_is_refused_with_its_name(
        self, tmp_path: Path, change: Callable[[dict[str, Any]], None]
    ) -> None:
        document = _one_plan()
        change(document)
        found = _problems(tmp_path, document)
        assert found
        assert all(problem.startswith("ovh.json: ") for problem in found)

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"[]", id="a list"),
            pytest.param(b"null", id="null"),
            pytest.param(b"{", id="cut off"),
            pytest.param(b"\xff\xfe\xfd", id="not UTF-8"),
            pytest.param(b"[" * 100_000, id="nested too deep"),
            pytest.param(b"9" * 5000, id="a huge number"),
            pytest.param(b'{"locale": NaN}', id="what is not JSON"),
            pytest.param(gzip.compress(b"{}" * 1000)[:20], id="gzip cut off"),
            pytest.param(b"\x1f\x8b\x08\x00garbage garbage garbage", id="gzip with garbage"),
            pytest.param(gzip.compress(b"{}")[:-4] + b"\0\0\0\0", id="gzip with a wrong length"),
            pytest.param(b"\x1f\x8b", id="only the beginning of gzip"),
        ],
    )
    def test_a_hostile_file_is_refused_with_its_name(self, tmp_path: Path, content: bytes) -> None:
        assert _problems(tmp_path, content)[0].startswith("ovh.json: ")

    def test_a_file_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogueError, match=r"missing\.json"):
            import_ovh(tmp_path / "missing.json")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogueError, match=tmp_path.name):
            import_ovh(tmp_path)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
    @given(data=st.data())
    def test_file_with_any_value_in_a_field_is_read_or_refused(
        self, tmp_path: Path, data: st.DataObject
    ) -> None:
        # Given a good document with one value replaced by any other
        document = _one_plan()
        place: Any = document
        while True:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
                break
            place = inner
        place[key] = data.draw(
            st.none() | st.booleans() | st.integers() | st.text(max_size=4)
            | st.lists(st.integers(), max_size=2) | st.just({}) | st.just(0.5)
        )  # fmt: skip
        # Then it never ends in anything but an import or a CatalogueError.
        with suppress(CatalogueError):
            _import(tmp_path, document)
