"""Publish the orders of an NDJSON file over AMQP, as an upstream system would.

    .venv/bin/python docs/examples/publish.py amqp://upstream:PASSWORD@HOST:5672/%2F ORDERS.ndjson

Each document is confirmed by the broker before the next one goes out. Publishing the file again
changes nothing: an order is taken once per (user, key).
"""

import sys
from pathlib import Path

import pika


def main(url: str, orders: Path) -> None:
    parameters = pika.URLParameters(url)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()  # now basic_publish raises unless the broker has the document
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,  # kept on disk
        user_id=parameters.credentials.username,  # checked by the broker; whose keys these are
    )
    documents = [line for line in orders.read_bytes().splitlines() if line.strip()]
    for document in documents:
        channel.basic_publish("intake", "intake", document, properties, mandatory=True)
    connection.close()
    print(f"{len(documents)} documents confirmed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
