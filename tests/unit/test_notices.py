"""Kinds of notice: their text, which ends they count for, and what an e-mail says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import Step, next_step
from schemas.rules.notices import BEFORE, KINDS, STOP, End, Kind, Notice, Situation, situation
from schemas.rules.policies import DEFAULT_POLICY
from tests.unit.test_lifecycle import manual, on, stopped

numbers = st.none() | st.integers(0, 9999)


class TestText:
    @given(st.sampled_from(list(KINDS.values())), numbers)
    def test_a_notice_is_read_as_it_was_written(self, kind: Kind, number: int | None) -> None:
        notice = Notice(kind, number)
        assert Notice.parse(str(notice)) == notice

    @pytest.mark.parametrize("text", ["before-30", "contract-3", "declined-2", "suspended", "stop"])
    def test_the_texts_that_are_stored_stay_what_they_are(self, text: str) -> None:
        notice = Notice.parse(text)
        assert str(notice) == text
        assert notice.kind is KINDS[text.partition("-")[0]]

    @pytest.mark.parametrize("text", ["anniversary", "price-rise-3"])
    def test_a_kind_of_a_later_release_is_read_and_counts_for_nothing(self, text: str) -> None:
        notice = Notice.parse(text)
        assert str(notice) == text
        assert notice.kind.counts_for == frozenset()


class TestEnds:
    """Sent before everything that an end waits for."""

    def test_a_merely_informative_kind_licenses_no_end(self) -> None:
        sent = {Notice(Kind("anniversary")): on(-20)}
        for held in (manual(cycle=Cycle(notices=sent)), stopped(cycle=Cycle(notices=sent))):
            assert [held.cycle.noticed_at(end) for end in End] == [None] * len(End)
            assert next_step(held, DEFAULT_POLICY, on(200), reminders=False) is None

    def test_a_reminder_licenses_the_suspension_of_what_is_unpaid(self) -> None:
        held = manual(cycle=Cycle(notices={Notice(BEFORE, 30): on(-30)}))
        next_ = next_step(held, DEFAULT_POLICY, on(200), reminders=False)
        assert next_ is not None
        assert (next_.step, next_.at) == (Step.SUSPEND, on(5))

    def test_the_first_notice_of_an_end_counts_not_one_that_is_informative_and_earlier(
        self,
    ) -> None:
        told = {Notice(Kind("anniversary")): on(-60), Notice(BEFORE, 1): on(3)}
        assert Cycle(notices=told).noticed_at(End.UNPAID) == on(3)

    def test_that_of_a_stop_counts_for_stops_alone(self) -> None:
        cycle = Cycle(notices={Notice(STOP): on(-7)})
        assert {end for end in End if cycle.noticed_at(end)} == {End.STOPPED}

    @given(st.sets(st.sampled_from(list(KINDS.values())), min_size=1), st.sampled_from(End))
    def test_what_was_claimed_and_not_sent_counts_for_nothing(
        self, kinds: set[Kind], end: End
    ) -> None:
        assert Cycle(notices={Notice(kind): None for kind in kinds}).noticed_at(end) is None


class TestSituation:
    @given(st.sets(st.sampled_from(list(KINDS.values()))), st.sampled_from(Situation))
    def test_kinds_without_a_situation_of_their_own_say_what_is_true_of_the_service(
        self, kinds: set[Kind], by_state: Situation
    ) -> None:
        plain = [Notice(kind) for kind in kinds if kind.situation is None]
        assert situation(plain, by_state) is by_state

    @given(st.sampled_from(Situation), st.sampled_from(Situation))
    def test_a_kind_with_one_is_said_unless_something_more_urgent_is_true(
        self, own: Situation, by_state: Situation
    ) -> None:
        urgency = list(Situation).index
        said = situation([Notice(Kind("news", situation=own))], by_state)
        assert said is min(own, by_state, key=urgency)
