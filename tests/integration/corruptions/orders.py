"""Corruptions of orders and payment requests."""

from tests.integration.corruptions.subjects import (
    SAM,
    first_request,
    open_request,
    order_of,
    service,
    swapped,
)

ORDERS = (
    (
        "an order has another key",
        "UPDATE orders SET key = 'other' WHERE key = 'nils'",
        "orders.ids",
    ),
    (
        "an order comes from another upstream, and its history says so",
        "UPDATE orders SET upstream = 'partner' WHERE key = 'nils';"
        f""" UPDATE events SET detail = '{{"upstream": "partner"}}'
        WHERE name = 'order.accepted' AND subject = {order_of("nils")}""",
        "orders.ids",
    ),
    (
        "an order's request has another name",
        f"UPDATE payment_requests SET id = gen_random_uuid() WHERE id = {first_request('nils')}",
        "orders.ids",
    ),
    (
        "two units change places",
        """
        UPDATE services SET unit = unit + 10 WHERE customer_id = 'carl';
        UPDATE services SET unit = 13 - unit WHERE customer_id = 'carl'""",
        "orders.ids",
    ),
    (
        "an accepted order loses its lines",
        f"DELETE FROM order_lines WHERE order_id = {SAM}",
        "orders.complete",
    ),
    (
        "an accepted order is of a plan that there is not",
        f"UPDATE order_lines SET plan = 'gone' WHERE order_id = {SAM}",
        "orders.complete",
    ),
    (
        "an accepted order is of no unit",
        f"UPDATE order_lines SET quantity = 0 WHERE order_id = {SAM}",
        "orders.complete",
    ),
    (
        "an accepted order is in another currency",
        f"UPDATE order_lines SET currency = 'USD' WHERE order_id = {SAM}",
        "orders.complete",
    ),
    (
        "a line is of no order",
        f"UPDATE order_lines SET order_id = gen_random_uuid() WHERE order_id = {SAM}",
        "orders.complete",
    ),
    (
        "who ordered accepted no contract",
        "DELETE FROM agreements WHERE customer_id = 'sam'",
        "orders.complete",
    ),
    (
        "a declined order has no reason",
        f"UPDATE orders SET reason = NULL WHERE id = {order_of('poor')}",
        "orders.request",
    ),
    (
        "a service is deleted",
        f"DELETE FROM services WHERE id = {service('nils')}",
        "orders.quantity",
    ),
    (
        "a quantity is raised",
        "UPDATE order_lines SET quantity = 3 WHERE plan = 'server'",
        "orders.quantity",
    ),
    (
        "an order's lines are deleted",
        f"DELETE FROM order_lines WHERE order_id = {order_of('nils')}",
        "orders.quantity",
    ),
    (
        "a unit gets the number of one that there is not",
        f"UPDATE services SET unit = 9 WHERE id = {service('nils')}",
        "orders.quantity",
    ),
    (
        "a service moves to another line",
        f"UPDATE services SET line = 2 WHERE id = {service('nils')}",
        "orders.quantity",
    ),
    (
        "an order that waits is delivered",
        f"UPDATE orders SET state = 'delivered', ended_at = now() WHERE id = {order_of('frank')}",
        "orders.state",
    ),
    (
        "a delivered order is paid again",
        f"UPDATE orders SET state = 'paid' WHERE id = {order_of('nils')}",
        "orders.state",
    ),
    (
        "a partly delivered order is delivered",
        "UPDATE orders SET state = 'delivered' WHERE state = 'partly_delivered'",
        "orders.state",
    ),
    (
        "a cancelled order is delivered",
        "UPDATE orders SET state = 'delivered' WHERE state = 'cancelled'",
        "orders.state",
    ),
    (
        "a delivered order is refused",
        f"UPDATE orders SET state = 'refused' WHERE id = {order_of('nils')}",
        "orders.state",
    ),
    (
        "a service is of another plan",
        f"UPDATE services SET plan = 'server' WHERE id = {service('nils')}",
        "orders.lines",
    ),
    (
        "a service lasts for another period",
        f"UPDATE services SET period_months = 1 WHERE id = {service('nils')}",
        "orders.lines",
    ),
    (
        "a service has another configuration",
        f"""UPDATE services SET configuration = '{{"domain": "x"}}' WHERE id = {service("nils")}""",
        "orders.lines",
    ),
    (
        "an order line is of another plan",
        f"UPDATE order_lines SET plan = 'free' WHERE order_id = {order_of('nils')}",
        "orders.lines",
    ),
    (
        "an order's payment request is voided",
        f"UPDATE payment_requests SET state = 'voided' WHERE id = {first_request('nils')}",
        "orders.request",
    ),
    (
        "an order's payment request is deleted",
        f"DELETE FROM payment_requests WHERE id = {first_request('rosa')}",
        "orders.request",
    ),
    (
        "an order that waits for its payment is accepted again",
        f"UPDATE orders SET state = 'accepted' WHERE id = {order_of('rosa')}",
        "orders.request",
    ),
    (
        "a declined order was given up",
        f"UPDATE payment_requests SET state = 'open' WHERE id = {first_request('poor')}",
        "orders.request",
    ),
    (
        "a refused order has no problems",
        "UPDATE orders SET problems = '[]' WHERE key = 'wrong'",
        "orders.facts",
    ),
    (
        "an accepted order has problems",
        f"""UPDATE orders SET problems = '[{{"code": "x"}}]' WHERE id = {SAM}""",
        "orders.facts",
    ),
    (
        "an order has not ended",
        f"UPDATE orders SET ended_at = NULL WHERE id = {order_of('nils')}",
        "orders.facts",
    ),
    (
        "an order that waits has ended",
        f"UPDATE orders SET ended_at = now() WHERE id = {SAM}",
        "orders.facts",
    ),
    (
        "an order without a country",
        f"UPDATE orders SET country = NULL WHERE id = {order_of('nils')}",
        "orders.facts",
    ),
    (
        "an order's body is forgotten",
        f"UPDATE orders SET body_hash = '' WHERE id = {order_of('nils')}",
        "orders.facts",
    ),
    (
        "an order is another customer's",
        f"UPDATE orders SET customer_id = 'bob' WHERE id = {order_of('nils')}",
        "orders.customer",
    ),
    (
        "an order is of another subsidiary",
        f"UPDATE orders SET subsidiary = 'IE' WHERE id = {order_of('nils')}",
        "orders.customer",
    ),
    (
        "an order is to another country",
        f"UPDATE orders SET country = 'DE' WHERE id = {order_of('nils')}",
        "orders.customer",
    ),
    (
        "a service is another customer's",
        f"UPDATE services SET customer_id = 'bob' WHERE id = {service('nils')}",
        "orders.customer",
    ),
    (
        "a service is of another subsidiary",
        f"UPDATE services SET subsidiary = 'IE' WHERE id = {service('nils')}",
        "orders.customer",
    ),
    (
        "an imported service is of another subsidiary",
        "UPDATE services SET subsidiary = 'IE' WHERE resource_id = 'old-active'",
        "orders.customer",
    ),
    (
        "a payment request is another customer's",
        f"UPDATE payment_requests SET customer_id = 'bob' WHERE id = {first_request('nils')}",
        "orders.customer",
    ),
    (
        "a renewal's request is another customer's",
        f"UPDATE payment_requests SET customer_id = 'bob' WHERE id = {open_request('kurt')}",
        "orders.customer",
    ),
    (
        "lines of two requests are swapped",
        swapped("request_lines", "nils", "ivan"),
        "orders.customer",
    ),
    (
        "a payment request has no VAT number",
        f"UPDATE payment_requests SET vat_number = NULL WHERE id = {first_request('dora')}",
        "orders.customer",
    ),
    (
        "an order line cost less",
        f"UPDATE order_lines SET renewal = 1 WHERE order_id = {order_of('nils')}",
        "orders.price",
    ),
    (
        "an order line's setup was free",
        f"UPDATE order_lines SET setup = 0 WHERE order_id = {order_of('nils')}",
        "orders.price",
    ),
    (
        "an order line was in another currency",
        f"UPDATE order_lines SET currency = 'PLN' WHERE order_id = {order_of('nils')}",
        "orders.price",
    ),
    (
        "an unpaid order asks for less",
        f"UPDATE request_lines SET net = 1 WHERE request_id = {first_request('rosa')}",
        "orders.price",
    ),
    (
        "an unpaid order asks for another period",
        f"UPDATE request_lines SET period_number = 5 WHERE request_id = {first_request('rosa')}",
        "orders.price",
    ),
    (
        "a setup is not asked for",
        "DELETE FROM request_lines WHERE period_number = 0"
        f" AND request_id = {first_request('nils')}",
        "orders.price",
    ),
)

REQUESTS = (
    (
        "a request's net is another",
        f"UPDATE payment_requests SET net = net + 1 WHERE id = {open_request('kurt')}",
        "requests.sum",
    ),
    (
        "a request's tax is another",
        f"UPDATE payment_requests SET tax = tax - 1 WHERE id = {open_request('kurt')}",
        "requests.sum",
    ),
    (
        "a request's total is another",
        f"UPDATE payment_requests SET total = total - 1 WHERE id = {open_request('kurt')}",
        "requests.sum",
    ),
    (
        "a voided request's total is another",
        f"UPDATE payment_requests SET total = total - 1 WHERE id = {first_request('poor')}",
        "requests.sum",
    ),
    (
        "a request's line is deleted",
        f"DELETE FROM request_lines WHERE request_id = {open_request('kurt')}",
        "requests.sum",
    ),
    (
        "a request's lines are numbered from 2 on",
        f"UPDATE request_lines SET number = number + 1 WHERE request_id = {open_request('kurt')}",
        "requests.sum",
    ),
    (
        "a cent of tax moves between lines",
        "UPDATE request_lines SET tax = tax"
        " + CASE number WHEN 1 THEN 1 WHEN 2 THEN -1 ELSE 0 END"
        f" WHERE request_id = {first_request('piotr')}",
        "requests.tax",
    ),
    (
        "a request's lines have two rates",
        "UPDATE request_lines SET tax_rate = 5 WHERE number = 2"
        f" AND request_id = {first_request('piotr')}",
        "requests.tax",
    ),
    (
        "a request, with all its sums, is of another rate",
        f"""
        UPDATE request_lines SET tax_rate = 10, tax = round(net * 0.1)
        WHERE request_id = {open_request("kurt")};
        UPDATE payment_requests SET tax = round(net * 0.1), total = net + round(net * 0.1)
        WHERE id = {open_request("kurt")}""",
        "requests.rate",
    ),
    (
        "a paid request is of no tax",
        "UPDATE request_lines SET tax_rate = 0, tax = 0"
        f" WHERE request_id = {first_request('nils')}",
        "requests.rate",
    ),
    (
        "a request says of its tax what is not so",
        f"UPDATE payment_requests SET tax_mention = 'Reverse charge'"
        f" WHERE id = {open_request('kurt')}",
        "requests.rate",
    ),
    (
        "a voided request says of its tax what is not so",
        f"UPDATE payment_requests SET tax_mention = 'x' WHERE id = {first_request('poor')}",
        "requests.rate",
    ),
    (
        "a request is to a country that nothing is sold to",
        f"UPDATE payment_requests SET country = 'XX' WHERE id = {open_request('kurt')}",
        "requests.rate",
    ),
    (
        "a request is to a VAT number that is none",
        f"UPDATE payment_requests SET vat_number = 'DE1' WHERE id = {first_request('dora')}",
        "requests.rate",
    ),
    (
        "a line says that it is a setup",
        f"UPDATE request_lines SET description = 'Site, setup'"
        f" WHERE request_id = {open_request('kurt')}",
        "requests.words",
    ),
    (
        "a line says another period",
        "UPDATE request_lines SET description = 'Site, P12M'"
        f" WHERE request_id = {open_request('kurt')}",
        "requests.words",
    ),
    (
        "an open request is closed",
        f"UPDATE payment_requests SET closed_at = now() WHERE id = {open_request('kurt')}",
        "requests.state",
    ),
    (
        "a paid request was never closed",
        f"UPDATE payment_requests SET closed_at = NULL WHERE id = {first_request('nils')}",
        "requests.state",
    ),
    (
        "a request was closed before it was made",
        "UPDATE payment_requests SET closed_at = created_at - interval '1 day'"
        f" WHERE id = {first_request('nils')}",
        "requests.state",
    ),
    (
        "a paid line is free",
        f"UPDATE request_lines SET released_at = now() WHERE request_id = {first_request('nils')}",
        "requests.state",
    ),
    (
        "a voided line is not free",
        f"UPDATE request_lines SET released_at = NULL WHERE request_id = {first_request('poor')}",
        "requests.state",
    ),
    (
        "a line was freed on another day",
        "UPDATE request_lines SET released_at = released_at - interval '3 days'"
        " WHERE released_at IS NOT NULL",
        "requests.state",
    ),
    (
        "an unpaid line is refused",
        f"UPDATE request_lines SET refused_at = now() WHERE request_id = {open_request('kurt')}",
        "requests.state",
    ),
    (
        "a renewal's request is to another country",
        f"UPDATE payment_requests SET country = 'DE' WHERE id = {open_request('kurt')}",
        "customers.home",
    ),
    (
        "a request is in a currency of nobody",
        f"UPDATE payment_requests SET currency = 'USD' WHERE id = {open_request('kurt')}",
        "requests.currency",
    ),
)
