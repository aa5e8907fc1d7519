from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue import BUNDLED, Catalogue, load
from schemas.errors import CatalogueError
from schemas.rules.policies import DEFAULT_POLICY, Policy, ReminderRule
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

POLICY = """
[[policy]]
code = "gentle"
reminders = [20, 2]
charges = [-2, 0, 4]
suspend = 8
terminate = 45
stop_reminder = 3
notice = 10
source = "Terms of sale, s. 7"

[[policy.reminders_for]]
subsidiary = "IE"
period = "P1Y"
days = [90, 60]
since = 2027-01-01
source = "A law, s. 1"

[[policy.reminders_for]]
days = [10]
"""

GENTLE = PLAN.replace('contract = "web"', 'contract = "web"\npolicy = "gentle"')
WITH_POLICY = SUBSIDIARIES + CONTRACTS + GENTLE + POLICY


def read(folder: Path, text: str | bytes) -> Catalogue:
    path = folder / "plans.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load([path])


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(CatalogueError) as refused:
        read(folder, text)
    return refused.value.problems


def test_valid_file_is_read(tmp_path: Path) -> None:
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


def test_setup_is_free_by_default(tmp_path: Path) -> None:
    price = read(tmp_path, WHOLE).plans["web-perso"].price("FR", Period(12))
    assert price is not None
    assert price.setup == Money(0, "EUR")


def test_plan_is_not_sold_in_subsidiaries_without_a_price(tmp_path: Path) -> None:
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
        ('name = "Web Personal"', 'name = ""', "plan web-perso: name: must be 1 to 200"),
        ('driver = "web"', 'driver = "../web"', "plan web-perso: driver: String should match"),
        ("required = true", 'required = "yes"', "plan web-perso: options.domain.required: Input"),
        ('code = "web-perso"', 'code = "a b"', "plan a b: code: String should match"),
        ('code = "web-perso"\n', "", "plan number 1: code: Field required"),
        ("version = 3", "version = 0", "contract web: version: Input should be greater"),
        ("version = 3", 'version = "3"', "contract web: version: Input should be a valid int"),
        ("version = 3", f"version = {10**20}", "contract web: version: Input should be less"),
        ('"Web hosting"', '"Web\\u0000"', "contract web: title: must be 1 to 200"),
        ('"Web Personal"', '"Web\\nPersonal"', "plan web-perso: name: must be 1 to 200"),
        (
            "values = []",
            'values = ["a\\u0000"]',
            "plan web-perso: options.domain.values.0: must be 1 to",
        ),
        (
            "options.domain",
            'options."a\\u0007"',
            "plan web-perso: options.a\\x07.[key]: must be 1 to",
        ),
        ('currency = "EUR"', 'currency = "DEM"', "subsidiary FR: currency: must be a currency"),
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
        ('country = "FR"', 'country = "fr"', "subsidiary FR: country: must be a country"),
        ('code = "FR"', 'code = "IE"', "subsidiary IE: code: defined before"),
    ],
)
def test_a_problem_names_file_entry_and_field(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    assert WHOLE.count(old) >= 1
    found = problems(tmp_path, WHOLE.replace(old, new, 1))
    assert any(problem.startswith(f"plans.toml: {line}") for problem in found), found


def test_all_problems_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
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
def test_file_of_any_bytes_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    with suppress(CatalogueError):
        read(tmp_path, content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(len(SUBSIDIARIES), len(WHOLE) - 1),
    noise=st.text("[]{}=\"'.,\n#-0Px", max_size=4),
)
def test_plan_with_a_mistake_is_read_or_refused(tmp_path: Path, at: int, noise: str) -> None:
    with suppress(CatalogueError):
        read(tmp_path, WHOLE[:at] + noise + WHOLE[at + 1 :])


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plans.toml").mkdir()
    with pytest.raises(CatalogueError, match=r"^plans\.toml: "):
        load([tmp_path])


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no such file or folder"):
        load([tmp_path / "missing"])


def test_bundled_files_are_valid() -> None:
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


def policy(folder: Path, *lines: str) -> Policy:
    """That of a plan, out of a file that says these lines of it."""
    said = "\n".join(('[[policy]]\ncode = "gentle"', *lines))
    found = read(folder, SUBSIDIARIES + CONTRACTS + GENTLE + said)
    return found.plans["web-perso"].policy


def test_a_policy_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, WITH_POLICY).plans["web-perso"].policy == Policy(
        code="gentle",
        reminders=(20, 2),
        reminders_for=(
            ReminderRule("IE", Period(12), (90, 60), date(2027, 1, 1), "A law, s. 1"),
            ReminderRule(None, None, (10,)),
        ),
        charges=(-2, 0, 4),
        suspend=8,
        terminate=45,
        stop_reminder=3,
        notice=10,
        source="Terms of sale, s. 7",
    )


def test_policy_inherits_what_it_does_not_set_from_the_default(tmp_path: Path) -> None:
    assert policy(tmp_path) == replace(DEFAULT_POLICY, code="gentle")


def test_policy_inherits_the_exceptions_of_the_default_unless_it_has_its_own(
    tmp_path: Path,
) -> None:
    # Given its own reminders, a yearly contract in France is still announced as the law wants.
    monthly = policy(tmp_path, "reminders = [5]")
    assert monthly.reminder_days("FR", Period(12), date(2026, 6, 20)) == (60, 30, 15, 7, 3, 1)
    assert monthly.reminder_days("FR", Period(1), date(2026, 6, 20)) == (5,)
    assert policy(tmp_path, "reminders = [5]", "reminders_for = []").reminders_for == ()


def test_policy_without_grace_has_no_suspension(tmp_path: Path) -> None:
    found = policy(tmp_path, "grace = false", "charges = [-5, 0, 3]")
    assert found.suspend is None
    assert found.charges == (-5, 0, 3)
    assert policy(tmp_path, "grace = false", "charges = [0]").charges == (0,)


def test_suspension_may_be_on_the_day_of_expiry(tmp_path: Path) -> None:
    found = policy(tmp_path, "suspend = 0", "terminate = 1", "notice = 0")
    assert (found.suspend, found.terminate, found.notice) == (0, 1, 0)


def test_a_plan_that_names_no_policy_has_the_default_one(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE + POLICY).plans["web-perso"].policy is DEFAULT_POLICY


def test_file_can_define_the_default_policy(tmp_path: Path) -> None:
    own = POLICY.replace('"gentle"', '"default"')
    assert read(tmp_path, WHOLE + own).plans["web-perso"].policy.reminders == (20, 2)


def test_policies_apply_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GENTLE)
    (tmp_path / "b.toml").write_text(SUBSIDIARIES + CONTRACTS + POLICY)
    assert load([tmp_path]).plans["web-perso"].policy.code == "gentle"


DAYS = "days before expiry, the first reminder first"
CHARGES = "charges: days from the expiry, the earliest first"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("reminders = [20, 2]", "reminders = []", f"reminders: {DAYS}"),
        ("reminders = [20, 2]", "reminders = [2, 20]", f"reminders: {DAYS}"),
        ("reminders = [20, 2]", "reminders = [20, 20]", f"reminders: {DAYS}"),
        ("days = [90, 60]", "days = []", f"reminders_for.0.days: {DAYS}"),
        ("days = [90, 60]", "days = [60, 90]", f"reminders_for.0.days: {DAYS}"),
        ("days = [10]", "days = [10, 10]", f"reminders_for.1.days: {DAYS}"),
        (
            'subsidiary = "IE"',
            'subsidiary = "XX"',
            "reminders_for.0.subsidiary: no such subsidiary",
        ),
        (
            "P1Y",
            "P1D",
            "reminders_for.0.period: 'P1D' is not a period such as P1M or P12M",
        ),
        ("P1Y", "P11Y", "reminders_for.0.period: 'P11Y' is longer than ten years"),
        ("charges = [-2, 0, 4]", "charges = []", CHARGES),
        ("charges = [-2, 0, 4]", "charges = [0, -2]", CHARGES),
        ("charges = [-2, 0, 4]", "charges = [0, 0]", CHARGES),
        ("suspend = 8", "suspend = 45", "terminate: not after suspend"),
        ("suspend = 8\nterminate = 45", "suspend = 30", "terminate: not after suspend"),
        ("suspend = 8\nterminate = 45", "terminate = 5", "terminate: not after suspend"),
        (
            "suspend = 8\nterminate = 45",
            "grace = false\nsuspend = 8",
            "grace: without one there is no suspend and no terminate",
        ),
        (
            "suspend = 8",
            "grace = false",
            "grace: without one there is no suspend and no terminate",
        ),
        (
            "charges = [-2, 0, 4]\nsuspend = 8\nterminate = 45",
            "grace = false\ncharges = [1, 4]",
            "charges: without a grace one has to be on or before the expiry",
        ),
    ],
)
def test_a_policy_that_could_not_work_is_refused(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    assert WITH_POLICY.count(old) == 1 + (old == "P1Y")  # the plan has a P1Y of its own
    before, after = WITH_POLICY.split(POLICY)[0], POLICY.replace(old, new)
    assert problems(tmp_path, before + after) == [f"plans.toml: policy gentle: {line}"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[20, 2]", "[366]", "policy gentle: reminders.0: Input should be less than or equal"),
        ("[20, 2]", "[20, 0]", "policy gentle: reminders.1: Input should be greater than or eq"),
        ("[20, 2]", '["20"]', "policy gentle: reminders.0: Input should be a valid integer"),
        ("[20, 2]", "20", "policy gentle: reminders: Input should be a valid list"),
        ("[10]", "[0]", "policy gentle: reminders_for.1.days.0: Input should be greater"),
        ("days = [10]", 'period = "P1M"', "policy gentle: reminders_for.1.days: Field required"),
        ("days = [10]", "days = [1]\nx = 1", "policy gentle: reminders_for.1.x: Extra inputs"),
        ('"IE"\nperiod', '"ie"\nperiod', "policy gentle: reminders_for.0.subsidiary: String"),
        ("[-2, 0, 4]", "[-91]", "policy gentle: charges.0: Input should be greater than or equal"),
        ("[-2, 0, 4]", "[0, 91]", "policy gentle: charges.1: Input should be less than or equal"),
        ("suspend = 8", "suspend = -1", "policy gentle: suspend: Input should be greater than"),
        ("suspend = 8", "suspend = 366", "policy gentle: suspend: Input should be less than"),
        ("suspend = 8", "suspend = false", "policy gentle: suspend: Input should be a valid int"),
        ("suspend = 8", 'grace = "no"', "policy gentle: grace: Input should be a valid boolean"),
        ("terminate = 45", "terminate = 731", "policy gentle: terminate: Input should be less"),
        ("stop_reminder = 3", "stop_reminder = 0", "policy gentle: stop_reminder: Input should"),
        ("stop_reminder = 3", "stop_reminder = 366", "policy gentle: stop_reminder: Input should"),
        ("notice = 10", "notice = -1", "policy gentle: notice: Input should be greater than"),
        ("notice = 10", "notice = 91", "policy gentle: notice: Input should be less than"),
        ("notice = 10", "delay = 10", "policy gentle: delay: Extra inputs are not permitted"),
        ('code = "gentle"', 'code = "so gentle"', "policy so gentle: code: String should match"),
        ('code = "gentle"\n', "", "policy number 1: code: Field required"),
        ('policy = "gentle"', 'policy = "x"', "plan web-perso: policy: 'x' is not defined"),
        ('policy = "gentle"', 'policy = "a b"', "plan web-perso: policy: String should match"),
    ],
)
def test_a_problem_of_a_policy_names_its_field(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    assert WITH_POLICY.count(old) == 1
    found = problems(tmp_path, WITH_POLICY.replace(old, new))
    assert any(problem.startswith(f"plans.toml: {line}") for problem in found), found


def test_a_policy_defined_twice_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, WITH_POLICY + POLICY)
    assert found == ["plans.toml: policy gentle: code: defined before"]


def test_all_problems_of_a_policy_are_reported_at_once(tmp_path: Path) -> None:
    bad = POLICY.replace("[20, 2]", "[2, 20]").replace("[90, 60]", "[]").replace("P1Y", "P1W")
    bad = bad.replace("[-2, 0, 4]", "[4, 1]").replace("suspend = 8", "grace = false\nsuspend = 90")
    found = problems(tmp_path, SUBSIDIARIES + CONTRACTS + GENTLE + bad)
    assert [line.removeprefix("plans.toml: policy gentle: ").split(":")[0] for line in found] == [
        "reminders_for.0.days", "reminders_for.0.period", "reminders",
        "charges", "charges", "grace", "terminate",
    ]  # fmt: skip
