from ipaddress import ip_network

import pytest

from workers.events.addresses import Addresses

INTERNET = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"]
INNER = [
    "127.0.0.1", "127.255.1.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16",
    "198.18.0.1", "203.0.113.1", "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
    "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::",
    "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "127.1", "0x7f000001", "2130706433", "localhost", "",
]  # fmt: skip


@pytest.mark.parametrize("address", INTERNET)
def test_an_address_of_the_internet_may_be_reached(address: str) -> None:
    assert Addresses([]).may_reach(address)


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_may_not_be_reached_however_it_is_written(address: str) -> None:
    assert not Addresses([]).may_reach(address)


def test_a_named_network_may_be_reached_and_its_neighbours_may_not() -> None:
    addresses = Addresses([ip_network("10.1.0.0/16"), ip_network("fd12::/64")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::5"):
        assert addresses.may_reach(address), address
    for address in ("10.2.0.1", "127.0.0.1", "fd13::5"):
        assert not addresses.may_reach(address), address


def test_without_tls_only_a_named_network_may_be_reached() -> None:
    addresses = Addresses([ip_network("10.1.0.0/16")], inner_only=True)
    assert addresses.may_reach("10.1.2.3")
    for address in ("93.184.216.34", "10.2.0.1"):
        assert not addresses.may_reach(address), address
