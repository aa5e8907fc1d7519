import time, uuid
from datetime import timedelta
from sqlalchemy import text
from tests import given
from tests.given import line
from tests.integration.test_renewals import declines, accepts, publish, DECLINE

def pause(world, lane): world.database.run("INSERT INTO lane_pauses (lane, reason) VALUES (:l, 'x')", l=lane)
def spin(world, seconds=4):
    end, found = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        n = world.fleet.scheduler.round(); found += n
        if n: world.fleet.wait_until_idle(5)
    return found

def test_hot_loop(life):
    world = life(silence_seconds=86_400 * 90.0)
    first = world.order(line("site", quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    pause(world, "renewals")
    a, b = world.services()
    world.click("stop", a)
    world.fleet.leap(first.expires_at - timedelta(days=0.9) - world.fleet.clock.now())
    print("RESULT", spin(world), "handed over in 4 s")

def test_two_expiries(life):
    world = life(silence_seconds=86_400 * 90.0)
    first = world.order()
    world.pass_days(10)
    world.send(given.order("k-2"))
    a, b = sorted(world.services(), key=lambda s: s.expires_at)
    world.pass_until(a, -8)
    declines(world)
    print(world.renew(a, b))
    accepts(world)
    print(world.database.all("select id, next_step, next_step_at, next_subject from services"), world.database.all("select service_id, period_number, request_id, asked_at, declines, last_declined_at, requests from renewals"))
    for k in range(12):
        world.fleet.leap(timedelta(days=0.5))
        n = spin(world, 1.5)
        print(k, world.fleet.clock.now() - a.expires_at, n, [(s.next_step, s.next_step_at, s.paid_periods) for s in world.services()])
        if n > 20: break
    print("RESULT", world.database.all("select name, count(*) from events group by 1 order by 2 desc"), world.database.all("select service_id, period_number, request_id, asked_at, declines, last_declined_at, requests from renewals"))
