import importlib
import uuid
from datetime import date
from decimal import Decimal
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fields import CURRENCY_DIGITS
from schemas.values import (
    ChargeState,
    Money,
    OperationState,
    OrderState,
    Period,
    RequestState,
    ServiceState,
    derived_id,
    round_half_up,
    without_day,
)

currencies = st.sampled_from(sorted(CURRENCY_DIGITS))
amounts = st.integers(-(10**13), 10**13)
anchors = st.dates(date(1970, 1, 1), date(2100, 12, 31))
periods = st.builds(Period, st.integers(1, 120))
counts = st.integers(1, 200)


class TestMoney:
    @pytest.mark.parametrize(
        ("text", "currency", "amount"),
        [
            ("37.87", "EUR", 3787),
            ("37", "EUR", 3700),
            ("0", "EUR", 0),
            ("-0.05", "EUR", -5),
            ("37.8700", "EUR", 3787),  # zeros say nothing
            ("1.234", "TND", 1234),
            ("1000", "XOF", 1000),
        ],
    )
    def test_an_amount_is_read_as_minor_units(self, text: str, currency: str, amount: int) -> None:
        assert Money.parse(text, currency) == Money(amount, currency)

    @pytest.mark.parametrize(
        ("text", "currency"),
        [
            ("37.875", "EUR"), ("0.001", "EUR"), ("1.2345", "TND"), ("0.5", "XOF"),
            ("1." + "0" * 31 + "1", "EUR"), ("0." + "0" * 500 + "1", "EUR"),
        ],
    )  # fmt: skip
    def test_more_digits_than_the_minor_unit_are_refused_not_rounded(
        self, text: str, currency: str
    ) -> None:
        with pytest.raises(ValueError, match="more digits"):
            Money.parse(text, currency)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "1,5", "1 000", "1e3", "+1", "0x10", "NaN", "Infinity", ".5", "5.", "--1", "1\n",
         "٣٧.٨٧", "1.²"],
    )  # fmt: skip
    def test_text_that_is_not_an_amount_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="not an amount"):
            Money.parse(text, "EUR")

    @pytest.mark.parametrize("currency", ["", "eur", "XXX", "BTC"])
    def test_an_unknown_currency_is_refused(self, currency: str) -> None:
        with pytest.raises(ValueError, match="unknown currency"):
            Money.parse("1", currency)
        with pytest.raises(ValueError, match="unknown currency"):
            Money(1, currency)

    @given(st.integers(-(10**11), 10**11), currencies)
    def test_printed_value_is_read_back(self, amount: int, currency: str) -> None:
        money = Money(amount, currency)
        number, code = str(money).split(" ")
        assert code == currency
        assert Money.parse(number.replace(",", ""), currency) == money

    def test_amount_is_printed_with_its_minor_unit(self) -> None:
        assert str(Money(4544, "EUR")) == "45.44 EUR"
        assert str(Money(5, "EUR")) == "0.05 EUR"
        assert str(Money(1234567, "TND")) == "1,234.567 TND"
        assert str(Money(1234567, "XOF")) == "1,234,567 XOF"

    @given(amounts, amounts, currencies)
    def test_amounts_of_one_currency_add_up(self, one: int, other: int, currency: str) -> None:
        assert Money(one, currency) + Money(other, currency) == Money(one + other, currency)

    def test_amounts_of_two_currencies_do_not_add_up(self) -> None:
        with pytest.raises(ValueError, match="cannot add USD to EUR"):
            Money(1, "EUR") + Money(1, "USD")

    def test_amounts_have_no_order(self) -> None:
        # Not even those of one currency: who compares must have seen to that.
        with pytest.raises(TypeError):
            _ = Money(1, "EUR") < Money(2, "USD")  # type: ignore[operator]
        with pytest.raises(TypeError):
            sorted([Money(1, "EUR"), Money(2, "EUR")])  # type: ignore[type-var]

    def test_amount_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            Money(1, "EUR").amount = 2  # type: ignore[misc]


class TestRounding:
    @pytest.mark.parametrize(
        ("value", "rounded"),
        [("0.5", 1), ("1.5", 2), ("2.5", 3), ("0.49999", 0), ("-0.5", -1), ("-2.5", -3), ("7", 7)],
    )
    def test_halves_go_away_from_zero(self, value: str, rounded: int) -> None:
        assert round_half_up(Decimal(value)) == rounded

    @given(st.integers(0, 10**15))
    def test_rounding_gives_the_nearest_whole_number(self, numerator: int) -> None:
        # In whole numbers: floor(x + 1/2).
        value = Decimal(numerator) / Decimal(2**10)
        assert round_half_up(value) == (2 * numerator + 2**10) // 2**11


class TestPeriod:
    @pytest.mark.parametrize(
        ("text", "months"), [("P1M", 1), ("P3M", 3), ("P12M", 12), ("P1Y", 12), ("P10Y", 120)]
    )
    def test_whole_months_and_years_are_read(self, text: str, months: int) -> None:
        assert Period.parse(text) == Period(months)

    def test_a_year_is_twelve_months(self) -> None:
        assert Period.parse("P1Y") == Period.parse("P12M")
        assert str(Period.parse("P1Y")) == "P12M"

    @pytest.mark.parametrize(
        "text",
        ["", "P", "P0M", "P01M", "P1D", "P1W", "1M", "p1m", "P-1M", "P1M\n", "P1Y6M", "PT1M",
         "P1.5M", "P121M", "P11Y", "P999Y", "P1000M", "P1٢M"],
    )  # fmt: skip
    def test_text_that_is_not_a_period_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"not a period|longer than ten years"):
            Period.parse(text)

    @given(periods)
    def test_printed_value_is_read_back(self, period: Period) -> None:
        assert Period.parse(str(period)) == period

    @pytest.mark.parametrize(
        ("anchor", "period", "ends"),
        [
            pytest.param(
                "2023-01-31",
                "P1M",
                ["2023-02-28", "2023-03-31", "2023-04-30", "2023-05-31"],
                id="Stripe, billing cycle anchored on the 31st",
            ),
            pytest.param(
                "2012-01-31",
                "P1M",
                ["2012-02-29"],
                id="Kill Bill, TestInAdvanceBillingIntervalDetail",
            ),
            pytest.param(
                "2024-02-29",
                "P1Y",
                ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"],
                id="dateutil relativedelta, anchored on a leap day",
            ),
            pytest.param(
                "2017-01-31",
                "P1M",
                ["2017-02-28", "2017-03-31", "2017-04-30"],
                id="Kill Bill issue 127",
            ),
            pytest.param(
                "2023-07-01",
                "P6M",
                ["2024-01-01", "2024-07-01"],
                id="OVH renewal guide: from the old expiry, however late the payment",
            ),
        ],
    )
    def test_ends_of_periods_agree_with_published_examples(
        self, anchor: str, period: str, ends: list[str]
    ) -> None:
        start, duration = date.fromisoformat(anchor), Period.parse(period)
        computed = [duration.end(start, count).isoformat() for count in range(1, len(ends) + 1)]
        assert computed == ends

    def test_ends_are_counted_from_the_anchor_not_from_the_end_before(self) -> None:
        # Given a mutation that adds a month to the last end: 28 February, 28 March.
        month = Period(1)
        anchor = date(2023, 1, 31)
        drifting = month.end(month.end(anchor, 1), 1)
        # Then it differs from what is right.
        assert drifting == date(2023, 3, 28)
        assert month.end(anchor, 2) == date(2023, 3, 31)

    @given(anchors, periods)
    def test_no_period_ends_where_it_begins(self, anchor: date, period: Period) -> None:
        assert period.end(anchor, 0) == anchor

    @given(anchors, periods, counts)
    def test_each_end_comes_after_the_one_before(
        self, anchor: date, period: Period, count: int
    ) -> None:
        assert period.end(anchor, count) > period.end(anchor, count - 1)

    @given(anchors, periods, counts)
    def test_a_month_end_is_clamped_but_never_drifts(
        self, anchor: date, period: Period, count: int
    ) -> None:
        end = period.end(anchor, count)
        months = (end.year - anchor.year) * 12 + end.month - anchor.month
        assert months == period.months * count
        if end.day != anchor.day:  # clamped: only to the last day of a shorter month
            assert end.day < anchor.day
            assert (end.toordinal() + 1) == _first_of_next_month(end).toordinal()

    @given(anchors, st.integers(1, 60))
    def test_twelve_months_are_a_year_whatever_the_period(self, anchor: date, n: int) -> None:
        assert Period(12).end(anchor, n) == Period(1).end(anchor, 12 * n)
        assert Period(3).end(anchor, 4 * n) == Period(1).end(anchor, 12 * n)


def _first_of_next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


# The unit separator parts facts, and no fact that upstream chooses may hold it.
facts = st.lists(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8), min_size=1, max_size=4
)


class TestDerivedId:
    def test_derived_id_never_changes_between_releases(self) -> None:
        # A restored database derives the same one: this constant is kept for ever.
        assert derived_id("order", "shop", "key-1") == uuid.UUID(
            "a164325b-8a2c-58de-aba7-ba02c0b552d8"
        )

    def test_derived_id_is_a_name_based_uuid(self) -> None:
        made = derived_id("order", "shop", "key-1")
        assert made.version == 5
        assert made.variant == uuid.RFC_4122

    @given(facts, facts)
    def test_same_facts_give_the_same_id_and_other_facts_another(
        self, one: list[str], other: list[str]
    ) -> None:
        assert (derived_id(*one) == derived_id(*other)) is (one == other)

    def test_derived_id_near_a_day_begins_with_it(self) -> None:
        made = derived_id("renewal request", "x", near=date(2026, 11, 30))
        assert made == uuid.UUID("5133b708-4497-8726-ba5d-8fd1d8436f81")
        assert made.bytes[:2] == ((date(2026, 11, 30) - date(1970, 1, 1)).days).to_bytes(2, "big")
        assert (made.version, made.variant) == (8, uuid.RFC_4122)
        assert derived_id("charge", made, 1, near=made).bytes[:2] == made.bytes[:2]

    @given(st.dates(), st.dates())
    def test_days_are_in_order_and_never_out_of_range(self, one: date, other: date) -> None:
        earlier, later = sorted((one, other))
        first, second = (derived_id("x", near=day).bytes[:2] for day in (earlier, later))
        assert first <= second

    @given(facts, facts)
    def test_same_facts_near_a_day_give_the_same_id_and_other_facts_another(
        self, one: list[str], other: list[str]
    ) -> None:
        day = date(2026, 11, 30)
        assert (derived_id(*one, near=day) == derived_id(*other, near=day)) is (one == other)

    def test_what_is_near_an_id_without_a_day_is_named_as_before_there_were_any(self) -> None:
        plain = derived_id("request", "o")
        assert derived_id("charge", plain, 1, near=plain) == derived_id("charge", plain, 1)
        assert without_day(plain) == plain

    def test_without_its_day_an_id_is_the_same_on_every_day(self) -> None:
        one, other = (derived_id("x", near=date(2026, 11, day)) for day in (29, 30))
        assert one != other
        assert without_day(one) == without_day(other)

    def test_derived_id_depends_on_where_one_fact_ends(self) -> None:
        assert derived_id("ab", "c") != derived_id("a", "bc")
        assert derived_id("a", "") != derived_id("a")


# What may follow what, as docs/reference/states.md says it; the database refuses every other step.
TRANSITIONS: dict[type[StrEnum], dict[str, set[str]]] = {
    OrderState: {
        "accepted": {"priced", "cancelled"},
        "priced": {"paid", "cancelled"},
        "paid": {"delivered", "partly_delivered", "cancelled"},
        "refused": set(),
        "delivered": set(),
        "partly_delivered": set(),
        "cancelled": set(),
    },
    ServiceState: {
        "pending": {"delivering", "cancelled"},
        "delivering": {"active", "cancelled"},
        "active": {"suspended", "terminated"},
        "suspended": {"active", "terminated"},
        "terminated": set(),
        "cancelled": set(),
    },
    RequestState: {
        "open": {"paid", "split", "voided"},
        "paid": set(),
        "split": set(),
        "voided": set(),
    },
    ChargeState: {
        "started": {"succeeded", "declined", "unknown"},
        "unknown": {"succeeded", "declined", "started"},
        "succeeded": set(),
        "declined": set(),
    },
    OperationState: {
        "pending": {"done", "failed", "unknown"},
        "unknown": {"done", "failed", "pending"},
        "failed": {"pending"},
        "done": set(),
    },
}


class TestStates:
    @pytest.mark.parametrize("kind", TRANSITIONS, ids=lambda kind: kind.__name__)
    def test_a_table_names_every_state_and_only_states(self, kind: type[StrEnum]) -> None:
        existing = {state.value for state in kind}
        assert set(TRANSITIONS[kind]) == existing
        assert set().union(*TRANSITIONS[kind].values()) <= existing

    @pytest.mark.parametrize(
        "kind", [OrderState, ServiceState, RequestState, ChargeState, OperationState]
    )
    def test_every_enum_of_states_that_change_has_a_table(self, kind: type[StrEnum]) -> None:
        assert kind in TRANSITIONS

    def test_the_database_refuses_every_other_step(self) -> None:
        # A refund goes the way of a charge.
        migration = importlib.import_module("schemas.migrations.versions.0002_rights")
        kinds = {
            "orders": OrderState,
            "services": ServiceState,
            "payment_requests": RequestState,
            "charges": ChargeState,
            "refunds": ChargeState,
            "operations": OperationState,
        }
        enforced = {
            table: {state: set(following.split()) for state, following in steps.items()}
            for table, steps in migration.TRANSITIONS.items()
        }
        assert enforced == {
            table: {state: following for state, following in TRANSITIONS[kind].items() if following}
            for table, kind in kinds.items()
        }
        assert set(kinds.values()) == set(TRANSITIONS)

    @pytest.mark.parametrize(
        "state",
        [
            OrderState.REFUSED,
            OrderState.DELIVERED,
            OrderState.PARTLY_DELIVERED,
            OrderState.CANCELLED,
            ServiceState.TERMINATED,
            ServiceState.CANCELLED,
            RequestState.PAID,
            RequestState.SPLIT,
            RequestState.VOIDED,
            ChargeState.SUCCEEDED,
            ChargeState.DECLINED,
            OperationState.DONE,
        ],
        ids=repr,
    )
    def test_final_state_has_no_transition(self, state: StrEnum) -> None:
        assert TRANSITIONS[type(state)][state.value] == set()

    @pytest.mark.parametrize(
        ("kind", "beginnings"),
        [
            (OrderState, {"accepted", "refused"}),
            (ServiceState, {"pending"}),
            (RequestState, {"open"}),
            (ChargeState, {"started"}),
            (OperationState, {"pending"}),
        ],
    )
    def test_every_state_can_be_reached(self, kind: type[StrEnum], beginnings: set[str]) -> None:
        reached, new = set(beginnings), set(beginnings)
        while new:
            new = set().union(*(TRANSITIONS[kind][state] for state in new)) - reached
            reached |= new
        assert reached == {state.value for state in kind}
