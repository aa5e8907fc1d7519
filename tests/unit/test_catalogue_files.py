from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue import BUNDLED, Catalogue, load
from schemas.errors import CatalogueError
from schemas.values import Money, Period, Universe

SUBSIDIARIES = """
[[subsidiary]]
code = "FR"
entity = "Example SAS"
country = "FR"
currency = "EUR"
timezone = "Europe/Paris"
language = "fr"

[[subsidiary]]
code = "IE"
entity = "Example Ltd"
country = "IE"
currency = "EUR"
timezone = "Europe/Dublin"
language = "en"
"""

CONTRACTS = """
[[contract]]
code = "web"
version = 3
title = "Web hosting"
url = "https://example.com/web/3"
"""

PLAN = """
[[plan]]
code = "web-perso"
name = "Web Personal"
universe = "web"
brand = "ovh"
driver = "web"
contract = "web"
quantity_min = 1
quantity_max = 4
options.domain = { required = true, values = [] }

[plan.prices.FR]
P1M = { setup = "9.99", renewal = "3.59" }
P1Y = { renewal = "38.77" }
"""

WHOLE = SUBSIDIARIES + CONTRACTS + PLAN


def read(folder: Path, text: str | bytes) -> Catalogue:
    path = folder / "plans.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load([path])


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(CatalogueError) as refused:
        read(folder, text)
    return refused.value.problems


def test_a_good_file_is_read(tmp_path: Path) -> None:
    plan = read(tmp_path, WHOLE).plans["web-perso"]
    assert (plan.name, plan.universe, plan.brand) == ("Web Personal", Universe.WEB, "ovh")
    assert (plan.contract, plan.quantity_min, plan.quantity_max) == ("web", 1, 4)
    assert plan.options["domain"].required
    price = plan.price("FR", Period(1))
    assert price is not None
    assert (price.setup, price.renewal) == (Money(999, "EUR"), Money(359, "EUR"))


def test_a_year_is_twelve_months(tmp_path: Path) -> None:
    plan = read(tmp_path, WHOLE).plans["web-perso"]
    assert plan.periods("FR") == [Period(1), Period(12)]
    assert plan.price("FR", Period.parse("P12M")) == plan.price("FR", Period.parse("P1Y"))


def test_setup_is_free_unless_it_says_otherwise(tmp_path: Path) -> None:
    price = read(tmp_path, WHOLE).plans["web-perso"].price("FR", Period(12))
    assert price is not None
    assert price.setup == Money(0, "EUR")


def test_it_is_sold_nowhere_else(tmp_path: Path) -> None:
    plan = read(tmp_path, WHOLE).plans["web-perso"]
    assert plan.periods("IE") == []
    assert plan.price("IE", Period(1)) is None


def test_files_and_folders_make_one_catalogue(tmp_path: Path) -> None:
    # Given a folder with two files, and a third file beside it
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.toml").write_text(PLAN)
    (folder / "b.toml").write_text(SUBSIDIARIES)
    (folder / "notes.txt").write_text("not a catalogue")
    beside = tmp_path / "contracts.toml"
    beside.write_text(CONTRACTS)
    # When they are loaded in whatever order, then references hold across them.
    assert set(load([folder, beside]).plans) == {"web-perso"}
    assert set(load([beside, folder]).plans) == {"web-perso"}


def test_an_empty_file_is_an_empty_catalogue(tmp_path: Path) -> None:
    assert read(tmp_path, "").plans == {}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"3.59"', '"3.595"', "plan web-perso: prices.FR.P1M.renewal: '3.595' has more digits"),
        ('"9.99"', '"9.991"', "plan web-perso: prices.FR.P1M.setup: '9.991' has more digits"),
        ('"3.59"', '"-3.59"', "plan web-perso: prices.FR.P1M.renewal: less than nothing"),
        ('"3.59"', '"cheap"', "plan web-perso: prices.FR.P1M.renewal: 'cheap' is not an amount"),
        ('"3.59"', "3.59", "plan web-perso: prices.FR.P1M.renewal: Input should be a valid str"),
        ("P1M =", "P1D =", "plan web-perso: prices.FR.P1D: 'P1D' is not a period"),
        ("P1M =", "P12M =", "plan web-perso: prices.FR.P1Y: P12M is priced before"),
        ("P1M =", "P999M =", "plan web-perso: prices.FR.P999M: 'P999M' is longer than ten years"),
        ("prices.FR", "prices.XX", "plan web-perso: prices.XX: no such subsidiary"),
        ('"web"\nbrand', '"space"\nbrand', "plan web-perso: universe: 'space' is not one of web,"),
        ('contract = "web"', 'contract = "x"', "plan web-perso: contract: 'x' is not defined"),
        ("quantity_min = 1", "quantity_min = 5", "plan web-perso: quantity_min: more than"),
        ("quantity_min = 1", "quantity_min = 0", "plan web-perso: quantity_min: Input should be"),
        ("quantity_max = 4", 'quantity_max = "4"', "plan web-perso: quantity_max: Input should be"),
        ("quantity_max = 4", "quantity_max = 1001", "plan web-perso: quantity_max: Input should"),
        ("quantity_max = 4", "limit = 4", "plan web-perso: limit: Extra inputs"),
        ('name = "Web Personal"\n', "", "plan web-perso: name: Field required"),
        ('name = "Web Personal"', 'name = ""', "plan web-perso: name: String should have"),
        ('driver = "web"', 'driver = "../web"', "plan web-perso: driver: String should match"),
        ("required = true", 'required = "yes"', "plan web-perso: options.domain.required: Input"),
        ('code = "web-perso"', 'code = "a b"', "plan a b: code: String should match"),
        ('code = "web-perso"\n', "", "plan number 1: code: Field required"),
        ("version = 3", "version = 0", "contract web: version: Input should be greater"),
        ("version = 3", 'version = "3"', "contract web: version: Input should be a valid int"),
        ("version = 3", f"version = {10**20}", "contract web: version: Input should be less"),
        ('"Web hosting"', '"Web\\u0000"', "contract web: title: String should match"),
        ('"Web Personal"', '"Web\\nPersonal"', "plan web-perso: name: String should match"),
        ("values = []", 'values = ["a\\u0000"]', "plan web-perso: options.domain.values.0: String"),
        ("options.domain", 'options."a\\u0007"', "plan web-perso: options.a\\x07.[key]: String"),
        ('currency = "EUR"', 'currency = "DEM"', "subsidiary FR: currency: 'DEM' is not known"),
        ('"Europe/Paris"', '"../Paris"', "subsidiary FR: timezone: '../Paris' is not an IANA"),
        ('"Europe/Paris"', '"Mars/Olympus"', "subsidiary FR: timezone: 'Mars/Olympus' is not an"),
        ('"Europe/Paris"', '"Europe"', "subsidiary FR: timezone: 'Europe' is not an IANA"),
        ('"Europe/Paris"', '"urope/Paris"', "subsidiary FR: timezone: 'urope/Paris' is not an"),
        ('"Europe/Paris"', '"Europe/"', "subsidiary FR: timezone: 'Europe/' is not an IANA"),
        ('"Europe/Paris"', '""', "subsidiary FR: timezone: '' is not an IANA"),
        ('"Europe/Paris"', '"Europe/\\u0000"', "subsidiary FR: timezone: 'Europe/\\x00' is not an"),
        ('"Europe/Paris"', '"Europe/é"', "subsidiary FR: timezone: 'Europe/é' is not an IANA"),
        ('"Europe/Paris"', f'"{"a" * 300}"', f"subsidiary FR: timezone: '{'a' * 300}' is not an"),
        ('code = "web-perso"', 'code = "a\\nb"', "plan a\\nb: code: String should match"),
        ('country = "FR"', 'country = "fr"', "subsidiary FR: country: String should match"),
        ('code = "FR"', 'code = "IE"', "subsidiary IE: code: defined before"),
    ],
)
def test_a_problem_names_file_entry_and_field(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    assert WHOLE.count(old) >= 1
    found = problems(tmp_path, WHOLE.replace(old, new, 1))
    assert any(problem.startswith(f"plans.toml: {line}") for problem in found), found


def test_every_problem_of_every_file_is_said_at_once(tmp_path: Path) -> None:
    # Given one file that is not TOML, and one with two bad plans
    (tmp_path / "broken.toml").write_text("[[plan")
    bad = PLAN.replace('"3.59"', '"3.595"').replace('contract = "web"', 'contract = "none"')
    other = PLAN.replace("web-perso", "other").replace("P1M =", "P1D =")
    (tmp_path / "plans.toml").write_text(SUBSIDIARIES + CONTRACTS + bad + other)
    # When
    with pytest.raises(CatalogueError) as refused:
        load([tmp_path, tmp_path / "missing.toml"])
    # Then
    found = refused.value.problems
    assert len(found) == 5
    for beginning in (
        "broken.toml: ",
        "plans.toml: plan web-perso: contract: ",
        "plans.toml: plan web-perso: prices.FR.P1M.renewal: ",
        "plans.toml: plan other: prices.FR.P1D: ",
        f"{tmp_path / 'missing.toml'}: no such file",
    ):
        assert sum(problem.startswith(beginning) for problem in found) == 1, beginning


def test_a_plan_without_a_price_is_refused(tmp_path: Path) -> None:
    unpriced = PLAN[: PLAN.index("[plan.prices")] + "prices = {}\n"
    assert problems(tmp_path, SUBSIDIARIES + CONTRACTS + unpriced) == [
        "plans.toml: plan web-perso: prices: a plan needs a price"
    ]


def test_a_plan_defined_twice_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, WHOLE + PLAN) == ["plans.toml: plan web-perso: code: defined before"]


def test_telecom_is_sold_in_france_only(tmp_path: Path) -> None:
    voip = PLAN.replace('universe = "web"', 'universe = "telecom"')
    assert read(tmp_path, SUBSIDIARIES + CONTRACTS + voip).plans["web-perso"].periods("FR")
    found = problems(tmp_path, SUBSIDIARIES + CONTRACTS + voip.replace("prices.FR", "prices.IE"))
    assert found == ["plans.toml: plan web-perso: prices.IE: telecom is sold in FR only"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b"\x00", id="a NUL"),
        pytest.param(b"\xef\xbb\xbf" + WHOLE.encode(), id="a byte order mark"),
        pytest.param("<xml/>", id="XML"),
        pytest.param("plan:\n  - code: x\n", id="YAML"),
        pytest.param("x = " + "[" * 5000, id="nested too deep"),
        pytest.param("x = " + "{a=" * 5000, id="tables nested too deep"),
        pytest.param("plan = 5", id="a plan that is a number"),
        pytest.param("plan = [5, [], {}, 'x']", id="plans that are none"),
        pytest.param("[plan]\ncode = 'x'", id="one table instead of a list"),
        pytest.param("[[plan]]\ncode = {}\n", id="a code that is a table"),
        pytest.param("[[plan]]\ncode = 'x'\nprices = 5", id="prices that are a number"),
        pytest.param("[[plan]]\ncode = 'x'\nprices = { FR = 5 }", id="a price that is a number"),
        pytest.param("plans = []", id="an unknown table"),
        pytest.param("x = 1\nx = 2", id="a key twice"),
        pytest.param("x = 2023-02-30", id="a day that does not exist"),
        pytest.param("x = " + "9" * 5000, id="a number of too many digits"),
        pytest.param('x = "\\ud800"', id="half a surrogate pair"),
        pytest.param(".".join(["a"] * 3000) + " = 1", id="a very long key"),
        pytest.param(WHOLE.replace("version = 3", "version = nan"), id="nan"),
        pytest.param(WHOLE.replace("quantity_max = 4", "quantity_max = inf"), id="inf"),
        pytest.param(
            WHOLE.replace("quantity_max = 4", "quantity_max = 0x" + "f" * 5000), id="a huge number"
        ),
        pytest.param(WHOLE.replace('"3.59"', f'"{"9" * 100_000}"'), id="a huge price"),
    ],
)
def test_a_hostile_file_is_refused_with_its_name(tmp_path: Path, text: str | bytes) -> None:
    found = problems(tmp_path, text)
    assert found
    assert all(problem.startswith("plans.toml: ") for problem in found)
    assert all(problem.isprintable() for problem in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_whatever_bytes_a_file_holds_they_are_read_or_refused(
    tmp_path: Path, content: bytes
) -> None:
    with suppress(CatalogueError):
        read(tmp_path, content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(len(SUBSIDIARIES), len(WHOLE) - 1),
    noise=st.text("[]{}=\"'.,\n#-0Px", max_size=4),
)
def test_a_plan_with_a_slip_of_the_pen_is_read_or_refused(
    tmp_path: Path, at: int, noise: str
) -> None:
    with suppress(CatalogueError):
        read(tmp_path, WHOLE[:at] + noise + WHOLE[at + 1 :])


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plans.toml").mkdir()
    with pytest.raises(CatalogueError, match=r"^plans\.toml: "):
        load([tmp_path])


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no such file or folder"):
        load([tmp_path / "missing"])


def test_the_bundled_files_are_good() -> None:
    found = load([BUNDLED])
    assert {plan.universe for plan in found.plans.values()} == set(Universe) - {
        Universe.DEDICATED  # those are imported
    }
    for plan in found.plans.values():
        assert plan.contract in found.contracts
        for (subsidiary, _), price in plan.prices.items():
            currency = found.subsidiaries[subsidiary].currency
            assert price.setup.currency == price.renewal.currency == currency
            assert plan.universe is not Universe.TELECOM or subsidiary == "FR"
