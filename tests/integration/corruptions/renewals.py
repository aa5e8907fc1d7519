"""Corruptions of renewals, and of what is next for services."""

from tests.integration.corruptions.subjects import (
    first_request,
    open_request,
    service,
)

RENEWALS = (
    ("a renewal is on no request", "UPDATE renewals SET request_id = NULL", "renewals.open"),
    (
        "a renewal is on a request that is not there",
        f"UPDATE renewals SET request_id = gen_random_uuid() WHERE service_id = {service('nils')}"
        f" OR service_id = {service('kurt')}",
        "renewals.open",
    ),
    (
        "a renewal is on a request that was paid",
        f"UPDATE renewals SET request_id = {first_request('nils')}",
        "renewals.open",
    ),
    (
        "an open request has released its line",
        f"UPDATE request_lines SET released_at = now() WHERE request_id = {open_request('kurt')}",
        "renewals.open",
    ),
    (
        "a service on an open request ends",
        f"UPDATE services SET desired = 'absent' WHERE id = {service('kurt')}",
        "renewals.open",
    ),
    (
        "a renewal is priced in another currency",
        f"UPDATE renewals SET currency = 'PLN' WHERE service_id = {service('kurt')}",
        "renewals.currency",
    ),
    (
        "a renewal was announced in another currency",
        "UPDATE renewals SET announced_currency ="
        f" 'PLN', dearer_at = NULL WHERE service_id = {service('kurt')}",
        "renewals.currency",
    ),
    (
        "a renewal was fixed at less",
        f"UPDATE renewals SET net = 1 WHERE service_id = {service('kurt')}",
        "renewals.price",
    ),
    ("a paid renewal's price is forgotten", "DELETE FROM renewals", "renewals.price"),
    (
        "an open renewal asks for more, with all sums",
        f"""
        UPDATE request_lines SET net = 10000, tax = 2000
        WHERE request_id = {open_request("kurt")};
        UPDATE payment_requests SET net = 10000, tax = 2000, total = 12000
        WHERE id = {open_request("kurt")}""",
        "renewals.price",
    ),
    (
        "a renewal is of a period beyond the next",
        f"UPDATE renewals SET period_number = 9 WHERE service_id = {service('kurt')}",
        "renewals.dates",
    ),
    (
        "a renewal is of another day",
        f"UPDATE renewals SET expires_on = '2099-01-01' WHERE service_id = {service('kurt')}",
        "renewals.dates",
    ),
    (
        "less was announced than a renewal costs",
        "UPDATE renewals SET announced = 1 WHERE announced IS NOT NULL",
        "renewals.dates",
    ),
    (
        "nobody knows when an amount was announced",
        "UPDATE renewals SET announced_at = NULL",
        "renewals.dates",
    ),
    (
        "a renewal was declined more often",
        f"UPDATE renewals SET declines = 7 WHERE service_id = {service('kurt')}",
        "renewals.counts",
    ),
    (
        "a renewal was never declined",
        "UPDATE renewals SET declines = 0, declined_at = NULL,"
        f" last_declined_at = NULL WHERE service_id = {service('kurt')}",
        "renewals.counts",
    ),
    (
        "nobody knows when a renewal was declined",
        f"UPDATE renewals SET declined_at = NULL WHERE service_id = {service('kurt')}",
        "renewals.counts",
    ),
    (
        "a renewal was on more requests",
        f"UPDATE renewals SET requests = 5 WHERE service_id = {service('kurt')}",
        "renewals.counts",
    ),
    (
        "an open request stands until 2099",
        f"UPDATE renewals SET stands_until = '2099-01-01' WHERE service_id = {service('kurt')}",
        "renewals.stands",
    ),
    (
        "an open request stands for ever",
        f"UPDATE renewals SET stands_until = NULL WHERE service_id = {service('kurt')}",
        "renewals.stands",
    ),
    (
        "a renewal was asked for by nobody",
        f"UPDATE renewals SET asked_at = now() WHERE service_id = {service('ivan')}",
        "renewals.asked",
    ),
)

STEPS = (
    (
        "next steps are emptied",
        "UPDATE services SET next_step = NULL, next_step_at = NULL",
        "steps.next",
    ),
    (
        "next steps are of 2099",
        "UPDATE services SET next_step_at = '2099-01-01' WHERE next_step IS NOT NULL",
        "steps.next",
    ),
    (
        "one next step is a month later",
        "UPDATE services SET next_step_at ="
        f" next_step_at + interval '1 month' WHERE id = {service('nils')}",
        "steps.next",
    ),
    (
        "a service is charged instead of reminded",
        f"UPDATE services SET next_step = 'charge' WHERE id = {service('nils')}",
        "steps.next",
    ),
    (
        "a service is terminated next",
        "UPDATE services SET next_step = 'terminate',"
        f" next_step_at = now() WHERE id = {service('nils')}",
        "steps.next",
    ),
    (
        "a suspended service is never terminated",
        f"UPDATE services SET next_step = NULL, next_step_at = NULL WHERE id = {service('ivan')}",
        "steps.next",
    ),
    (
        "a terminated service has a next step",
        "UPDATE services SET next_step = 'remind',"
        f" next_step_at = now(), next_subject = id WHERE id = {service('judy')}",
        "steps.next",
    ),
    (
        "a cancelled service has a next step",
        "UPDATE services SET next_step = 'remind',"
        " next_step_at = now(), next_subject = id WHERE customer_id = 'mary'",
        "steps.next",
    ),
    (
        "a step is about another service",
        f"UPDATE services SET next_subject = {service('bob')} WHERE id = {service('nils')}",
        "steps.next",
    ),
    (
        "a charge is about another request",
        f"UPDATE services SET next_subject = gen_random_uuid() WHERE id = {service('kurt')}",
        "steps.next",
    ),
    (
        "a renewal's notices are forgotten, so that it is reminded anew",
        f"DELETE FROM notices WHERE service_id = {service('alice')}",
        "steps.next",
    ),
    (
        "a suspension counts from another day",
        "UPDATE services SET suspended_at ="
        f" suspended_at + interval '20 days' WHERE id = {service('ivan')}",
        "steps.next",
    ),
    (
        "a stop is undone without a decision",
        f"UPDATE services SET mode = 'stop' WHERE id = {service('nils')}",
        "steps.next",
    ),
    (
        "renewal is switched off under services",
        "DELETE FROM rollouts WHERE subsidiary = 'FR'",
        "steps.rollout",
    ),
    ("renewal is switched off, and what is next stays", "DELETE FROM rollouts", "steps.next"),
    (
        "all services are to be decided anew, for ever",
        "INSERT INTO recomputations (wanted_at) VALUES (now() - interval '1 year')",
        "steps.recomputed",
    ),
)
