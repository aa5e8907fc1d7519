"""Commands: each as a document over AMQP, and as a request over HTTP.

Over HTTP a request that is sent again is known by its name. Over AMQP it is known by nothing: one
that would undo what somebody else did meanwhile is not sent again by itself.
"""

from collections.abc import Sequence
from typing import Any

from producers.client.calls import Call, Done, Json, command, segment


def _of_service(
    what: str, customer: str, service: str, body: dict[str, Any] | None = None
) -> Call[Done]:
    document = {"command": what, "customer": customer, "services": [service], **(body or {})}
    path = f"/v1/services/{segment(service)}:{what}"
    return command("service-command.v1", document, "POST", path, body, is_safe_document=False)


def stop(customer: str, service: str) -> Call[Done]:
    return _of_service("stop", customer, service)


def resume(customer: str, service: str) -> Call[Done]:
    return _of_service("resume", customer, service)


def mode(customer: str, service: str, mode: str) -> Call[Done]:
    return _of_service("mode", customer, service, {"mode": mode})


def renew(customer: str, service: str, expires_on: str, contracts: Sequence[Json]) -> Call[Done]:
    body: dict[str, Any] = {"expires_on": expires_on}
    document: dict[str, Any] = {
        "command": "renew",
        "customer": customer,
        "services": [{"id": service, "expires_on": expires_on}],
    }
    if contracts:
        body["contracts"] = document["contracts"] = list(contracts)
    path = f"/v1/services/{segment(service)}:renew"
    # It names the expiry that it is for.
    return command("service-command.v1", document, "POST", path, body, is_safe_document=True)


def accept(customer: str, contracts: Sequence[Json]) -> Call[Done]:
    body = {"contracts": list(contracts)}
    document = {"command": "accept", "customer": customer, **body}
    path = f"/v1/customers/{segment(customer)}/agreements"
    return command("agreement.v1", document, "POST", path, body, is_safe_document=True)


def payment_method(
    customer: str,
    token: str,
    expires: str | None,
    gateway: str | None,
    services: Sequence[str] | None,
) -> Call[Done]:
    said = {
        "payment_method": token,
        "payment_method_expires": expires,
        "payment_gateway": gateway,
        "services": None if services is None else list(services),
    }
    body = {name: value for name, value in said.items() if value is not None}
    document = {"command": "payment_method", "customer": customer, **body}
    path = f"/v1/customers/{segment(customer)}/payment-method"
    return command("payment-method.v1", document, "PUT", path, body, is_safe_document=False)


def change_customer(customer: str, changes: dict[str, Any]) -> Call[Done]:
    document = {"command": "customer", "customer": customer, **changes}
    path = f"/v1/customers/{segment(customer)}"
    return command("customer.v1", document, "PATCH", path, changes, is_safe_document=False)
