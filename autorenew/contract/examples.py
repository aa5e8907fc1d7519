"""A valid document of every kind, as the contract shows it; tests send each of them."""

from typing import Any

_SERVICE = "4fe769c4-ead1-5229-bb05-0a94e6c3c81e"

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "order": {
        "order": {
            "version": 1,
            "key": "shop-2024-000123",
            "customer": {
                "id": "c-1001",
                "subsidiary": "FR",
                "country": "FR",
                "language": "fr",
                "email": "jeanne@example.com",
            },
            "payment_method": "tok-c-1001",
            "contracts": [{"contract": "web", "version": 3}],
            "lines": [
                {
                    "plan": "web-perso",
                    "period": "P12M",
                    "quantity": 1,
                    "configuration": {"domain": "jeanne.example"},
                }
            ],
        }
    },
    "service-command": {
        "stop": {"command": "stop", "customer": "c-1001", "services": [_SERVICE]},
        "resume": {"command": "resume", "customer": "c-1001", "services": [_SERVICE]},
        "mode": {
            "command": "mode",
            "customer": "c-1001",
            "mode": "manual",
            "services": [_SERVICE],
        },
        "renew": {
            "command": "renew",
            "customer": "c-1001",
            "services": [{"id": _SERVICE, "expires_on": "2026-12-24"}],
            "contracts": [{"contract": "web", "version": 3}],
        },
    },
    "agreement": {
        "accept": {
            "command": "accept",
            "customer": "c-1001",
            "contracts": [{"contract": "web", "version": 3}],
        }
    },
    "payment-method": {
        "payment_method": {
            "command": "payment_method",
            "customer": "c-1001",
            "payment_method": "tok-new",
            "payment_method_expires": "2028-06",
        }
    },
    "customer": {
        "customer": {
            "command": "customer",
            "customer": "c-1001",
            "email": "new@example.com",
            "vat_number": None,
        }
    },
}
REPLIES: dict[str, dict[str, Any]] = {
    "accepted": {
        "verdict": "accepted",
        "key": "shop-2024-000123",
        "order_id": "4c5b2f5e-2f35-5d0c-8a8e-3a52e1f4c8c0",
        "repeated": False,
        "problems": [],
    },
    "refused": {
        "verdict": "refused",
        "repeated": False,
        "problems": [
            {
                "code": "service_unknown",
                "path": "services.0",
                "message": f"c-1001 has no {_SERVICE}",
            }
        ],
    },
}
