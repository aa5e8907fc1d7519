"""Corruptions of services, their operations and their paid periods."""

from tests.integration.corruptions.subjects import (
    service,
)

SERVICES = (
    (
        "a service that is there has no anchor",
        f"UPDATE services SET anchor = NULL WHERE id = {service('nils')}",
        "services.shape",
    ),
    (
        "an unpaid service was paid",
        f"UPDATE services SET paid_periods = 1 WHERE id = {service('rosa')}",
        "services.shape",
    ),
    (
        "a cancelled service should be there",
        "UPDATE services SET desired = 'active' WHERE customer_id = 'mary'",
        "services.shape",
    ),
    (
        "a service has no resource",
        f"UPDATE services SET resource_id = NULL WHERE id = {service('nils')}",
        "services.shape",
    ),
    (
        "an ordered service was imported",
        f"UPDATE services SET imported_periods = 1 WHERE id = {service('nils')}",
        "services.shape",
    ),
    (
        "an operator's reason is forgotten",
        f"UPDATE services SET held_because = NULL WHERE id = {service('hans')}",
        "services.shape",
    ),
    (
        "an active service is suspended since yesterday",
        f"UPDATE services SET suspended_at = now() WHERE id = {service('nils')}",
        "services.shape",
    ),
    (
        "a service forgets its order's line",
        f"UPDATE services SET line = NULL WHERE id = {service('nils')}",
        "services.shape",
    ),
    (
        "an active service should be suspended",
        f"UPDATE services SET desired = 'suspended' WHERE id = {service('nils')}",
        "services.converged",
    ),
    (
        "an active service is being delivered",
        f"UPDATE services SET state = 'delivering' WHERE id = {service('nils')}",
        "services.converged",
    ),
    (
        "a resource is paid until last year",
        f"UPDATE services SET confirmed_until = confirmed_until - 366 WHERE id = {service('nils')}",
        "services.converged",
    ),
    (
        "what waits for its delivery has no task",
        "DELETE FROM tasks WHERE name = 'converge'",
        "services.converged",
    ),
    (
        "nothing was confirmed of an active service",
        f"UPDATE services SET confirmed = 'absent' WHERE id = {service('nils')}",
        "services.confirmed",
    ),
    (
        "a terminated service is active",
        f"UPDATE services SET state = 'active' WHERE id = {service('judy')}",
        "services.confirmed",
    ),
    (
        "a suspension was never confirmed by an operation",
        "UPDATE operations SET state = 'failed' WHERE kind = 'suspend'",
        "services.operations",
    ),
    ("operations are deleted", "DELETE FROM operations", "services.operations"),
    (
        "a service is suspended everywhere but in its operations",
        "UPDATE services SET state = 'suspended', desired = 'suspended', confirmed = 'suspended'"
        f" WHERE id = {service('nils')}",
        "services.operations",
    ),
    (
        "an operation is of a later generation",
        f"UPDATE operations SET generation = 50 WHERE service_id = {service('nils')}",
        "services.calls",
    ),
    (
        "a service's generation goes back",
        f"UPDATE services SET generation = 0 WHERE id = {service('ivan')}",
        "services.shape",
    ),
    (
        "a suspended service is of its first generation",
        f"UPDATE services SET generation = 1 WHERE id = {service('ivan')}",
        "services.calls",
    ),
    (
        "an operation paid beyond what was paid",
        f"UPDATE operations SET paid_until = paid_until + 366 WHERE service_id = {service('ivan')}",
        "services.calls",
    ),
    (
        "an operation that was done never ended",
        f"UPDATE operations SET ended_at = NULL WHERE service_id = {service('nils')}",
        "services.calls",
    ),
    (
        "an operation is of a service that is not there",
        "UPDATE operations SET service_id = gen_random_uuid()"
        f" WHERE service_id = {service('nils')}",
        "services.calls",
    ),
    (
        "a service is at another driver",
        f"UPDATE services SET driver = 'cloud' WHERE id = {service('nils')}",
        "services.plan",
    ),
    (
        "a service is in another universe",
        f"UPDATE services SET universe = 'cloud' WHERE id = {service('nils')}",
        "services.plan",
    ),
    (
        "a service is of another brand",
        f"UPDATE services SET brand = 'kimsufi' WHERE id = {service('nils')}",
        "services.plan",
    ),
    (
        "a service is under an older contract",
        f"UPDATE services SET agreed_version = 1 WHERE id = {service('nils')}",
        "services.agreed",
    ),
    (
        "a service is under no contract",
        f"UPDATE services SET agreed_version = NULL WHERE id = {service('nils')}",
        "services.agreed",
    ),
    ("agreements are deleted", "DELETE FROM agreements", "services.agreed"),
    (
        "an imported service is under a contract that nobody accepted",
        "UPDATE services SET agreed_version = 1 WHERE resource_id = 'old-active'",
        "services.agreed",
    ),
    (
        "a suspended service is active, everywhere but in its history",
        f"""
        UPDATE services SET state = 'active', desired = 'active', confirmed = 'active',
            suspended_at = NULL WHERE id = {service("ivan")};
        DELETE FROM operations WHERE kind = 'suspend' AND service_id = {service("ivan")}""",
        "services.history",
    ),
    (
        "a service's history is deleted",
        f"DELETE FROM events WHERE subject = {service('nils')}",
        "services.history",
    ),
    (
        "a terminated service's end is deleted from its history",
        "DELETE FROM events WHERE name = 'service.terminated'",
        "services.history",
    ),
    (
        "a cancelled service's end is deleted from its history",
        "DELETE FROM events WHERE name = 'service.cancelled'",
        "services.history",
    ),
    (
        "a service renews by itself",
        f"UPDATE services SET mode = 'automatic' WHERE id = {service('ivan')}",
        "services.mode",
    ),
    (
        "a service does not renew by itself",
        f"UPDATE services SET mode = 'manual' WHERE id = {service('nils')}",
        "services.mode",
    ),
    ("nobody changed a mode", "UPDATE services SET mode_changed_at = NULL", "services.mode"),
    (
        "the history forgets changes of modes",
        "DELETE FROM events WHERE name = 'mode.changed'",
        "services.mode",
    ),
    (
        "the history forgets why services ended",
        "DELETE FROM events WHERE name = 'service.ending'",
        "services.ending",
    ),
    (
        "a service ends without a reason",
        f"UPDATE services SET desired = 'absent' WHERE id = {service('nils')}",
        "services.ending",
    ),
    (
        "an operator's suspension has another reason",
        f"UPDATE services SET held_because = 'unpaid' WHERE id = {service('hans')}",
        "services.held",
    ),
    (
        "an operator's suspension is forgotten",
        f"UPDATE services SET held_at = NULL, held_because = NULL WHERE id = {service('hans')}",
        "services.held",
    ),
    (
        "a service is held by nobody",
        "UPDATE services SET held_at = now(), held_because = 'x',"
        f" desired = 'suspended' WHERE id = {service('nils')}",
        "services.held",
    ),
    (
        "what an operator suspended should be active",
        f"UPDATE services SET desired = 'active' WHERE id = {service('hans')}",
        "services.stay",
    ),
    (
        "nobody knows since when a service is suspended",
        f"UPDATE services SET suspended_at = NULL WHERE id = {service('ivan')}",
        "services.unpaid",
    ),
    (
        "the history forgets a suspension",
        "DELETE FROM events WHERE name = 'service.suspending'",
        "services.unpaid",
    ),
    (
        "a customer was not told of a suspension",
        f"DELETE FROM notices WHERE service_id = {service('ivan')}",
        "services.told",
    ),
    (
        "a service has a paid period more",
        f"UPDATE services SET paid_periods = paid_periods + 1 WHERE id = {service('ivan')}",
        "periods.paid",
    ),
    (
        "a service has a paid period less",
        f"UPDATE services SET paid_periods = paid_periods - 1 WHERE id = {service('tina')}",
        "periods.paid",
    ),
    (
        "an imported service was paid by more periods before",
        "UPDATE services SET imported_periods = imported_periods + 1, paid_periods ="
        " paid_periods + 2 WHERE resource_id = 'old-active'",
        "periods.paid",
    ),
    (
        "another period was paid",
        f"UPDATE request_lines SET period_number = 4 WHERE service_id = {service('ivan')};"
        f" UPDATE invoice_lines SET period_number = 4 WHERE service_id = {service('ivan')}",
        "periods.paid",
    ),
    (
        "a service expires an hour later",
        "UPDATE services SET expires_at ="
        f" expires_at + interval '1 hour' WHERE id = {service('nils')}",
        "periods.expiry",
    ),
    (
        "a service expires in 2099",
        f"UPDATE services SET expires_at = '2099-01-01' WHERE id = {service('nils')}",
        "periods.expiry",
    ),
    (
        "a service began on another day",
        f"UPDATE services SET anchor = anchor + 1 WHERE id = {service('nils')}",
        "periods.expiry",
    ),
    (
        "a service began and expires on another day",
        "UPDATE services SET anchor = anchor + 2,"
        f" expires_at = expires_at + interval '2 days' WHERE id = {service('nils')}",
        "periods.anchor",
    ),
    (
        "the history forgets a renewal",
        "DELETE FROM events WHERE name = 'service.renewed'",
        "periods.history",
    ),
    (
        "the history tells of a renewal more",
        "INSERT INTO events (subject, name, detail)"
        f" SELECT {service('ivan')}, 'service.renewed', '{{\"periods\": 1}}'",
        "periods.history",
    ),
    (
        "the history forgets that an order was paid",
        "DELETE FROM events WHERE name = 'order.paid'",
        "periods.history",
    ),
    (
        "the history tells of another delivery",
        "UPDATE events SET detail = detail ||"
        """ '{"paid_until": "2030-01-01"}' WHERE name = 'service.delivered'""",
        "periods.anchor",
    ),
)
