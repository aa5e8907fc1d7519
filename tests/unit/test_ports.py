import socket

from autorenew.local.ports import free_port


def test_a_port_can_be_listened_on() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert 20_000 <= port < 32_000


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == len(ports)


def test_a_port_in_use_is_not_given() -> None:
    # Given every port of a stretch but one in use, as far as that can be arranged
    taken = [socket.create_server(("127.0.0.1", free_port())) for _ in range(20)]
    try:
        in_use = {server.getsockname()[1] for server in taken}
        assert in_use.isdisjoint(free_port() for _ in range(50))
    finally:
        for server in taken:
            server.close()


def test_a_port_is_not_one_the_kernel_hands_out_by_itself() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        lowest = int(file.read().split()[0])
    assert free_port() < max(lowest, 32_768)
