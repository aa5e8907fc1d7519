import gzip
import json
import tomllib
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import BUNDLED, Subsidiary, load
from schemas.errors import ConfigurationError, DataError
from schemas.rules import tax
from schemas.rules.tax import (
    Amounts,
    TaxKind,
    Treatment,
    check_vat_number,
    determine,
    give_back,
    spread,
    tax_on,
)
from schemas.values import round_half_up

SUBSIDIARIES = load([BUNDLED]).subsidiaries
DAY = date(2026, 3, 2)

# Standard rates on that day, as the European Commission publishes them.
EU_RATES = {
    "AT": "20", "BE": "21", "BG": "20", "CY": "19", "CZ": "21", "DE": "19", "DK": "25",
    "EE": "24", "ES": "21", "FI": "25.5", "FR": "20", "GR": "24", "HR": "25", "HU": "27",
    "IE": "23", "IT": "22", "LT": "21", "LU": "17", "LV": "21", "MT": "18", "NL": "21",
    "PL": "23", "PT": "23", "RO": "21", "SE": "25", "SI": "22", "SK": "23",
}  # fmt: skip

# Their changes in the years the table covers: the first day, the rate before, the rate then.
CHANGES = [
    ("DE", date(2020, 7, 1), "19", "16"),  # EU VAT history: half a year of 16 %
    ("DE", date(2021, 1, 1), "16", "19"),
    ("IE", date(2020, 9, 1), "23", "21"),
    ("IE", date(2021, 3, 1), "21", "23"),
    ("LU", date(2023, 1, 1), "17", "16"),
    ("LU", date(2024, 1, 1), "16", "17"),
    ("EE", date(2024, 1, 1), "20", "22"),
    ("EE", date(2025, 7, 1), "22", "24"),
    ("FI", date(2024, 9, 1), "24", "25.5"),
    ("SK", date(2025, 1, 1), "20", "23"),
    ("RO", date(2025, 8, 1), "19", "21"),
]


def sold(subsidiary: str, country: str, vat_number: str | None = None, on: date = DAY) -> Treatment:
    return determine(
        subsidiary=SUBSIDIARIES[subsidiary],
        customer_country=country,
        vat_number=vat_number,
        on=on,
    )


class TestRates:
    def test_consumers_of_all_member_states_pay_their_own_countrys_rate(self) -> None:
        paid = {country: sold("FR", country) for country in EU_RATES}
        assert {c: str(t.rate) for c, t in paid.items()} == EU_RATES
        assert {t.kind for c, t in paid.items() if c != "FR"} == {TaxKind.EU_CONSUMER}

    def test_there_are_27_member_states(self) -> None:
        table = tomllib.loads(tax.TABLE.read_text(encoding="utf-8"))
        assert set(table["eu"]["members"]) == set(EU_RATES)

    @pytest.mark.parametrize(("country", "first", "before", "then"), CHANGES)
    def test_a_rate_changes_on_its_day(
        self, country: str, first: date, before: str, then: str
    ) -> None:
        assert sold("FR", country, on=first - timedelta(days=1)).rate == Decimal(before)
        assert sold("FR", country, on=first).rate == Decimal(then)

    @pytest.mark.parametrize(
        ("on", "rate"),
        [("2020-06-30", 19), ("2020-07-01", 16), ("2020-12-31", 16), ("2021-01-01", 19)],
    )
    def test_germany_took_16_percent_in_the_second_half_of_2020(self, on: str, rate: int) -> None:
        assert sold("DE", "DE", on=date.fromisoformat(on)).rate == rate

    @pytest.mark.parametrize(
        ("subsidiary", "rate", "mention"),
        [("GB", "20", "VAT"), ("CA", "5", "GST"), ("AU", "10", "GST"), ("US", "0", "Sales tax")],
    )
    def test_outside_the_union_a_sale_at_home_bears_the_countrys_tax(
        self, subsidiary: str, rate: str, mention: str
    ) -> None:
        treatment = sold(subsidiary, subsidiary)
        assert (treatment.kind, treatment.rate) == (TaxKind.DOMESTIC, Decimal(rate))
        assert treatment.mention.startswith(mention)

    @pytest.mark.parametrize("code", sorted(SUBSIDIARIES))
    def test_every_subsidiary_can_sell_at_home(self, code: str) -> None:
        treatment = sold(code, SUBSIDIARIES[code].country)
        assert treatment.kind is TaxKind.DOMESTIC
        assert treatment.mention

    def test_rates_of_every_country_are_in_order_and_plausible(self) -> None:
        table: dict[str, Any] = tomllib.loads(tax.TABLE.read_text(encoding="utf-8"))
        for country, entry in table["country"].items():
            begin = [step["from"] for step in entry["rates"]]
            assert begin == sorted(set(begin)), country
            # Directive 2006/112/EC, art. 97: at least 15 %; none was ever above 27 %.
            low, high = (15, 27) if country in EU_RATES else (0, 20)
            assert all(low <= Decimal(step["rate"]) <= high for step in entry["rates"]), country


class TestReverseCharge:
    @pytest.mark.parametrize(
        ("country", "number"),
        [
            ("DE", "DE136695976"),
            ("DE", "DE 136 695 976"),
            ("BE", "BE 0428.759.497"),
            ("ES", "ESB58378431"),
            ("NL", "NL004495445B01"),
            ("GR", "EL094259216"),  # Greece writes EL
            ("IT", "it00743110157"),
        ],
    )
    def test_a_business_in_another_member_state_accounts_for_the_tax_itself(
        self, country: str, number: str
    ) -> None:
        treatment = sold("FR", country, number)
        assert treatment.kind is TaxKind.REVERSE_CHARGE
        assert treatment.rate == 0
        # The words of art. 226 (11a) of Directive 2006/112/EC.
        assert treatment.mention == "Reverse charge"

    @pytest.mark.parametrize(
        ("country", "number"),
        [
            ("DE", "FR40303265045"),  # good, but another country's
            ("DE", "136695976"),
            ("GR", "GR094259216"),
            ("DE", "DE136695975"),  # its check digit is wrong
            ("DE", "DE"),
            ("DE", "DE1366959760"),
            ("DE", "XI980780684"),
        ],
    )
    def test_vat_number_of_a_wrong_form_is_refused(self, country: str, number: str) -> None:
        with pytest.raises(DataError) as refused:
            sold("FR", country, number)
        assert refused.value.code == "vat_number_invalid"

    def test_domestic_business_is_taxed_like_a_consumer(self) -> None:
        treatment = sold("FR", "FR", "FR40303265045")
        assert (treatment.kind, treatment.rate) == (TaxKind.DOMESTIC, Decimal(20))

    @given(st.text(max_size=25), st.sampled_from(sorted(EU_RATES)))
    def test_any_vat_number_is_accepted_or_refused(self, number: str, country: str) -> None:
        with suppress(DataError):
            check_vat_number(number, country)


class TestRefusals:
    @pytest.mark.parametrize(
        ("subsidiary", "country"),
        [
            ("FR", "US"), ("FR", "GB"), ("FR", "CH"), ("FR", "ZZ"), ("GB", "FR"), ("GB", "IE"),
            ("CA", "US"), ("US", "CA"), ("AU", "NZ"), ("US", "DE"),
        ],
    )  # fmt: skip
    def test_a_sale_across_any_other_border_is_refused(self, subsidiary: str, country: str) -> None:
        with pytest.raises(DataError, match=country) as refused:
            sold(subsidiary, country)
        assert refused.value.code == "tax_not_supported"

    def test_vat_number_does_not_allow_a_sale_across_such_a_border(self) -> None:
        with pytest.raises(DataError) as refused:
            sold("FR", "GB", "GB980780684")
        assert refused.value.code == "tax_not_supported"

    def test_a_day_before_the_table_begins_is_refused(self) -> None:
        with pytest.raises(DataError, match="1990-01-01") as refused:
            sold("FR", "FR", on=date(1990, 1, 1))
        assert refused.value.code == "tax_not_supported"

    def test_a_country_that_is_not_in_the_table_is_refused(self) -> None:
        elsewhere = Subsidiary("SN", "Example", "SN", "XOF", "Africa/Dakar", "fr")
        with pytest.raises(DataError) as refused:
            determine(subsidiary=elsewhere, customer_country="SN", vat_number=None, on=DAY)
        assert refused.value.code == "tax_not_supported"


class TestAmounts:
    def test_tax_of_the_example_in_ovhs_renewal_guide(self) -> None:
        net = 3787  # 37.87 EUR in France
        due = tax_on(net, sold("FR", "FR").rate)
        assert (due, net + due) == (757, 4544)

    @pytest.mark.parametrize(
        ("net", "rate", "due"),
        [(5, "10", 1), (4, "10", 0), (-5, "10", -1), (100, "25.5", 26), (0, "20", 0), (1, "0", 0)],
    )
    def test_halves_of_a_cent_go_up(self, net: int, rate: str, due: int) -> None:
        assert tax_on(net, Decimal(rate)) == due

    @given(st.integers(0, 10**10), st.integers(0, 27))
    def test_tax_is_rounded_to_the_nearest_cent(self, net: int, rate: int) -> None:
        assert tax_on(net, Decimal(rate)) == (2 * net * rate + 100) // 200

    @given(st.integers(0, 10**10), st.integers(0, 270))
    def test_refunded_tax_equals_the_tax_taken(self, net: int, tenths: int) -> None:
        rate = Decimal(tenths) / 10
        assert tax_on(-net, rate) == -tax_on(net, rate)

    def test_tax_of_every_price_in_ovhs_catalogue_is_the_published_one(self) -> None:
        # OVH's public catalogue for Ireland: price and tax in 1e-8 EUR.
        with gzip.open(BUNDLED / "ovh-eco-IE.json.gz") as file:
            catalogue = json.load(file)
        rate = sold(catalogue["locale"]["subsidiary"], "IE").rate
        assert rate == catalogue["locale"]["taxRate"]
        pricings = [pricing for plan in catalogue["plans"] for pricing in plan["pricings"]]
        assert len(pricings) > 1000
        for pricing in pricings:
            assert tax_on(pricing["price"], rate) == pricing["tax"]
            cents = pricing["price"] // 10**6
            assert tax_on(cents, rate) == round_half_up(Decimal(pricing["tax"]) / 10**6)


COUNTRY = """
[eu]
members = ["FR"]
reverse_charge = "Reverse charge"

[country.FR]
mention = "TVA"
source = "CGI, art. 278"
rates = [
    { from = 2012-01-01, rate = "19.6" },
    { from = 2014-01-01, rate = "20" },
]
"""


class TestTable:
    def read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> dict[str, Any]:
        table = tmp_path / "tax.toml"
        table.write_text(text)
        monkeypatch.setattr(tax, "TABLE", table)
        return tax._table.__wrapped__()

    def test_table_that_is_right_is_read(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert self.read(monkeypatch, tmp_path, COUNTRY)["country"]["FR"]["mention"] == "TVA"

    @pytest.mark.parametrize(
        ("right", "wrong", "said"),
        [
            (
                "2014-01-01",
                "2010-01-01",
                "country.FR.rates: Value error, each must be from a later",
            ),
            (
                "2014-01-01",
                "2012-01-01",
                "country.FR.rates: Value error, each must be from a later",
            ),
            ("2014-01-01", '"2014-01-01"', "country.FR.rates.1.from: Input should be a valid date"),
            ('"20"', "20.0", "country.FR.rates.1.rate: Input should be a valid string"),
            ('"20"', '"twenty"', "country.FR.rates.1.rate: String should match"),
            ('"20"', '"120"', "country.FR.rates.1.rate: Value error, must be from 0 to 100"),
            ('source = "CGI, art. 278"', "", "country.FR.source: Field required"),
            ("rates =", "rate =", "country.FR.rates: Field required"),
            ("[country.FR]", "[country.fr]", "country.fr.[key]: String should match"),
        ],
    )
    def test_entry_that_is_wrong_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: str, wrong: str, said: str
    ) -> None:
        with pytest.raises(ConfigurationError) as refused:
            self.read(monkeypatch, tmp_path, COUNTRY.replace(right, wrong))
        assert str(refused.value).startswith("tax.toml: ")
        assert said in str(refused.value)


class TestOfAnInvoice:
    """Tax is rounded once for each rate, and credit notes of parts add up to the invoice."""

    @pytest.mark.parametrize(("lines", "due"), [(3, 242), (300, 24150)])
    def test_the_example_of_the_standard(self, lines: int, due: int) -> None:
        # 3.50 at 23 %, BR-CO-17: each line rounded would be 243 and 24,300.
        assert sum(spread([350] * lines, Decimal(23))) == due

    @given(st.lists(st.integers(0, 10**9), max_size=30), st.sampled_from([0, 5, 8.1, 20, 23]))
    def test_parts_add_up_to_the_tax_on_the_sum(self, nets: list[int], percent: float) -> None:
        rate = Decimal(str(percent))
        parts = spread(nets, rate)
        assert sum(parts) == tax_on(sum(nets), rate)
        for net, part in zip(nets, parts, strict=True):
            assert abs(part - tax_on(net, rate)) <= 1

    @given(
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 4)), min_size=1, max_size=20),
        st.sampled_from([0, 5, 20, 23]),
        st.booleans(),
    )
    def test_credit_notes_add_up_to_the_invoice_however_they_are_cut(
        self, cut: list[tuple[int, int]], percent: int, rounded_by_line: bool
    ) -> None:
        rate, nets = Decimal(percent), [net for net, _ in cut]
        taxes = [tax_on(n, rate) for n in nets] if rounded_by_line else spread(nets, rate)
        invoiced, credited = Amounts(sum(nets), sum(taxes)), Amounts(0, 0)
        for note in range(5):
            lines = [net for net, of in cut if of == note]
            parts = give_back(invoiced, credited, lines)
            assert all(part >= 0 for part in parts)
            if not rounded_by_line:
                assert abs(sum(parts) - tax_on(sum(lines), rate)) <= 1
            credited = Amounts(credited.net + sum(lines), credited.tax + sum(parts))
        assert credited == invoiced

    def test_notes_of_an_earlier_release_are_completed(self) -> None:
        # Of 3 x 3.50 at 23 %, each line rounded: 0.81 was given back for the first.
        assert give_back(Amounts(1050, 243), Amounts(350, 81), [350, 350]) == [81, 81]
