"""The AsyncAPI 3.0 document: what upstream may publish, how it is answered, what it is told of."""

from typing import Any

from autorenew.contract import events
from autorenew.contract.documents import TITLES, Json, message_schema, schemas_of
from autorenew.contract.examples import EXAMPLES, REPLIES
from producers.topology import INTAKE_EXCHANGE
from schemas.messages import KINDS, VERSIONS
from schemas.replies import REPLY_TYPE, Reply

ASYNCAPI = "3.0.0"
CONTRACT = "1.0.0"
"""Of this document: the first number changes when something is taken away."""

SCHEMAS = "#/components/schemas/"
_BINDING = "0.3.0"
_INFO = """\
What an upstream system may publish to Autorenew, in any language, how it is answered, and what it \
is told of. Publish persistent messages with publisher confirms and `mandatory`: a document is \
Autorenew's once the broker has confirmed it. The headers of messages here are the properties of \
AMQP 0-9-1. All problem codes are in docs/reference/order.md and docs/reference/commands.md."""

_PROPERTIES: Json = {
    "type": "object",
    "description": "Properties of the AMQP message.",
    "required": ["user_id"],
    "properties": {
        "user_id": {
            "type": "string",
            "description": "Your AMQP user, which RabbitMQ verifies; keys of orders are yours.",
        },
        "content_type": {"type": "string", "const": "application/json"},
        "delivery_mode": {"type": "integer", "const": 2, "description": "Kept on disk."},
        "type": {
            "type": "string",
            "pattern": r"^[a-z-]+\.v[0-9]+$",
            "description": "What the document is, such as order.v1. It may be left out.",
        },
        "reply_to": {
            "type": "string",
            "description": "Where the outcome is to be published: amq.rabbitmq.reply-to, or a queue"
            " of yours named reply.USER.ANYTHING.",
        },
        "correlation_id": {
            "type": "string",
            "pattern": "^[ -~]{1,255}$",
            "description": "What the outcome carries, too; without it there is none.",
        },
    },
}


def document() -> Json:
    """The whole of it."""
    names = [f"{kind}.v{version}" for kind in KINDS for version in VERSIONS]
    messages = {name: _message(name) for name in names} | {REPLY_TYPE: _reply()}
    models = [model for models in KINDS.values() for model in models]
    schemas = schemas_of(models, SCHEMAS) | schemas_of([Reply], SCHEMAS, "serialization")
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Autorenew for upstream", "version": CONTRACT, "description": _INFO},
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker.example.com:5671",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ. Ask whoever runs it for its address, and for a user"
                " upstream-NAME.",
                "security": [{"type": "userPassword"}],
            }
        }
        | events.servers(),
        "channels": {
            "intake": {
                "address": INTAKE_EXCHANGE,
                "title": "Documents of all upstreams",
                "description": "A fanout exchange: the routing key does not matter.",
                "servers": [{"$ref": "#/servers/broker"}],
                "messages": _references("#/components/messages/", names),
                "bindings": _exchange(INTAKE_EXCHANGE, "fanout"),
            },
            "intakeOfUpstream": {
                "address": f"{INTAKE_EXCHANGE}.{{upstream}}",
                "title": "Documents of an upstream that does not wait for others",
                "description": "Where the operators have given it an exchange of its own.",
                "servers": [{"$ref": "#/servers/broker"}],
                "parameters": {
                    "upstream": {
                        "description": "Its AMQP user.",
                        "examples": ["upstream-shop"],
                    }
                },
                "messages": _references("#/components/messages/", names),
                "bindings": _exchange(f"{INTAKE_EXCHANGE}.{{upstream}}", "fanout"),
            },
            "reply": {
                "address": None,
                "title": "Outcomes",
                "description": "The queue that reply_to of a document names.",
                "servers": [{"$ref": "#/servers/broker"}],
                "messages": _references("#/components/messages/", [REPLY_TYPE]),
            },
        }
        | events.channels(),
        "operations": {
            f"take{channel[0].upper()}{channel[1:]}": {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": "Autorenew takes documents, each once.",
                "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
                "bindings": {"amqp": {"ack": True, "bindingVersion": _BINDING}},
                "reply": {
                    "address": {"location": "$message.header#/reply_to"},
                    "channel": {"$ref": "#/channels/reply"},
                    "messages": [{"$ref": f"#/channels/reply/messages/{REPLY_TYPE}"}],
                },
            }
            for channel in ("intake", "intakeOfUpstream")
        }
        | events.operations(),
        "components": {
            "messages": messages | events.messages(),
            "schemas": dict(sorted((schemas | events.schemas(SCHEMAS)).items())),
        },
    }


def _exchange(name: str, kind: str) -> Json:
    return {
        "amqp": {
            "is": "routingKey",
            "exchange": {"name": name, "type": kind, "durable": True, "autoDelete": False},
            "bindingVersion": _BINDING,
        }
    }


def _references(where: str, names: list[str]) -> Json:
    return {name: {"$ref": f"{where}{name}"} for name in names}


def _message(name: str) -> Json:
    kind = name.partition(".v")[0]
    return {
        "name": name,
        "title": TITLES[kind],
        "contentType": "application/json",
        "headers": _PROPERTIES,
        "correlationId": {"location": "$message.header#/correlation_id"},
        "payload": message_schema(kind, SCHEMAS),
        "bindings": {"amqp": {"messageType": name, "bindingVersion": _BINDING}},
        "examples": [
            {
                "name": example,
                "headers": {"user_id": "upstream-shop", "type": name},
                "payload": payload,
            }
            for example, payload in EXAMPLES[kind].items()
        ],
    }


def _reply() -> Json:
    properties: dict[str, Any] = {
        "type": {"type": "string", "const": REPLY_TYPE},
        "correlation_id": {"type": "string", "description": "As in the document."},
    }
    return {
        "name": REPLY_TYPE,
        "title": "The outcome of one document",
        "contentType": "application/json",
        "headers": {"type": "object", "properties": properties},
        "correlationId": {"location": "$message.header#/correlation_id"},
        "payload": {"$ref": f"{SCHEMAS}{Reply.__name__}"},
        "bindings": {"amqp": {"messageType": REPLY_TYPE, "bindingVersion": _BINDING}},
        "examples": [{"name": example, "payload": payload} for example, payload in REPLIES.items()],
    }
