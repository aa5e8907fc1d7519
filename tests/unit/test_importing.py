"""A row of an import is valid, or rejected with all its problems; reading never raises."""

import io
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given as examples_of
from hypothesis import strategies as st

from producers.imports.arrivals import Arrivals
from producers.imports.rows import (
    FIELDS,
    MAX_ROW_BYTES,
    REDACTED,
    CsvRows,
    NdjsonRows,
    Row,
    lines,
    parse,
)
from producers.imports.services import Books, Customer, Judge
from schemas.catalogue import Catalogue
from schemas.errors import AutorenewError
from schemas.messages import Problem
from schemas.values import Period, derived_id
from tests.support import given

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CATALOGUE = Catalogue(
    given.CATALOGUE.subsidiaries.values(),
    given.CATALOGUE.contracts.values(),
    given.CATALOGUE.plans.values(),
    {("ovh", "FR"): date(2026, 1, 1)},
)


def fields(**changes: Any) -> dict[str, Any]:
    """A valid row."""
    row = {
        "customer": "alice",
        "plan": "site",
        "period": "P1M",
        "resource_id": "r-1",
        "expires_on": "2026-06-30",
        "payment_method": "tok-alice",
        "subsidiary": "FR",
        "country": "FR",
        "language": "fr",
        "email": "alice@example.com",
    } | changes
    return {name: value for name, value in row.items() if value is not None}


def read(row: Any, line: int = 1) -> tuple[Row | None, list[Problem]]:
    raw = row if isinstance(row, bytes) else json.dumps(row).encode()
    return parse(NdjsonRows(), line, raw)


def judged(
    *rows: dict[str, Any], judge: Judge | None = None, found: Books | None = None
) -> tuple[Arrivals, dict[int, list[str]]]:
    """The rows of one chunk, all of the right shape; codes by line, from 1."""
    good = []
    for line, fields_ in enumerate(rows, 1):
        row, problems = read(fields_, line)
        assert row is not None, problems
        good.append(row)
    ids = {
        row.line: derived_id("imported service", plan.driver, row.service.resource_id)
        for row in good
        if (plan := CATALOGUE.plan(row.service.plan)) is not None
    }
    judge = judge or Judge(NOW, realm="shop")
    arrivals, refused = judge.chunk(good, ids, found or Books(), CATALOGUE)
    return arrivals, {line: codes(problems) for line, problems in refused.items()}


def codes(problems: list[Problem]) -> list[str]:
    return [problem.code for problem in problems]


def service(arrivals: Arrivals, number: int = 0) -> dict[str, Any]:
    return asdict(arrivals.services[number])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"customer": None}, "field_missing"),
        ({"customer": "a\x00b"}, "customer_invalid"),
        ({"customer": "a" * 101}, "customer_invalid"),
        ({"plan": None}, "field_missing"),
        ({"period": "1 month"}, "period_invalid"),
        ({"period": "P11Y"}, "period_invalid"),
        ({"period": 1}, "period_invalid"),
        ({"resource_id": None}, "resource_missing"),
        ({"resource_id": ""}, "resource_missing"),
        ({"expires_on": "2026-02-30"}, "date_invalid"),
        ({"expires_on": "20260130"}, "date_invalid"),
        ({"expires_on": "2026-W05-1"}, "date_invalid"),
        ({"expires_on": "9999-12-31"}, "date_invalid"),
        ({"anchor": "30/01/2026"}, "date_invalid"),
        ({"mode": "Automatic"}, "mode_invalid"),
        ({"state": "terminated"}, "state_invalid"),
        ({"contract_version": 0}, "contract_version_invalid"),
        ({"contract_version": "2"}, "contract_version_invalid"),
        ({"payment_method": "t" * 201}, "payment_method_invalid"),
        ({"payment_method": REDACTED}, "payment_method_invalid"),
        ({"payment_method_expires": "2027-13"}, "payment_method_invalid"),
        (
            {"payment_method": None, "payment_method_expires": "2027-01"},
            "payment_method_invalid",
        ),
        ({"configuration": ["domain"]}, "configuration_invalid"),
        ({"configuration": {"domain": 1}}, "configuration_invalid"),
        ({"configuration": {str(n): "x" for n in range(51)}}, "configuration_invalid"),
        ({"subsidiary": "France"}, "subsidiary_unknown"),
        ({"country": "fr"}, "country_invalid"),
        ({"language": "fra"}, "language_invalid"),
        ({"email": "alice"}, "email_invalid"),
        ({"vat_number": "?"}, "vat_number_invalid"),
        ({"colour": "blue"}, "field_unknown"),
    ],
)
def test_row_of_the_wrong_shape_has_a_problem_with_a_stable_code(
    changes: dict[str, Any], code: str
) -> None:
    row, problems = read(fields(**changes))
    assert row is None
    assert codes(problems) == [code]
    assert "tok-alice" not in problems[0].message


@pytest.mark.parametrize(
    "raw",
    [b"[]", b"1", b"null", b"{", b"\xff", b'{"a": "\\ud800"}', b"[" * 100_000, b'{"a": NaN}'],
)
def test_line_that_is_not_an_object_is_malformed(raw: bytes) -> None:
    assert codes(read(raw)[1]) == ["row_malformed"]


def test_every_problem_of_a_row_is_collected() -> None:
    _, problems = read(fields(period="month", expires_on="2026-02-30", mode="x", email="x"))
    assert sorted(codes(problems)) == [
        "date_invalid",
        "email_invalid",
        "mode_invalid",
        "period_invalid",
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plan": "nothing"}, "plan_unknown"),
        ({"plan": "phone", "subsidiary": "IE", "country": "IE"}, "plan_not_sold"),
        ({"period": "P3M"}, "period_not_offered"),
        ({"subsidiary": "XX"}, "subsidiary_unknown"),
        ({"country": "US"}, "tax_not_supported"),
        ({"country": "DE", "vat_number": "DE000000000"}, "vat_number_invalid"),
        ({"email": None}, "field_missing"),
        ({"contract_version": 3}, "contract_version_invalid"),
        ({"anchor": "2026-01-31", "expires_on": "2026-06-29"}, "expiry_off_anchor"),
        ({"anchor": "2026-07-30"}, "expiry_off_anchor"),
        (
            dict.fromkeys(("subsidiary", "country", "language", "email")),
            "customer_unknown",
        ),
    ],
)
def test_row_that_cannot_be_renewed_is_refused(changes: dict[str, Any], code: str) -> None:
    arrivals, refused = judged(fields(**changes))
    assert refused == {1: [code]}
    assert arrivals == Arrivals()


def test_expiry_that_does_not_fit_its_anchor_is_told_the_nearest_dates() -> None:
    row, _ = read(fields(anchor="2026-01-31", expires_on="2026-03-30"))
    assert row is not None
    judge = Judge(NOW, realm="shop")
    service_id = derived_id("imported service", "web", "r-1")
    _, refused = judge.chunk([row], {1: service_id}, Books(), CATALOGUE)
    assert refused[1][0].message == (
        "P1M from 2026-01-31 ends on 2026-02-28 or 2026-03-31, not on 2026-03-30"
    )


@examples_of(
    st.dates(date(1990, 1, 1), date(2050, 1, 1)),
    st.integers(0, 100),
    st.sampled_from([1, 12]),
    st.integers(-3, 3),
)
def test_an_expiry_counts_the_periods_since_its_anchor(
    anchor: date, count: int, months: int, off: int
) -> None:
    period = Period(months)
    end = period.end(anchor, count)
    expires_on = date.fromordinal(end.toordinal() + off)
    row = fields(period=str(period), anchor=str(anchor), expires_on=str(expires_on))

    arrivals, refused = judged(row)

    if off == 0:
        found = service(arrivals)
        assert (found["anchor"], found["paid_periods"]) == (anchor, count)
        assert found["imported_periods"] == count
    else:
        assert refused == {1: ["expiry_off_anchor"]}


def test_without_an_anchor_periods_count_from_the_expiry() -> None:
    found = service(judged(fields())[0])
    assert (found["anchor"], found["paid_periods"]) == (date(2026, 6, 30), 0)
    assert found["expires_at"] == datetime(2026, 6, 29, 22, tzinfo=UTC)
    # Its customer is reminded all the same, 30 days before.
    assert found["next_step"] == "remind"
    assert found["next_step_at"] == datetime(2026, 5, 31, 6, tzinfo=UTC)


def test_repeated_row_is_known_and_a_different_version_of_it_is_refused() -> None:
    judge = Judge(NOW, realm="shop")
    arrivals, refused = judged(
        fields(), fields(), fields(expires_on="2026-07-31"), fields(plan="gift"), judge=judge
    )
    assert len(arrivals.services) == 1
    assert refused == {3: ["duplicate_in_file"], 4: ["resource_taken"]}

    again, refused = judged(fields(), fields(email="other@example.com"), judge=judge)
    assert again == Arrivals()
    assert refused == {2: ["duplicate_in_file"]}


def test_later_rows_of_a_customer_may_rely_on_the_first() -> None:
    bare = dict.fromkeys(("subsidiary", "country", "language", "email", "payment_method"))
    arrivals, refused = judged(
        fields(resource_id="r-0", **bare),
        fields(contract_version=2),
        fields(resource_id="r-2", **bare),
        fields(resource_id="r-3", subsidiary="IE"),
    )
    assert refused == {1: ["customer_unknown"], 4: ["customer_mismatch"]}
    assert len(arrivals.customers) == len(arrivals.methods) == len(arrivals.agreements) == 1
    saved = derived_id("payment method", "alice", "tok-alice")
    assert [service(arrivals, n)["payment_method_id"] for n in (0, 1)] == [saved, saved]
    assert [service(arrivals, n)["agreed_version"] for n in (0, 1)] == [2, 2]


def test_a_known_customer_is_never_changed() -> None:
    saved = derived_id("payment method", "alice", "saved")
    found = Books(
        customers={"alice": Customer("FR", saved, "shop")},
        methods={saved},
        agreed={("alice", "terms"): 1},
    )
    arrivals, _ = judged(
        fields(email="new@example.com", payment_method=None),
        fields(resource_id="r-2", payment_method="tok-2", payment_method_expires="2028-02"),
        found=found,
    )
    assert arrivals.customers == []
    first, second = service(arrivals), service(arrivals, 1)
    assert first["payment_method_id"] == saved
    assert first["agreed_version"] == 1
    assert second["payment_method_id"] == derived_id("payment method", "alice", "tok-2")
    assert [method.expires_on for method in arrivals.methods] == [date(2028, 2, 29)]


HEADER = b"customer,plan,period,resource_id,expires_on,payment_method,configuration"


def test_columns_come_in_any_order_and_cells_may_be_quoted() -> None:
    rows = CsvRows(b"plan,customer,resource_id,period,expires_on,configuration,contract_version")
    row, problems = parse(
        rows, 2, b'site,"Alice, Inc",r-1,P1M,2026-06-30,"{""domain"": ""a.example""}",2'
    )
    assert problems == []
    assert row is not None
    assert row.service.customer == "Alice, Inc"
    assert row.service.configuration == {"domain": "a.example"}
    assert row.service.contract_version == 2


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "the file is empty"),
        (b"customer;plan", "there is no column"),
        (b"customer,plan,period,resource_id", "it lacks expires_on"),
        (HEADER + b",colour", "there is no column 'colour'"),
        (HEADER + b",plan", "twice"),
        (b"\xff\xfec\x00u\x00", "cannot be read"),
        (b'"customer', "cannot be read"),
    ],
)
def test_invalid_csv_header_is_one_clear_error(header: bytes, says: str) -> None:
    with pytest.raises(AutorenewError, match=says) as error:
        CsvRows(header)
    assert error.value.code == "header_invalid"


@pytest.mark.parametrize(
    "raw",
    [b"a,b", b"a,b,c,d,e,f,g,h", b'alice,site,P1M,"r-1,2026-06-30,tok,', b"a\xff,b,c,d,e,f,g"],
)
def test_line_that_is_not_a_row_is_malformed_and_not_shown(raw: bytes) -> None:
    rows = CsvRows(HEADER)
    assert codes(parse(rows, 2, raw)[1]) == ["row_malformed"]
    assert rows.shown(raw) == REDACTED


def test_a_row_is_shown_without_its_payment_method_and_can_be_read_again() -> None:
    raw = b'"Alice, Inc",site,P1M,r-1,2026-06-30,tok-secret,'
    shown = CsvRows(HEADER).shown(raw)
    assert shown == '"Alice, Inc",site,P1M,r-1,2026-06-30,***,'
    _, problems = parse(CsvRows(HEADER), 2, shown.encode())
    assert problems[0].message == "payment_method was redacted: put the token back"

    ndjson = json.dumps(fields(payment_metod="tok-secret")).encode()
    assert "tok-" not in NdjsonRows().shown(ndjson)
    assert json.loads(NdjsonRows().shown(ndjson))["customer"] == "alice"


def test_lines_are_numbered_and_a_too_long_line_does_not_harm_the_others() -> None:
    source = io.BytesIO(b"\xef\xbb\xbfa\r\n\n" + b"x" * (3 * MAX_ROW_BYTES) + b"\nlast")
    (one, a), (three, long), (four, last) = lines(source)
    assert (one, a, three, four, last) == (1, b"a", 3, 4, b"last")
    assert codes(parse(NdjsonRows(), three, long)[1]) == ["row_malformed"]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@examples_of(st.binary())
def test_reading_rows_never_raises_whatever_the_bytes(raw: bytes) -> None:
    for rows in (NdjsonRows(), CsvRows(HEADER)):
        for number, line in lines(io.BytesIO(raw)):
            row, problems = parse(rows, number, line)
            assert (row is None) == bool(problems)
            assert isinstance(rows.shown(line), str)
    with pytest.raises(AutorenewError):
        CsvRows(raw)


@examples_of(st.dictionaries(st.sampled_from(FIELDS) | st.text(), _anything))
def test_reading_rows_never_raises_whatever_the_fields(changes: dict[str, Any]) -> None:
    row, problems = read(fields(**changes))
    assert (row is None) == bool(problems)


@examples_of(st.lists(st.text(), min_size=7, max_size=7))
def test_reading_csv_never_raises_whatever_the_cells(cells: list[str]) -> None:
    raw = ",".join(cells).encode(errors="surrogatepass")
    row, problems = parse(CsvRows(HEADER), 2, raw)
    assert (row is None) == bool(problems)
