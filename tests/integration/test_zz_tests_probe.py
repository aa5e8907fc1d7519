from tests.integration.test_reminders import *
def test_probe(life):
    world = life()
    first = world.order(line("site"), line("vm"))
    world.send(given.order("k-2", customer="bob"))
    world.pass_days(35)  # into the second period
    declines(world)

    world.pass_until(first, 45)
    accepts(world)
    world.renew()
    world.pass_days(40)
    for k,v in told(world).items():
        if v>1: print(k,v)
    for r in world.database.all("SELECT e.at,e.name,e.subject,e.detail FROM events e WHERE name in ('notice.sent', 'service.renewed','charge.declined','service.suspending') order by id"): print(*r)
    for r in world.database.all("SELECT * FROM notices n join emails e on e.id=n.email_id order by day,1,2,3"): print(r.customer_id, r.day, r.service_id, r.expires_at, r.kind)
    assert 0
