"""Corruptions of tasks and batches, e-mails and notices."""

from tests.integration.corruptions.subjects import (
    CURRENT,
    EMAIL,
    REFUSED,
    first_request,
    open_request,
    order_of,
    service,
)

LEDGER = (
    ("lanes go on that were paused", "DELETE FROM lane_pauses", "ledger.pauses"),
    (
        "a lane is paused, and nobody has done it",
        "INSERT INTO lane_pauses (lane, reason) VALUES ('mail', 'x')",
        "ledger.pauses",
    ),
    (
        "a lane's pause is another one than was told",
        """UPDATE lane_pauses SET lane = 'mail';
           INSERT INTO lane_pauses (lane, reason) VALUES ('orders', 'x')""",
        "ledger.pauses",
    ),
    (
        "the history forgets that a lane was paused",
        "DELETE FROM events WHERE name = 'lane.paused'",
        "ledger.pauses",
    ),
    (
        "a lane is told to go on that is paused",
        """INSERT INTO events (subject, name, detail)
           SELECT subject, 'lane.resumed', detail FROM events WHERE name = 'lane.paused'""",
        "ledger.pauses",
    ),
    ("all tasks are deleted", "DELETE FROM tasks", "ledger.rest"),
    ("an accepted order has no task", "DELETE FROM tasks WHERE name = 'price'", "ledger.rest"),
    (
        "a delivered order is accepted again",
        f"UPDATE orders SET state = 'accepted' WHERE id = {order_of('nils')}",
        "ledger.rest",
    ),
    (
        "a delivered order is priced again",
        f"UPDATE orders SET state = 'priced' WHERE id = {order_of('nils')}",
        "ledger.rest",
    ),
    ("an order's request has no task", "DELETE FROM tasks WHERE name = 'charge'", "ledger.rest"),
    (
        "a charge in doubt is not asked about",
        f"DELETE FROM tasks WHERE name = 'charge' AND subject = {open_request('pete')}",
        "ledger.begun",
    ),
    (
        "a charge has begun for ever",
        f"UPDATE charges SET state = 'started' WHERE request_id = {first_request('nils')}",
        "ledger.begun",
    ),
    ("a refund is in doubt for ever", "UPDATE refunds SET state = 'unknown'", "ledger.begun"),
    (
        "an operation is pending for ever",
        f"UPDATE operations SET state = 'pending' WHERE service_id = {service('nils')}",
        "ledger.begun",
    ),
    ("a task's batch is deleted", "DELETE FROM batches", "ledger.batched"),
    (
        "a batched task is in none",
        "UPDATE tasks SET batched = false WHERE batched",
        "ledger.batched",
    ),
    (
        "a task is in two batches",
        "INSERT INTO batches (id, queue, name, lane, subjects, size,"
        " run_at) SELECT gen_random_uuid(), queue, name, lane, subjects, size, run_at FROM batches",
        "ledger.batched",
    ),
    ("a batch is on another queue", "UPDATE batches SET queue = 'nowhere'", "ledger.batches"),
    ("a batch is in another lane", "UPDATE batches SET lane = 'nowhere'", "ledger.batches"),
    ("a batch counts more tasks than it holds", "UPDATE batches SET size = 4000", "ledger.batches"),
    (
        "a batch holds a task that there is not",
        "UPDATE batches SET subjects = subjects || gen_random_uuid(), size = size + 1",
        "ledger.batches",
    ),
    (
        "a task and its batch are on a queue that nobody reads",
        "UPDATE tasks SET queue = 'nowhere'; UPDATE batches SET queue = 'nowhere'",
        "ledger.places",
    ),
    (
        "a task and its batch are in another lane",
        "UPDATE tasks SET lane = 'mail'; UPDATE batches SET lane = 'mail'",
        "ledger.places",
    ),
    (
        "a task is of a step that there is not",
        "UPDATE tasks SET name = 'ponder' WHERE name = 'price'",
        "ledger.places",
    ),
    (
        "a task converges on another queue",
        "UPDATE tasks SET queue = 'web' WHERE name = 'converge'",
        "ledger.places",
    ),
    (
        "a task converges in another driver's lane",
        "UPDATE tasks SET lane = 'driver:web' WHERE name = 'converge'",
        "ledger.places",
    ),
    (
        "a task is about nothing",
        "UPDATE tasks SET subject = gen_random_uuid() WHERE name = 'remind'",
        "ledger.subjects",
    ),
    (
        "all tasks are leased until 2099",
        "UPDATE batches SET state = 'leased', until = '2099-01-01'",
        "ledger.times",
    ),
    (
        "all tasks are dispatched until 2099",
        "UPDATE batches SET state = 'dispatched', until = '2099-01-01'",
        "ledger.times",
    ),
    ("all batches are ready in 2099", "UPDATE batches SET run_at = '2099-01-01'", "ledger.times"),
    (
        "a batch is ready, and not dispatched before 2099",
        "UPDATE batches SET until = '2099-01-01'",
        "ledger.times",
    ),
    (
        "a task is delayed until 2099",
        "UPDATE tasks SET state = 'ready', run_at = '2099-01-01' WHERE name = 'remind'",
        "ledger.times",
    ),
    ("a task is older than relays look", "UPDATE tasks SET run_at = '1970-01-01'", "ledger.times"),
    (
        "a batch is older than relays look",
        "UPDATE batches SET run_at = '1970-01-01'",
        "ledger.times",
    ),
    (
        "a failed task says no reason",
        "UPDATE tasks SET reason = NULL WHERE state = 'failed'",
        "ledger.failed",
    ),
    (
        "a task was started too often",
        "UPDATE tasks SET starts = 9 WHERE state = 'ready'",
        "ledger.failed",
    ),
    ("relays do not know the way of a task", "DELETE FROM routes", "ledger.routes"),
    (
        "nobody may ask for a step",
        "DELETE FROM enqueuers WHERE step = 'suspend'",
        "ledger.enqueuers",
    ),
    (
        "nobody may have a universe converged",
        "DELETE FROM enqueuers WHERE queue = 'telecom'",
        "ledger.enqueuers",
    ),
)

MAILS = (
    ("a sent e-mail says nothing", f"DELETE FROM notices WHERE email_id = {EMAIL}", "mails.said"),
    ("all reminders' tasks are dropped", "DELETE FROM tasks WHERE name = 'remind'", "mails.sent"),
    (
        "an e-mail was not sent",
        f"UPDATE emails SET sent_at = NULL WHERE id = {CURRENT}",
        "mails.sent",
    ),
    (
        "an e-mail was never begun",
        f"UPDATE emails SET sent_at = NULL, begun_at = NULL WHERE id = {CURRENT}",
        "mails.sent",
    ),
    (
        "an e-mail was sent before it was begun",
        f"UPDATE emails SET sent_at = begun_at - interval '1 hour' WHERE id = {EMAIL}",
        "mails.facts",
    ),
    (
        "a sent e-mail was never begun",
        f"UPDATE emails SET begun_at = NULL WHERE id = {EMAIL}",
        "mails.facts",
    ),
    (
        "an e-mail is of another day",
        f"UPDATE emails SET day = '2099-01-01' WHERE id = {EMAIL}",
        "mails.facts",
    ),
    (
        "an e-mail that was not refused is given up",
        f"UPDATE emails SET given_up_at = now() WHERE id = {EMAIL}",
        "mails.facts",
    ),
    (
        "an e-mail is to another customer",
        f"UPDATE emails SET customer_id = 'bob' WHERE id = {EMAIL}",
        "mails.customer",
    ),
    (
        "a notice is about another customer's service",
        f"UPDATE notices SET service_id = {service('nils')} WHERE email_id = {EMAIL}",
        "mails.customer",
    ),
    (
        "an e-mail is to nobody",
        f"UPDATE emails SET customer_id = 'nobody' WHERE id = {EMAIL}",
        "mails.customer",
    ),
    (
        "a notice is of another expiry",
        "UPDATE notices SET expires_at ="
        f" expires_at + interval '9 days' WHERE service_id = {service('tina')}",
        "mails.expiry",
    ),
    (
        "the history forgets that e-mails were sent",
        "DELETE FROM events WHERE name = 'notice.sent'",
        "mails.history",
    ),
    (
        "the history forgets that e-mails were refused",
        "DELETE FROM events WHERE name = 'notice.refused'",
        "mails.history",
    ),
    (
        "a notice that was sent is deleted",
        f"DELETE FROM notices WHERE kind = 'before-15' AND service_id = {service('kurt')}",
        "mails.history",
    ),
    (
        "a notice is of another kind",
        "UPDATE notices SET kind = 'before-14' WHERE kind = 'before-15'"
        f" AND service_id = {service('kurt')}",
        "mails.history",
    ),
    (
        "a refused e-mail was sent",
        f"UPDATE emails SET sent_at = refused_at WHERE id = {REFUSED}",
        "mails.told",
    ),
    (
        "a refused e-mail was never refused",
        f"UPDATE emails SET refused_at = NULL WHERE id = {REFUSED}",
        "mails.history",
    ),
)
