"""What upstream is told of, in the AsyncAPI document: to an exchange, and to HTTPS endpoints."""

from collections.abc import Iterable

from autorenew.contract.documents import Json, schemas_of
from schemas import events

_BINDING = "0.3.0"
_TITLE = {kind: (model.__doc__ or "").partition(".")[0] for kind, model in events.DATA.items()}


def servers() -> Json:
    return {
        "webhooks": {
            "host": "upstream.example.com",
            "protocol": "https",
            "description": "An endpoint that an upstream has registered.",
        }
    }


def channels() -> Json:
    published = [kind for kind in events.Kind if kind is not events.Kind.WEBHOOK_TEST]
    return {
        "events": {
            "address": "{realm}.{kind}",
            "title": "Events on the broker",
            "description": "A topic exchange; the address is the routing key.",
            "servers": [{"$ref": "#/servers/broker"}],
            "parameters": {
                "realm": {
                    "description": "Whose it is; what is not a letter, a digit, - or _ is"
                    " percent-encoded.",
                    "examples": ["upstream-shop"],
                },
                "kind": {
                    "description": "What happened.",
                    "enum": [str(kind) for kind in published],
                },
            },
            "messages": _references("#/components/messages/", published),
            "bindings": {
                "amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": events.EXCHANGE,
                        "type": "topic",
                        "durable": True,
                        "autoDelete": False,
                    },
                    "bindingVersion": _BINDING,
                }
            },
        },
        "webhook": {
            "address": None,
            "title": "Events over HTTPS",
            "description": "The URL that was registered, signed as Standard Webhooks says.",
            "servers": [{"$ref": "#/servers/webhooks"}],
            "messages": _references("#/components/messages/", list(events.Kind)),
        },
    }


def operations() -> Json:
    return {
        f"tell{name}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": "What happened is told at least once; the id is the same each time.",
            **(
                {"bindings": {"http": {"method": "POST", "bindingVersion": _BINDING}}}
                if http
                else {}
            ),
        }
        for name, channel, http in (("Exchange", "events", False), ("Webhook", "webhook", True))
    }


def messages() -> Json:
    return {
        events.type_of(kind): {
            "name": events.type_of(kind),
            "title": title,
            "contentType": events.CONTENT_TYPE,
            "payload": {"$ref": f"#/components/schemas/{_name(kind)}"},
        }
        for kind, title in _TITLE.items()
    }


def schemas(where: str) -> Json:
    """The whole events, by the kinds' names."""
    found: Json = {}
    for kind, data in events.DATA.items():
        models = schemas_of([events.envelope(kind)], where, "serialization")
        whole = models.pop(next(name for name in models if name.startswith("CloudEvent")))
        whole["properties"]["type"] = {"type": "string", "const": events.type_of(kind)}
        found |= models | {_name(kind): {**whole, "description": data.__doc__ or ""}}
    return found


def _name(kind: events.Kind) -> str:
    return f"Event.{kind}"


def _references(where: str, kinds: Iterable[events.Kind]) -> Json:
    names = [events.type_of(kind) for kind in kinds]
    return {name: {"$ref": f"{where}{name}"} for name in names}
